"""Whatever producers send: counted under its own reason, kept with its bytes, and the stream goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.audit_log import audit
from streams.events import MAX_VALUE_BYTES, ModelState
from streams.log import Record
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.producer import RECORDED, EventProducer, outcome, prediction
from tests.support.redis import RedisServer

pytestmark = pytest.mark.kafka

MB = 1_000_000
PADDED = 9 * MB + 900_000
YEAR_MS = 365 * 86_400_000
DECLARED = ModelState("loans", 1, "binary", [0, 1], 1, {"champion": "1"}, mode="observe")


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used, and the reason under which it must be counted."""

    reason: str
    value: bytes | None
    topic: str = "predictions"


def changed(event: dict[str, object], **fields: object) -> bytes:
    """The event with other fields; one that is ``...`` is left out."""
    return json.dumps({name: value for name, value in (event | fields).items() if value is not ...}).encode()


GOOD = prediction("some-id", "loans", 1)
TRUE = outcome("some-id", 1)

BAD = {
    "not JSON": Bad("not_json", b"hello"),
    "empty": Bad("not_json", b""),
    "a tombstone": Bad("not_json", None),
    "not UTF-8": Bad("not_json", b'{"prediction_id": "\xff\xfe"}'),
    "cut short": Bad("not_json", json.dumps(GOOD).encode()[:-5]),
    "nested a hundred thousand deep": Bad("not_json", b'{"features":' + b"[" * 100_000),
    "not an object": Bad("wrong_type", b"[1, 2]"),
    "an id that is a number": Bad("wrong_type", changed(GOOD, prediction_id=17)),
    "a model that is a list": Bad("wrong_type", changed(GOOD, model=["loans"])),
    "a prediction that is an object": Bad("wrong_type", changed(GOOD, prediction={"class": 1})),
    "no id": Bad("missing_field", changed(GOOD, prediction_id=...)),
    "an empty id": Bad("missing_field", changed(GOOD, prediction_id="")),
    "no prediction": Bad("missing_field", changed(GOOD, prediction=...)),
    "NaN": Bad("not_finite", changed(GOOD, score=float("nan"))),
    "infinity": Bad("not_finite", changed(GOOD, prediction=float("-inf"))),
    "1e308": Bad("out_of_range", changed(GOOD, prediction=1e308)),
    "an integer of a thousand digits": Bad("out_of_range", changed(GOOD, prediction=10**1000)),
    "a score of 7": Bad("out_of_range", changed(GOOD, score=7.0)),
    "predicted in the year 1": Bad("out_of_range", changed(GOOD, predicted_at="0001-01-01T00:00:00Z")),
    "a time without a zone": Bad("wrong_type", changed(GOOD, predicted_at="2026-01-01T00:00:00")),
    "an outcome as CloudEvent": Bad(
        "wrong_event",
        json.dumps(
            {"specversion": "1.0", "type": "driftline.outcome.v1", "source": "x", "id": "1", "data": TRUE}
        ).encode(),
    ),
    "10 MB": Bad("too_large", changed(GOOD, padding="x" * PADDED)),
    "a class of 5 MB": Bad("too_large", changed(GOOD, prediction="x" * 5 * MB)),
    "a segment of 5 MB": Bad("too_large", changed(GOOD, segment="x" * 5 * MB)),
    "a class that the model does not have": Bad("unknown_class", changed(GOOD, prediction=2)),
    "an outcome that is not JSON": Bad("not_json", b"\x00\x01\x02\x03", "outcomes"),
    "an outcome without an id": Bad("missing_field", changed(TRUE, prediction_id=...), "outcomes"),
    "an outcome of 1e308": Bad("out_of_range", changed(TRUE, outcome=1e308), "outcomes"),
    "an outcome that is NaN": Bad("not_finite", changed(TRUE, outcome=float("nan")), "outcomes"),
    "an outcome of 10 MB": Bad("too_large", changed(TRUE, padding="x" * PADDED), "outcomes"),
    "an outcome class of 5 MB": Bad("too_large", changed(TRUE, outcome="x" * 5 * MB), "outcomes"),
}


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(kafka_broker, redis_store, deployment, tmp_path, worker__max_undeclared_models=2) as made:
        yield made


