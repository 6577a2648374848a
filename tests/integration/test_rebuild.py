"""A store that has lost state: the worker rebuilds it from the log, and nothing that is published tells of it."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import TopicPartition

from streams.audit_log import audit, newest_cuts
from tests.integration.test_worker import MODEL, Traffic, declared
from tests.support.driftline import Driftline, Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.producer import EventProducer
from tests.support.redis import RedisServer

pytestmark = pytest.mark.kafka

ROWS = 1_500
"""More rows than fit into one checkpoint, and the drift of the traffic lies behind several of them."""


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(
        kafka_broker, redis_store, deployment, tmp_path, monitor__for_minutes=60, monitor__burn_rates="[]"
    ) as made:
        yield made


def dumped(client: redis.Redis, pattern: str) -> dict[bytes, bytes]:
    """The keys of a stopped deployment as they are."""
    return {key: client.dump(key) or b"" for key in client.scan_iter(pattern)}


def set_back(client: redis.Redis, pattern: str, earlier: dict[bytes, bytes]) -> None:
    """Put keys in the place of those that are there."""
    if found := list(client.scan_iter(pattern)):
        client.delete(*found)
    for key, value in earlier.items():
        client.restore(key, 0, value)


def flip(client: redis.Redis, key: str) -> None:
    """Change one bit of the first blob of a list."""
    blob = client.lindex(key, 0)
    assert isinstance(blob, bytes)
    client.lset(key, 0, blob[:-1] + bytes([blob[-1] ^ 4]))  # type: ignore[arg-type]  # its stub knows text only


def rebuilds(worker: Process, stage: str) -> int:
    """How many partitions a worker has rebuilt, as /metrics says."""
    with urllib.request.urlopen(worker.url, timeout=30) as response:
        page = response.read().decode()
    name = f'driftline_rebuilds_total{{stage="{stage}"}}'
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith(name))


def send(driftline: Driftline, traffic: Traffic, rows: int) -> None:
    """More rows, until all are joined."""
    traffic.step(rows)
    traffic.end()
    sent = traffic.sent["predictions"]
    eventually(lambda: driftline.stored_counters().joined >= sent, f"{sent} rows are joined")


def settled(driftline: Driftline) -> None:
    """Until the monitor has seen everything that is in the inputs."""
    last_ms = max(record.at_ms for record in driftline.read(driftline.topics.outcomes))
    eventually(lambda: driftline.watermark_ms() > last_ms, "the monitor has seen everything")


def has_paged(driftline: Driftline) -> bool:
    """Whether the drift of the traffic has been told."""
    return any(alert.labels["alertname"] == "ConceptDriftDetected" for alert in driftline.alerts().values())


def same_as_undisturbed(driftline: Driftline, traffic: Traffic, tmp_path: Path, **changes: str | int) -> None:
    """The audit is clean; pairs and alerts are those of a deployment that reads the same log and loses nothing."""
    report = audit(driftline.settings, follow_to_end=True)
    assert report.violations == []
    counters, sent = report.totals.counters, traffic.sent
    assert counters.joined == sent["predictions"]
    assert counters.predictions == sent["predictions"] + sent["duplicates"]
    # In a burst an outcome may be appended before its prediction: a correction of it is a dead letter then.
    corrected = counters.corrections + counters.dead_outcomes
    assert (counters.duplicates, corrected) == (sent["duplicates"], sent["corrections"])
    settled(driftline)
    changes = {"kafka__accept_create_time": "true", "monitor__for_minutes": 60, "monitor__burn_rates": "[]", **changes}
    with Driftline(driftline.broker, driftline.store, f"{driftline.name}b", tmp_path, **changes) as undisturbed:
        undisturbed.take_log_of(driftline)
        undisturbed.worker()
        settled(undisturbed)
        assert undisturbed.pairs() == driftline.pairs()
        alerts = driftline.alerts()
        assert has_paged(driftline)
        assert undisturbed.alerts() == alerts


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one's own, to be emptied and set back."""
    with RedisServer(tmp_path / "own-redis") as store:
        yield store


@pytest.fixture
def alone(kafka_broker: KafkaBroker, own_store: RedisServer, deployment: str, tmp_path: Path) -> Iterator[Driftline]:
    with Driftline(
        kafka_broker, own_store, deployment, tmp_path, monitor__for_minutes=60, monitor__burn_rates="[]"
    ) as made:
        yield made


