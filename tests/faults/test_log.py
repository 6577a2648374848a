"""What producers and operators do to the inputs while traffic flows."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from tests.faults.conftest import Note
from tests.faults.traffic import BINARY, Shape
from tests.faults.trial import Trial
from tests.support.driftline import Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.producer import RECORDED, EventProducer, outcome, prediction
from tests.support.redis import RedisServer
from tests.support.supervisor import Supervisor

HOUR_MS = 3_600_000
PADDING = "x" * 9_000_000
PARTITIONS = 4


def test_poison_shuffles_skewed_events_and_records_of_nine_megabytes(trial: Trial, full: bool, note: Note) -> None:
    """One percent garbage, outcomes thousands of rows late, event times an hour off, 9 MB in both topics."""
    trial.prepare()
    shape = Shape(poison=0.01, skew_ms=HOUR_MS, shuffle_rows=3_000)
    topics = trial.driftline.topics
    with Supervisor(trial.driftline, 2) as supervisor, trial.traffic(shape) as traffic:
        supervisor.started()
        trial.joined_more(1_000, "the first pairs")
        with EventProducer(trial.broker.bootstrap) as producer:
            for number in range(10 if full else 2):
                large = f"large-{number}"
                producer.send(topics.predictions, prediction(large, BINARY.model, 1, features={"text": PADDING}))
                producer.send(topics.outcomes, outcome(large, 1, comment=PADDING))
        trial.joined_more(20_000 if full else 3_000, "the work goes on")
        verdict = trial.verify(supervisor, traffic)
        assert traffic.sent["poison"]
        assert trial.driftline.counters().dead_predictions
    note(f"{traffic.sent['poison']} poisoned records; {verdict}")


@pytest.mark.long
def test_topics_whose_record_times_are_an_hour_apart(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path, note: Note
) -> None:
    """Producers that stamp records themselves, those of predictions an hour late: accepted on demand, and exact."""
    trial = Trial(kafka_broker, redis_store, deployment, tmp_path, kafka__accept_create_time="true")
    with trial.driftline:
        for topic in (trial.driftline.topics.predictions, trial.driftline.topics.outcomes):
            kafka_broker.create_topic(topic, PARTITIONS, RECORDED)
        trial.prepare()
        shape = Shape(rows_per_s=200, record_skew_ms=HOUR_MS)
        with Supervisor(trial.driftline, 2) as supervisor, trial.traffic(shape) as traffic:
            supervisor.started()
            eventually(lambda: traffic.sent["rows"] > 3_000, "some traffic")
            verdict = trial.verify(supervisor, traffic)
    note(verdict)


def test_aborted_transactions_do_not_count(trial: Trial, full: bool, note: Note) -> None:
    """Half of a transactional producer's work is aborted: contradicting outcomes and predictions that nobody made."""
    trial.prepare()
    topics, rng = trial.driftline.topics, random.Random(9)
    aborted = 0
    with Supervisor(trial.driftline, 2) as supervisor, trial.traffic() as traffic:
        supervisor.started()
        producer = Producer(
            {
                "bootstrap.servers": trial.broker.bootstrap,
                "transactional.id": trial.driftline.name,
                "partitioner": "murmur2_random",
            }
        )
        producer.init_transactions(60)
        for number in range(200 if full else 30):
            producer.begin_transaction()
            abort = rng.random() < 0.5
            for row in range(20):
                # An aborted transaction speaks of rows that the steady traffic sends, too.
                identity = f"row-1-{number * 20 + row}" if abort else f"paid-{number}-{row}"
                said = prediction(identity, BINARY.model, 1)
                for topic, event in ((topics.predictions, said), (topics.outcomes, outcome(identity, 0))):
                    producer.produce(topic, EventProducer.encoded(event), key=identity)
            producer.flush(60)
            time.sleep(0.05)
            if abort:
                aborted += 1
                producer.abort_transaction(60)
            else:
                producer.commit_transaction(60)
        trial.joined_more(1_000, "the work goes on")
        verdict = trial.verify(supervisor, traffic, recorded=False)
    note(f"{aborted} transactions aborted; {verdict}")


@pytest.fixture
def interrupted(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path) -> Iterator[Trial]:
    """A deployment with a store of its own that can be paused: what comes meanwhile is not read."""
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path)
        with trial.driftline:
            trial.prepare()
            yield trial


def refused(worker: Process, *says: str) -> None:
    """It ends with 78 and one line."""
    assert worker.wait() == 78, worker.tail()
    (reason,) = worker.reasons()
    for words in says:
        assert words in reason


def examined(trial: Trial) -> str:
    """What the doctor finds."""
    process = trial.driftline.start("doctor")
    assert process.wait() == 1, process.tail()
    return process.out.read_text()


def test_records_that_are_deleted_unread_stop_the_worker(interrupted: Trial, note: Note) -> None:
    """At its work and at its next start: exit code 78, what is missing, and what to do. The doctor says it too."""
    trial, predictions = interrupted, interrupted.driftline.topics.predictions
    worker = trial.driftline.worker()
    with trial.traffic() as traffic:
        trial.joined_more(500, "the first pairs")
        trial.store.pause()
        try:
            sent = traffic.sent["predictions"]
            eventually(lambda: traffic.sent["predictions"] > sent + 3_000, "records that are not read")
            delete_records(trial.broker, predictions)
        finally:
            trial.store.resume()
        refused(worker, f"{predictions}-", "is next, but the log starts at", "raise the topic's retention")
        traffic.end()
    refused(trial.driftline.daemon("worker"), "is next, but the log starts at", "raise the topic's retention")
    assert "✗ offsets: " in (told := examined(trial))
    assert "is next, the log starts at" in told
    note(worker.reasons())


def test_a_topic_that_is_made_anew_stops_the_worker(interrupted: Trial, note: Note) -> None:
    """Its offsets begin again: nothing of it is taken for what was there before, at work nor at the next start.

    A worker that sees the topic missing meanwhile says that.
    """
    trial, topics = interrupted, interrupted.driftline.topics
    with Supervisor(trial.driftline, 1) as supervisor:
        with trial.traffic() as traffic:
            supervisor.started()
            trial.joined_more(500, "the first pairs")
            sent = traffic.end()
        eventually(lambda: trial.driftline.stored_counters().outcomes == sent["outcomes"], "all of it is read")
        before = trial.driftline.stored_counters()
        admin = trial.broker.admin()
        admin.delete_topics([topics.predictions])[topics.predictions].result()
        eventually(lambda: topics.predictions not in admin.list_topics(timeout=10).topics, "it is gone")
        trial.driftline.create_topics()
        with EventProducer(trial.broker.bootstrap) as producer:
            for number in range(40):
                producer.send(topics.predictions, prediction(f"new-{number}", BINARY.model, 1))
        (ended,) = eventually(supervisor.given_up, "the worker gives up")
    assert ended.code == 78
    assert "the topic was made anew" in ended.said or "topics are missing" in ended.said
    refused(trial.driftline.daemon("worker"), "the topic was made anew", "restore the topic")
    assert "✗ offsets: " in examined(trial)
    assert trial.driftline.stored_counters() == before
    note(ended.said)


def delete_records(broker: KafkaBroker, topic: str) -> None:
    """Delete what each partition holds now."""
    admin = broker.admin()
    ends = {TopicPartition(topic, p, -1): None for p in range(PARTITIONS)}
    for future in admin.delete_records(list(ends)).values():
        future.result()