def header(record: Record, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()


def conserved(driftline: Driftline) -> None:
    report = audit(driftline.settings, follow_to_end=True)
    assert report.violations == []
    assert report.conserved


def test_records_that_cannot_be_used_are_dead_letters_and_the_stream_goes_on(driftline: Driftline) -> None:
    """Each kind under its own reason, with its bytes and its place; good records between them join."""
    driftline.create_topics().announce(DECLARED)
    topics = driftline.topics
    worker = driftline.worker()
    with EventProducer(driftline.broker.bootstrap) as producer:
        for number, (name, bad) in enumerate(BAD.items()):
            producer.send(getattr(topics, bad.topic), bad.value, name)
            producer.send(topics.predictions, prediction(f"good-{number}", "loans", 1))
            producer.send(topics.outcomes, outcome(f"good-{number}", 0))
    lost = sum(bad.topic == "outcomes" for bad in BAD.values())

    def taken_in() -> bool:
        assert worker.is_running, worker.tail()
        counters = driftline.stored_counters()
        dead = counters.dead_predictions, counters.dead_outcomes  # partitions go on by themselves
        return counters.joined == len(BAD) and dead == (len(BAD) - lost, lost)

    eventually(taken_in, "everything is taken in")
    dead = driftline.dead_letters()
    assert len(dead) == len(BAD)
    places = {
        (topic, record.partition, record.offset): record
        for topic in (topics.predictions, topics.outcomes)
        for record in driftline.read(topic)
    }
    told = {}
    for reason, letter in dead:
        partition, offset = (int(header(letter, f"driftline_{name}")) for name in ("partition", "offset"))
        original = places[header(letter, "driftline_topic"), partition, offset]
        if len(original.value or b"") > MAX_VALUE_BYTES:  # it would not fit a record with the letter's headers
            assert json.loads(letter.value or b"")["offset"] == offset
        else:
            assert letter.value == original.value
        assert header(letter, "driftline_detail")
        told[(original.key or b"").decode()] = reason
    assert told == {name: bad.reason for name, bad in BAD.items()}
    conserved(driftline)


def test_records_that_contradict_what_is_known(driftline: Driftline) -> None:
    """Too many undeclared models, shared ids, classes and tasks that do not fit, a second early outcome."""
    driftline.create_topics().announce(DECLARED)
    predictions, outcomes = driftline.topics.predictions, driftline.topics.outcomes
    driftline.worker()
    with EventProducer(driftline.broker.bootstrap) as producer:
        producer.send(predictions, prediction("a", "loans", 1))
        producer.send(predictions, prediction("r", "prices", 1.5))
        eventually(lambda: driftline.stored_counters().predictions == 2, "the first predictions")
        producer.send(predictions, prediction("u", "words", "yes"))
        eventually(lambda: driftline.stored_counters().predictions == 3, "the second undeclared model")
        producer.send(predictions, prediction("v", "one-too-many", 1))
        producer.send(predictions, prediction("a", "prices", 2.5))
        producer.send(predictions, prediction("s", "prices", "expensive"))
        producer.send(outcomes, outcome("a", 7))
        producer.send(outcomes, outcome("r", "cheap"))
        producer.send(outcomes, outcome("u", "yes", model="loans"))
        producer.send(outcomes, outcome("early", 1))
        producer.send(outcomes, outcome("early", 0))
        producer.flush()
        eventually(lambda: driftline.stored_counters().dead_outcomes == 4, "the outcomes are refused")
        # What was refused has not taken anything away: the right outcomes still join.
        for identity, value in (("a", 0), ("r", 1.75), ("u", "no")):
            producer.send(outcomes, outcome(identity, value))
        producer.send(predictions, prediction("early", "loans", 1))
    eventually(lambda: driftline.stored_counters().joined == 4, "the right ones join")
    assert Counter(reason for reason, _ in driftline.dead_letters()) == {
        "too_many_models": 1,
        "shared_id": 2,
        "wrong_task": 2,
        "unknown_class": 1,
        "correction_unpaired": 1,
    }
    conserved(driftline)


def test_what_producers_do_that_is_no_fault_is_counted_and_not_diverted(driftline: Driftline) -> None:
    """Duplicates, corrections, outcomes first, envelopes and framing: no dead letter."""
    driftline.create_topics().announce(DECLARED)
    predictions, outcomes = driftline.topics.predictions, driftline.topics.outcomes
    event = prediction("structured", "loans", 1)
    envelope = {"specversion": "1.0", "id": "1", "source": "x", "type": "driftline.prediction.v1", "data": event}
    driftline.worker()
    with EventProducer(driftline.broker.bootstrap) as producer:
        producer.send(outcomes, outcome("early", 1))
        producer.flush()
        eventually(lambda: driftline.stored_counters().outcomes == 1, "the early outcome waits")
        producer.send(predictions, prediction("early", "loans", 1))
        producer.send(predictions, json.dumps(envelope).encode(), "structured")
        producer.send(predictions, b"\x00\x00\x00\x00\x07" + changed(event, prediction_id="framed"), "framed")
        for _ in range(3):
            producer.send(predictions, prediction("twice", "loans", 1, unknown_field={"is": "ignored"}))
        producer.flush()
        for identity in ("structured", "framed", "twice"):
            producer.send(outcomes, outcome(identity, 0))
        producer.flush()
        eventually(lambda: driftline.stored_counters().joined == 4, "all of them join")
        producer.send(outcomes, outcome("twice", 1))
        producer.send(predictions, prediction("twice", "loans", 1))
    eventually(lambda: driftline.stored_counters().corrections == 1, "the second outcome corrects the first")
    eventually(lambda: driftline.stored_counters().duplicates == 3, "duplicates are counted")
    assert driftline.dead_letters() == []
    conserved(driftline)


def test_outcomes_that_come_late(driftline: Driftline) -> None:
    """Past the horizon a prediction expires: an outcome just after is late, one years later waits in vain."""
    topics = driftline.topics
    for topic in (topics.predictions, topics.outcomes):
        driftline.broker.create_topic(topic, 1, RECORDED)
    driftline.create_topics().announce(DECLARED)
    horizon_ms = int(driftline.settings.worker.horizon_s * 1000)
    start_ms = time.time_ns() // 1_000_000 - 3 * YEAR_MS
    with EventProducer(driftline.broker.bootstrap) as producer:
        for identity in ("in time", "late", "years late"):
            producer.send(topics.predictions, prediction(identity, "loans", 1), at_ms=start_ms)
        producer.send(topics.outcomes, outcome("in time", 1), at_ms=start_ms + horizon_ms)
        producer.send(topics.outcomes, outcome("late", 1), at_ms=start_ms + horizon_ms + 60_000)
        producer.send(topics.outcomes, outcome("years late", 1), at_ms=start_ms + 2 * YEAR_MS)
    driftline.worker(kafka__accept_create_time="true")
    eventually(lambda: driftline.stored_counters().expired_outcomes == 1, "the outcome that is years late expires")
    counters = driftline.stored_counters()
    assert (counters.joined, counters.late, counters.expired_predictions) == (1, 1, 2)
    assert driftline.dead_letters() == []
    conserved(driftline)


def test_a_stream_of_garbage_stops_the_worker_uncommitted(driftline: Driftline) -> None:
    """Exit code 76 and the command that lets it pass; nothing of it is diverted or committed before that is said."""
    driftline.create_topics().announce(DECLARED)
    topics = driftline.topics
    worker = driftline.worker()
    with EventProducer(driftline.broker.bootstrap) as producer:
        for number in range(100):
            producer.send(topics.predictions, prediction(f"row-{number}", "loans", 1))
            producer.send(topics.outcomes, outcome(f"row-{number}", 1))
        producer.flush()
        eventually(lambda: driftline.stored_counters().joined == 100, "the good records join")
        assert worker.terminate() == 0
        before = driftline.counters()
        for number in range(4_000):
            producer.send(topics.predictions, b"\x93garbage", partition=number % 4)
    worker = driftline.start("worker")
    assert worker.wait() == 76, worker.tail()
    assert "driftline --set worker.allow_garbage=true worker" in worker.said()
    assert len(worker.said().splitlines()) == 1
    assert driftline.stored_counters() == before
    assert driftline.counters() == before
    assert driftline.dead_letters() == []

    driftline.worker(worker__allow_garbage="true")
    eventually(lambda: driftline.stored_counters().dead_predictions == 4_000, "the garbage is diverted")
    assert Counter(reason for reason, _ in driftline.dead_letters()) == {"not_json": 4_000}
    with EventProducer(driftline.broker.bootstrap) as producer:
        producer.send(topics.predictions, prediction("after", "loans", 1))
        producer.send(topics.outcomes, outcome("after", 1))
    eventually(lambda: driftline.stored_counters().joined == 101, "the stream goes on")
    conserved(driftline)
