"""`driftline worker` as a process: exact under kill -9, clean on SIGTERM, refusals of one line."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from streams.audit_log import audit
from streams.events import Baseline, ModelState
from streams.topics import TopicAdmin
from tests.support.driftline import Driftline, Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.producer import EventProducer, outcome, prediction
from tests.support.redis import RedisServer

pytestmark = pytest.mark.kafka

KILLS = 4
TRAFFIC_S = 15.0
TRAFFIC_BOUND_S = 90.0
ROWS_A_STEP = 40
STEP_S = 0.05
DELAY_ROWS = 400
DRIFT_ROW = 5_000
MODEL = "loans"


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(
        kafka_broker, redis_store, deployment, tmp_path, monitor__for_minutes=60, monitor__burn_rates="[]"
    ) as made:
        yield made


def declared(model: str = MODEL) -> ModelState:
    """A model whose champion has a baseline, so that its detectors run from the first outcome on."""
    baselines = {"1": Baseline("accuracy", 0.95, 5_000, 0.003)}
    return ModelState(model, 1, "binary", [0, 1], 1, {"champion": "1"}, baselines, mode="observe")


class Traffic:
    """Predictions, and outcomes some rows later, among which are duplicates and corrections; counts what it sent."""

    def __init__(self, driftline: Driftline, producer: EventProducer) -> None:
        self.sent: Counter[str] = Counter()
        self._topics = driftline.topics
        self._producer = producer
        self._rng = random.Random(11)
        self._waiting: list[tuple[str, int]] = []

    def step(self, rows: int = ROWS_A_STEP) -> None:
        for _ in range(rows):
            number = self.sent["predictions"]
            identity, value = f"row-{number}", number % 2
            self._predict(prediction(identity, MODEL, value), duplicate=number % 97 == 0)
            wrong = self._rng.random() < (0.5 if number > DRIFT_ROW else 0.05)
            self._waiting.append((identity, 1 - value if wrong else value))
            if len(self._waiting) > DELAY_ROWS:
                self._observe(*self._waiting.pop(self._rng.randrange(DELAY_ROWS // 2)))

    def end(self) -> None:
        """The outcomes that are due still."""
        for identity, value in self._waiting:
            self._observe(identity, value)
        self._waiting.clear()
        self._producer.flush()

    def _predict(self, event: dict[str, object], *, duplicate: bool) -> None:
        self.sent["predictions"] += 1
        self.sent["duplicates"] += duplicate
        for _ in range(1 + duplicate):
            self._producer.send(self._topics.predictions, event)

    def _observe(self, identity: str, value: int) -> None:
        self.sent["outcomes"] += 1
        self._producer.send(self._topics.outcomes, outcome(identity, value))
        if self.sent["outcomes"] % 101 == 0:
            self.sent["corrections"] += 1
            self._producer.send(self._topics.outcomes, outcome(identity, 1 - value))


def kill_in_turn(driftline: Driftline, traffic: Traffic) -> list[Process]:
    """Steady traffic while workers that own partitions are killed in turn and started again → those that run."""
    workers = [driftline.worker(), driftline.worker()]
    began = time.monotonic()
    kills, next_kill = 0, began + 3
    while kills < KILLS or time.monotonic() - began < TRAFFIC_S:
        assert time.monotonic() - began < TRAFFIC_BOUND_S, f"only {kills} kills: {workers[kills % 2].tail()}"
        traffic.step()
        time.sleep(STEP_S)
        victim = workers[kills % 2]
        if kills < KILLS and time.monotonic() > next_kill and victim.events("partitions.assigned"):
            victim.kill()
            workers[kills % 2] = driftline.daemon("worker")
            kills += 1
            next_kill = time.monotonic() + 2
    return [worker.started() for worker in workers]


def test_kill_minus_nine_changes_no_count_and_no_alert(
    driftline: Driftline, kafka_broker: KafkaBroker, redis_store: RedisServer, tmp_path: Path
) -> None:
    """Workers killed at work: every pair exactly once, the law holds, and alerts are those of an undisturbed run."""
    driftline.create_topics().announce(declared())
    with EventProducer(kafka_broker.bootstrap) as producer:
        traffic = Traffic(driftline, producer)
        workers = kill_in_turn(driftline, traffic)
        traffic.end()
    sent = traffic.sent
    assert sent["predictions"] > DRIFT_ROW + 1_000, "the drift is in the stream"
    eventually(lambda: driftline.stored_counters().joined >= sent["predictions"], "every pair is joined")
    report = audit(driftline.settings, follow_to_end=True)
    assert report.violations == []
    assert report.conserved
    counters = report.totals.counters
    assert counters.joined == sent["predictions"]
    assert counters.predictions == sent["predictions"] + sent["duplicates"]
    assert (counters.duplicates, counters.corrections) == (sent["duplicates"], sent["corrections"])
    assert (counters.dead_predictions, counters.dead_outcomes, counters.late) == (0, 0, 0)
    assert sum(each.takes for each in report.partitions) > driftline.settings.kafka.partitions
    pairs = driftline.pairs()
    assert len({pair[:2] for pair in pairs}) == sent["predictions"]

    last_ms = max(record.at_ms for record in driftline.read(driftline.topics.outcomes))
    eventually(lambda: driftline.watermark_ms() > last_ms, "the monitor has seen everything")
    for worker in workers:
        assert worker.terminate() == 0, worker.tail()
        assert worker.events("worker.stopped"), worker.tail()
        assert not worker.events("worker.stop_slow"), worker.tail()
    killed = driftline.alerts()
    assert any(alert.labels["alertname"] == "ConceptDriftDetected" for alert in killed.values())

    changes: dict[str, str | int] = {
        "kafka__accept_create_time": "true",
        "monitor__for_minutes": 60,
        "monitor__burn_rates": "[]",
    }
    with Driftline(kafka_broker, redis_store, f"{driftline.name}b", tmp_path, **changes) as undisturbed:
        undisturbed.take_log_of(driftline)
        undisturbed.worker()
        eventually(lambda: undisturbed.watermark_ms() > last_ms, "the monitor has seen everything")
        assert undisturbed.pairs() == pairs
        assert undisturbed.alerts() == killed


def ended(process: Process, code: int, *says: str) -> None:
    """The process ends with ``code`` and one line that says what and how to mend it."""
    assert process.wait() == code, process.tail()
    said = process.said()
    assert said.startswith("driftline: "), said
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in process.log.read_text()
    for words in says:
        assert words in said


def test_what_is_missing_or_wrong_is_one_line(driftline: Driftline) -> None:
    """No broker, no store, a port in use, a wrong setting: one line, the documented exit code, no traceback."""
    nobody = f"127.0.0.1:{free_port()}"
    started = [
        (driftline.start("worker", kafka__bootstrap=nobody, kafka__request_timeout_s=3), 69, "no Kafka broker answers"),
        (driftline.start("worker", redis__url=f"redis://{nobody}/0"), 69, "no Redis answers"),
        (driftline.start("worker", worker__http=driftline.broker.address), 69, "in use"),
        (driftline.start("worker", worker__horizon_s="-1"), 2, "worker.horizon_s"),
        (driftline.start("worker", worker__colour="blue"), 2, "worker.colour"),
    ]
    for process, code, words in started:
        ended(process, code, words, " — ")


def test_a_store_that_may_forget_is_refused(driftline: Driftline, tmp_path: Path) -> None:
    """A Redis without append-only file, or one that evicts, is refused, and the flag allows it."""
    with (
        RedisServer(tmp_path / "volatile", appendonly=False) as volatile,
        RedisServer(tmp_path / "evicting", options={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as evicts,
    ):
        ended(driftline.start("worker", redis__url=volatile.url), 78, "append-only file", "redis.allow_volatile")
        ended(driftline.start("worker", redis__url=evicts.url), 78, "allkeys-lru", "noeviction")
        driftline.worker(redis__url=volatile.url, redis__allow_volatile="true")


def test_topics_that_would_break_the_join_are_refused(driftline: Driftline) -> None:
    """Unequal partition counts, and the producer's timestamps, are refused with the command that mends them."""
    broker, topics = driftline.broker, driftline.topics
    broker.create_topic(topics.predictions, 2)
    broker.create_topic(topics.outcomes, 3)
    ended(driftline.start("worker"), 78, "partition counts must be equal", "driftline topics repair")
    driftline.run("topics", "repair")
    ended(driftline.start("worker"), 78, "CreateTime", "message.timestamp.type=LogAppendTime")
    driftline.worker(kafka__accept_create_time="true")


def test_a_changed_partition_count_is_refused(driftline: Driftline) -> None:
    """Partitions added to a live deployment: ids would be looked for in another partition's state."""
    driftline.create_topics()
    worker = driftline.worker()
    assert worker.terminate() == 0
    admin = driftline.broker.admin()
    admin.create_partitions([NewPartitions(driftline.topics.predictions, 6)])[driftline.topics.predictions].result()
    ended(driftline.start("worker"), 78, "driftline topics repair")
    TopicAdmin(driftline.settings).repair()
    ended(driftline.start("worker"), 78, "driftline topics accept")
    driftline.run("topics", "accept")
    driftline.worker()
