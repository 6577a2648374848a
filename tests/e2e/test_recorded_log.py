"""One recorded log gives the same pairs and the same alerts, whoever reads it and however often they are interrupted.
So does a replay of what each of them has published.

Three hours of two models are written once, with their record times; then one worker reads them, two read them, and one
is killed in the middle and comes back 20 s later.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.audit_log import audit
from streams.events import Alert, Baseline, ModelState
from tests.support.driftline import Driftline, Pair, eventually
from tests.support.kafka import KafkaBroker
from tests.support.producer import RECORDED, EventProducer, outcome, prediction
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PARTITIONS = 4
MINUTES = 180
ROWS_A_MINUTE = 120
DRIFT_MINUTE, RECOVERY_MINUTE = 80, 130
PAUSE_S = 20.0
FEATURES = {f"feature_{i}": i / 7 for i in range(40)}
"""About a kilobyte: the log is read in many fetches, so that an interruption can fall between them."""
SETTINGS: dict[str, str | int | float] = {
    "kafka.accept_create_time": "true",
    "worker.checkpoint_events": 1,
    "monitor.baseline_outcomes": 2_000,
    "monitor.window_minutes": 10,
    "monitor.minimum_outcomes": 100,
    "monitor.outcomes_missing_minutes": 100_000,
}


def write_log(driftline: Driftline, end_ms: int) -> int:
    """An undeclared model and a declared one, both of which drift and recover → the number of pairs."""
    topics, rng = driftline.topics, random.Random(5)
    for topic in (topics.predictions, topics.outcomes):
        driftline.broker.create_topic(topic, PARTITIONS, RECORDED)
    driftline.create_topics().announce(
        ModelState(
            *("prices", 1, "regression"),
            aliases={"champion": "v1"},
            baselines={"v1": Baseline("mae", 1.0, 5_000, 0.01)},
            mode="observe",
        )
    )
    start_ms = end_ms - MINUTES * 60_000
    pairs, late = 0, []
    with EventProducer(driftline.broker.bootstrap) as producer:
        for number in range(MINUTES * ROWS_A_MINUTE):
            at_ms = start_ms + number * 60_000 // ROWS_A_MINUTE
            bad = DRIFT_MINUTE <= number // ROWS_A_MINUTE < RECOVERY_MINUTE
            identity = f"row-{number}"
            if number % 3 == 0:
                said: int | float = round(rng.uniform(90, 110), 3)
                true: int | float = said + rng.gauss(0, 3.0 if bad else 1.25)
                event = prediction(identity, "prices", said, "v1", features=FEATURES)
            else:
                said = number % 2
                true = 1 - said if rng.random() < (0.35 if bad else 0.04) else said
                event = prediction(identity, "loans", said, features=FEATURES, segment=rng.choice("ab"))
            producer.send(topics.predictions, event, at_ms=at_ms)
            if number % 50 == 0:
                producer.send(topics.predictions, event, at_ms=at_ms + 40)
            if number % 60 == 0:
                producer.send(topics.predictions, b"not JSON", identity, at_ms=at_ms)
            if number % 40 != 0:
                late.append((at_ms + rng.randrange(1, 90_000), outcome(identity, true)))
                pairs += 1
            if number % 70 == 1:
                late.append((at_ms + 100_000, outcome(identity, said)))
        # As the broker would have: record times never step back.
        for at_ms, event in sorted(late, key=lambda each: each[0]):
            producer.send(topics.outcomes, event, at_ms=min(at_ms, end_ms))
    return pairs


def told(driftline: Driftline, pairs: int, end_ms: int) -> tuple[set[Pair], dict[str, Alert]]:
    """The pairs, and the alerts of the time of the log, once everything has been read."""
    eventually(lambda: driftline.stored_counters().joined >= pairs, "every pair is joined", bound_s=240)
    eventually(lambda: driftline.watermark_ms() > end_ms + 60_000, "the monitor has seen the log", bound_s=240)
    report = audit(driftline.settings, follow_to_end=True)
    assert report.violations == []
    assert report.totals.counters.joined == pairs
    replayed = json.loads(driftline.run("replay", "--check", "--json"))
    alerts = driftline.alerts()
    assert replayed["identical"]
    assert replayed["limits"] == []
    assert replayed["replayed"] == len(alerts)
    return driftline.pairs(), alerts


def same(found: tuple[set[Pair], dict[str, Alert]], expected: tuple[set[Pair], dict[str, Alert]]) -> None:
    """Differences, not two heaps of pairs, are what a failure shows."""
    assert sorted(found[0] ^ expected[0])[:20] == []
    assert found[1].keys() == expected[1].keys()
    assert found[1] == expected[1]


@pytest.fixture
def reader(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Callable[[str], Driftline]]:
    """Makes deployments of the same settings."""
    made: list[Driftline] = []
    changes = {name.replace(".", "__"): value for name, value in SETTINGS.items()}

    def make(suffix: str) -> Driftline:
        made.append(Driftline(kafka_broker, redis_store, f"{deployment}{suffix}", tmp_path, **changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_one_log_gives_the_same_pairs_and_alerts(reader: Callable[[str], Driftline]) -> None:
    """Read by one worker, by two, and by one that is killed in the middle and comes back after 20 s."""
    end_ms = time.time_ns() // 1_000_000 - 60_000
    one, two, paused = reader("a"), reader("b"), reader("c")
    count = write_log(one, end_ms)
    two.take_log_of(one)
    paused.take_log_of(one)

    worker = one.worker()
    pairs, alerts = told(one, count, end_ms)
    worker.kill()
    for source in ("summaries", "inputs"):
        other = ("--set", "monitor.clean_minutes=10000")
        current, patient = json.loads(one.run("replay", "--from", source, "--json", *other))["policies"]
        assert current["alerts"] == len(alerts)
        assert [each["resolved_s"] for each in patient["episodes"]] == [None] * patient["alarms"]
    assert len({pair[:2] for pair in pairs}) == count
    seen = {(a.labels["alertname"], a.labels["model"], a.status) for a in alerts.values()}
    for model in ("loans", "prices"):
        for name in ("ConceptDriftDetected", "ModelAccuracyDropped"):
            assert {(name, model, "firing"), (name, model, "resolved")} <= seen, sorted(seen)

    workers = [two.daemon("worker"), two.daemon("worker")]
    same(told(two, count, end_ms), (pairs, alerts))
    assert all(each.events("partitions.assigned") for each in workers)
    for each in workers:
        each.kill()

    worker = paused.daemon("worker")
    eventually(lambda: paused.stored_counters().joined, "the first pairs", poll_s=0.005)
    worker.kill()
    assert 0 < paused.stored_counters().joined < count, "it was in the middle"
    time.sleep(PAUSE_S)
    paused.worker()
    same(told(paused, count, end_ms), (pairs, alerts))