def test_a_store_that_is_emptied_or_set_back_under_load_is_rebuilt(alone: Driftline, tmp_path: Path) -> None:
    """FLUSHALL while it works, then a Redis that comes back with an older file: it ends, and its next start goes on.

    Join and monitor are rebuilt both, no page comes twice, and the end is that of a run that lost nothing.
    """
    alone.create_topics().announce(declared(MODEL))
    saved = tmp_path / "saved"
    with EventProducer(alone.broker.bootstrap) as producer:
        traffic = Traffic(alone, producer)
        worker = alone.worker()
        send(alone, traffic, ROWS)
        alone.store.stop()
        shutil.copytree(alone.store.directory / "appendonlydir", saved)
        alone.store.start()
        send(alone, traffic, 4 * ROWS)
        settled(alone)
        eventually(lambda: has_paged(alone), "the drift has been told")
        traffic.step(ROWS // 3)
        with alone.store.client() as client:
            client.flushall()
        assert worker.wait() == 75, worker.tail()
        assert "emptied or set back" in worker.said()
        worker = alone.worker()
        eventually(lambda: rebuilds(worker, "join") == rebuilds(worker, "monitor") == 4, "all are rebuilt")
        assert {each["exact"] for each in worker.events("rebuild.done") if each["stage"] == "monitor"} == {True}
        traffic.step(ROWS // 3)
        alone.store.stop()
        shutil.rmtree(alone.store.directory / "appendonlydir")
        shutil.copytree(saved, alone.store.directory / "appendonlydir")
        alone.store.start()
        assert worker.wait() == 75, worker.tail()
        worker = alone.worker()
        eventually(lambda: rebuilds(worker, "join") == rebuilds(worker, "monitor") == 4, "all are rebuilt again")
        done = worker.events("rebuild.done")
        assert {each["began"] for each in done} == {"from the store"}
        send(alone, traffic, ROWS // 3)
    same_as_undisturbed(alone, traffic, tmp_path)


def test_join_state_that_is_behind_gone_or_damaged_is_rebuilt(driftline: Driftline, tmp_path: Path) -> None:
    """Each partition has lost something else, while the monitor's state is kept: all go on as if nothing had been."""
    driftline.create_topics().announce(declared(MODEL))
    name = driftline.name
    with EventProducer(driftline.broker.bootstrap) as producer, driftline.store.client() as client:
        traffic = Traffic(driftline, producer)
        worker = driftline.worker()
        send(driftline, traffic, ROWS)
        assert worker.terminate() == 0
        earlier = dumped(client, f"{name}:{{join:0}}:*")
        worker = driftline.worker()
        send(driftline, traffic, 4 * ROWS)
        traffic.step(ROWS // 3)  # some of them wait
        eventually(lambda: driftline.stored_counters().predictions > 5 * ROWS + ROWS // 3, "all are read")
        assert worker.terminate() == 0
        set_back(client, f"{name}:{{join:0}}:*", earlier)
        set_back(client, f"{name}:{{join:1}}:*", {})
        flip(client, f"{name}:{{join:2}}:log")
        client.delete(f"{name}:{{join:3}}:outbox")
        worker = driftline.worker()
        eventually(lambda: rebuilds(worker, "join") == 4, f"all are rebuilt: {worker.tail()}")
        began = {each["partition"]: each["began"] for each in worker.events("rebuild.done")}
        assert began[0] == "from the store"
        assert all(began[partition].startswith("behind cut") for partition in (1, 2, 3))
        assert worker.terminate() == 0
        worker = driftline.worker()
        assert rebuilds(worker, "join") == 0
        send(driftline, traffic, ROWS // 3)
    same_as_undisturbed(driftline, traffic, tmp_path)


def test_a_loss_that_the_log_cannot_make_good_is_accepted_by_hand(driftline: Driftline) -> None:
    """Neither store nor log has the state: the worker stops and says so; told to, it begins that partition again."""
    driftline.create_topics().announce(declared(MODEL))
    topics = driftline.topics
    with EventProducer(driftline.broker.bootstrap) as producer, driftline.store.client() as client:
        traffic = Traffic(driftline, producer)
        worker = driftline.worker()
        send(driftline, traffic, ROWS // 3)
        assert worker.terminate() == 0
        gone = max(record.offset for record in driftline.read(topics.predictions) if record.partition == 0)
        place = TopicPartition(topics.predictions, 0, gone)
        admin = driftline.broker.admin()  # kept: without it nobody completes the future
        admin.delete_records([place])[place].result(30)
        lost = newest_cuts(driftline.settings.kafka, topics.checkpoints)[0][0]
        set_back(client, f"{driftline.name}:{{join:0}}:*", {})
        refused = driftline.start("worker")
        assert refused.wait() == 78, refused.tail()
        assert "does not reach back" in refused.said()
        assert "driftline worker --accept-loss" in refused.said()
        worker = driftline.daemon("worker", "--accept-loss").started()
        (accepted,) = worker.events("loss.accepted")
        assert accepted["partition"] == 0
        traffic.step(ROWS // 3)
        traffic.end()
        report = audit(driftline.settings, follow_to_end=True)
        assert report.violations == []
        assert any("partition 0: a loss was accepted" in note for note in report.notes)
        (restarted,) = [each for each in report.partitions if each.partition == 0]
        assert restarted.sequence < lost.sequence + restarted.cuts
        assert restarted.predictions.start == lost.predictions.end
        assert restarted.counters.joined == restarted.counters.predictions - restarted.counters.duplicates > 0
        settled(driftline)
        assert worker.terminate() == 0
        worker = driftline.worker()
        assert rebuilds(worker, "join") == rebuilds(worker, "monitor") == 0
        send_more = driftline.counters().joined
        traffic.step(100)
        traffic.end()
        eventually(lambda: driftline.counters().joined >= send_more + 100, "it goes on")
    assert audit(driftline.settings, follow_to_end=True).violations == []
