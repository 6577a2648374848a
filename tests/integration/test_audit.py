"""`driftline audit` and the other operator commands against a real worker, Kafka and Redis."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from streams.audit import AuditReport
from streams.audit_log import audit, newest_cuts
from streams.kafka import SafeProducer
from streams.records import Labelled, LabelledRow, Range
from streams.settings import KafkaSettings, RedisSettings, Settings, WorkerSettings
from streams.store import StateStore
from streams.store_client import connect
from streams.topics import TopicAdmin, Topics
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = pytest.mark.kafka
BOUND_S = 120.0
PARTITIONS = 2
ROWS = 1_500


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Poll until ``condition`` holds → its value."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"never: {what}")


class Deployment:
    """The topics and processes of one deployment; all processes are killed at the end."""

    def __init__(self, broker: KafkaBroker, store: RedisServer, prefix: str, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            kafka=KafkaSettings(
                bootstrap=broker.bootstrap,
                topic_prefix=f"{prefix}.",
                partitions=PARTITIONS,
                session_timeout_s=4.0,
                heartbeat_s=1.0,
                request_timeout_s=10.0,
            ),
            redis=RedisSettings(url=store.url, prefix=prefix),
            worker=WorkerSettings(group=prefix, http="127.0.0.1:0", checkpoint_s=0.3),
            repository=str(folder / "models"),
        )
        self.topics = Topics(f"{prefix}.")
        self.processes: list[subprocess.Popen[str]] = []
        TopicAdmin(self.settings).create()
        self.producer = SafeProducer(self.settings.kafka)

    def arguments(self, **changes: str) -> list[str]:
        """The settings of the deployment as flags."""
        chosen: dict[str, str] = {
            f"{section}.{name}": str(value)
            for section in ("kafka", "redis", "worker")
            for name, value in getattr(self.settings, section).model_dump(exclude_unset=True).items()
        }
        chosen |= {"repository": self.settings.repository} | changes
        return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]

    def run(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `driftline …` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "driftline", "--log", "warning", *self.arguments(**changes), *command],
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
            env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
        )

    def worker(self) -> subprocess.Popen[str]:
        """Start a worker and wait until it says that it runs."""
        number = len(self.processes)
        ready = self.folder / f"ready-{number}"
        with (self.folder / f"worker-{number}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "driftline", *self.arguments(), "worker", "--ready-file", str(ready)],
                stdout=log,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        eventually(lambda: ready.exists() or process.poll() is not None, "the worker is ready")
        assert process.poll() is None, (self.folder / f"worker-{number}.log").read_text()[-2000:]
        return process

    def publish(self, topic: str, event: dict[str, Any] | bytes, key: str) -> None:
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        self.producer.send(topic, value, key.encode())

    def audit(self) -> AuditReport:
        return audit(self.settings, follow_to_end=True)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.producer.close()


@pytest.fixture
def running(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Deployment]:
    made = Deployment(kafka_broker, redis_store, deployment, tmp_path)
    try:
        yield made
    finally:
        made.close()


def prediction(identity: str, model: str = "loans", value: object = 1) -> dict[str, Any]:
    return {"prediction_id": identity, "model": model, "version": "1", "prediction": value}


def outcome(identity: str, value: object = 1, **more: Any) -> dict[str, Any]:
    return {"prediction_id": identity, "outcome": value, **more}


def traffic(deployment: Deployment, part: str, rng: random.Random) -> dict[str, int]:
    """Publish every kind of record → what becomes of them."""
    predictions, outcomes = deployment.topics.predictions, deployment.topics.outcomes
    ids = [f"{part}-{number}" for number in range(ROWS)]
    early = [f"{part}-early-{number}" for number in range(20)]
    for identity in early:
        deployment.publish(outcomes, outcome(identity), identity)
    displaced = f"{part}-displaced"
    deployment.publish(outcomes, outcome(displaced, 1, model="prices"), displaced)
    deployment.producer.flush()
    deployment.publish(predictions, prediction(displaced), displaced)
    for number, identity in enumerate(ids):
        model, value = ("prices", number + 0.5) if number % 3 == 0 else ("loans", number % 2)
        deployment.publish(predictions, prediction(identity, model, value), identity)
        if number % 50 == 0:
            deployment.publish(predictions, prediction(identity, model, value), identity)
        if number % 100 == 0:
            bad = [b"not json", b"{}", b'{"prediction_id": "x", "model": "loans", "version": "1", "prediction": NaN}']
            deployment.publish(predictions, rng.choice(bad), identity)
    for identity in early:
        deployment.publish(predictions, prediction(identity), identity)
    deployment.producer.flush()
    known = ids[: ROWS - 100]
    for identity in rng.sample(known, len(known)):
        deployment.publish(outcomes, outcome(identity), identity)
    deployment.producer.flush()
    for number, identity in enumerate(known[:60]):
        deployment.publish(outcomes, outcome(identity, number % 2), identity)
        deployment.publish(outcomes, outcome(f"{part}-unknown-{number}"), f"{part}-unknown-{number}")
        deployment.publish(outcomes, b"\xff garbage", identity)
    deployment.producer.flush()
    bad_predictions = len(range(0, ROWS, 100))
    return {
        "joined": len(known) + len(early),
        "duplicates": len(range(0, ROWS, 50)),
        "corrections": 60,
        "dead_predictions": bad_predictions,
        "dead_outcomes": 60 + 1,
        "predictions": ROWS + len(range(0, ROWS, 50)) + bad_predictions + len(early) + 1,
        "outcomes": len(early) + 1 + len(known) + 3 * 60,
        "expired_predictions": 0,
        "expired_outcomes": 0,
        "late": 0,
    }


def test_a_killed_worker_changes_no_count(running: Deployment) -> None:
    """Everything published is accounted for exactly once although the worker is killed with work in hand, twice."""
    rng = random.Random(7)
    worker = running.worker()
    expected = [traffic(running, "a", rng)]
    eventually(
        lambda: any(
            c.counters.joined for c, _ in newest_cuts(running.settings.kafka, running.topics.checkpoints).values()
        ),
        "the first pairs",
    )
    for part in ("b", "c"):
        expected.append(traffic(running, part, rng))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker = running.worker()
    report = running.audit()
    assert report.violations == []
    assert report.conserved
    assert report.lag == {"predictions": 0, "outcomes": 0}
    counters = msgspec.structs.asdict(report.totals.counters)
    assert counters == {name: sum(each[name] for each in expected) for name in counters}
    assert (report.totals.pending, report.totals.waiting) == (303, 180)
    assert sum(each.summarised or 0 for each in report.partitions) == counters["joined"]
    assert sum(each.labelled or 0 for each in report.partitions) == counters["joined"]
    assert sum(each.dead_letters or 0 for each in report.partitions) == 3 * (15 + 61)
    assert all(each.takes >= 3 for each in report.partitions)


def test_a_paused_worker_that_wakes_up_changes_no_count(running: Deployment) -> None:
    """A worker frozen until another one has taken its partitions goes on as a zombie: nothing counts twice."""
    rng = random.Random(11)
    frozen = running.worker()
    expected = [traffic(running, "a", rng)]
    running.audit()
    expected.append(traffic(running, "b", rng))
    frozen.send_signal(signal.SIGSTOP)
    try:
        running.worker()
        expected.append(traffic(running, "c", rng))
        report = running.audit()
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert report.violations == []
    expected.append(traffic(running, "d", rng))
    report = running.audit()
    assert report.violations == []
    assert report.lag == {"predictions": 0, "outcomes": 0}
    counters = msgspec.structs.asdict(report.totals.counters)
    assert counters == {name: sum(each[name] for each in expected) for name in counters}


def test_the_command_tells_conserved_from_violated(running: Deployment) -> None:
    """Exit code 0 and JSON for a sound log; 1 and a line for each contradiction once somebody has tampered with it."""
    worker = running.worker()
    expected = traffic(running, "a", random.Random(3))
    sound = running.run("audit", "--json", "--follow-to-end")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    told = json.loads(sound.stdout)
    assert told["conserved"] is True
    assert told["totals"]["counters"]["joined"] == expected["joined"]

    status = running.run("status", "--json")
    assert status.returncode == 0, status.stderr
    seen = json.loads(status.stdout)
    assert {model["model"] for model in seen["models"]} == {"loans", "prices"}
    assert sum(each["pending"] for each in seen["partitions"]) == 101
    assert sum(each["waiting"] for each in seen["partitions"]) == 60

    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    cut, _ = newest_cuts(running.settings.kafka, running.topics.checkpoints)[0]
    forged = msgspec.structs.replace(
        cut,
        sequence=cut.sequence + 2,
        predictions=Range(cut.predictions.end + 1, cut.predictions.end + 1),
        outcomes=Range(cut.outcomes.end, cut.outcomes.end),
        pending=cut.pending + 1,
    )
    running.producer.send(running.topics.checkpoints, msgspec.json.encode(forged), b"0", partition=0)
    rows = [LabelledRow(offset, cut.outcomes.end - 1, 0, 0, 0, 0, 1) for offset in (0, 1)]
    extra = Labelled.of(0, cut.epoch, cut.sequence, ["loans"], ["1"], rows)
    running.producer.send(running.topics.labelled, msgspec.msgpack.encode(extra), b"0", partition=0)
    running.producer.flush()
    violated = running.run("audit")
    assert violated.returncode == 1, violated.stdout + violated.stderr
    assert f"the cut before it is {cut.sequence}: {cut.sequence + 1} is missing" in violated.stdout
    assert f"its predictions begin at offset {cut.predictions.end + 1}" in violated.stdout
    assert "predictions ≠" in violated.stdout
    assert "partition 0: labelled gives one outcome to two predictions" in violated.stdout


def test_the_doctor_names_the_command_that_accepts_a_changed_layout(running: Deployment) -> None:
    """A partition count that changed since the first start fails with `topics accept`, and is fine after it."""
    store = StateStore(connect(running.settings.redis), running.settings.redis.prefix)
    store.check_layout(TopicAdmin(running.settings).verify())
    ports = {"serve.http": "127.0.0.1:0", "retrain.http": "127.0.0.1:0"}
    sound = running.run("doctor", **ports)
    assert sound.returncode == 0, sound.stdout
    admin = AdminClient({"bootstrap.servers": running.settings.kafka.bootstrap})
    admin.create_partitions([NewPartitions(running.topics.dead_letters, 2)])[running.topics.dead_letters].result()
    eventually(
        lambda: TopicAdmin(running.settings).partition_counts()[running.topics.dead_letters] == 2, "the new partition"
    )
    changed = running.run("doctor", **ports)
    assert changed.returncode == 1
    assert f"✗ layout: partition counts have changed: {running.topics.dead_letters} had 1, has 2" in changed.stdout
    assert "driftline topics accept" in changed.stdout
    accepted = running.run("topics", "accept")
    assert accepted.returncode == 0, accepted.stderr
    assert running.run("doctor", **ports).returncode == 0


def test_a_record_that_none_of_ours_wrote_is_a_violation(running: Deployment) -> None:
    """Foreign records in topics of ours do not end the audit: each is named."""
    places = {}
    for topic in (running.topics.labelled, running.topics.summaries, running.topics.monitor_checkpoints):
        running.producer.send(topic, b"foreign", b"0", partition=0)
        places[topic] = f"{topic}-0: the record at offset 0 is none of ours"
    running.producer.flush()
    report = audit(running.settings)
    assert not report.conserved
    assert len(report.violations) == 3
    for place in places.values():
        assert any(place in violation for violation in report.violations)
