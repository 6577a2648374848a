"""`driftline retrain` as a process, on a real Kafka and a real Redis."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from retrain.administration import Administration
from retrain.announce import KafkaAnnouncer
from retrain.lease import Leases
from retrain.log import KafkaLog
from retrain.reproduction import reproduce, rows_from_log
from retrain.runs import RunStore
from retrain.tables import Table
from serving.repository import Repository
from streams import codec
from streams.codec import model_event_decoder
from streams.errors import Unavailable
from streams.events import ALERT_TYPE, PREDICTION_TYPE, Drift, FullPrediction, ModelEvent, rfc3339
from streams.kafka import SafeProducer, TopicReader
from streams.records import Labelled, LabelledRow
from streams.settings import KafkaSettings, RedisSettings, RetrainSettings, Settings
from streams.topics import TopicAdmin, Topics
from tests.contract.test_retrain_log import AnnouncerContract, LogContract, Writer
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.unit.retrain.loop import SETTINGS, alert
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features, labelled, prediction

pytestmark = pytest.mark.kafka
BOUND_S = 120.0
PARTITIONS = 2


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Poll until ``condition`` holds → its value."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"never: {what}")


class Deployment:
    """Topics, a repository with a champion of the old concept, and processes; all are killed at the end.

    ``access`` is how this object itself reaches the broker; the processes are told by ``start``.
    """

    def __init__(self, broker: KafkaBroker, store: RedisServer, prefix: str, folder: Path, **access: Any) -> None:
        self.folder = folder
        kafka = KafkaSettings(
            **{"bootstrap": broker.bootstrap, **access}, topic_prefix=f"{prefix}.", partitions=PARTITIONS
        )
        self.settings = Settings(
            kafka=kafka,
            redis=RedisSettings(url=store.url, prefix=prefix),
            retrain=RetrainSettings(**{**SETTINGS.model_dump(), "group": prefix, "http": "127.0.0.1:0"}),
            repository=str(folder / "models"),
        )
        self.topics = Topics(f"{prefix}.")
        self.repository = Repository(self.settings.repository)
        self.runs = RunStore(self.settings.repository)
        self.producer = SafeProducer(kafka)
        self.announcer = KafkaAnnouncer(self.settings)
        self.processes: list[subprocess.Popen[str]] = []
        TopicAdmin(self.settings).create()

    def register(self) -> None:
        """Version 1 of `loans`, of the old concept."""
        rows = features(500, seed=3)
        table = Table(PROBLEM, dataset(rows, concept(rows, changed=False)))
        Administration(self.repository, self.announcer, lambda: 0).register(
            table, SETTINGS, trained_from={"file": "loans.csv"}
        )

    def live(self, rows: int, *, version: int = 1, changed: bool = True) -> int:
        """Predictions of a version and their outcomes, by the changed concept or not → when the first was written.

        Version 1 knows the old concept, any other one the changed concept.
        """
        before_ms = time.time_ns() // 1_000_000 - 2 | 1  # earlier than all of them, and no whole second
        table = features(rows, seed=7)
        said, outcomes = concept(table, changed=version != 1), concept(table, changed=changed)
        where: list[tuple[int, int, int]] = []
        for i, row in enumerate(table):
            self.producer.send(
                self.topics.predictions,
                codec.encode(prediction(i, row, int(said[i]), version=str(version))),
                f"p{i}".encode(),
                codec.headers(PREDICTION_TYPE, "test"),
                partition=i % PARTITIONS,
                delivered=lambda m, i=i: where.append((m.partition, m.offset, i)),  # type: ignore[misc]  # binds i
            )
        self.producer.flush()
        now_ms = time.time_ns() // 1_000_000
        for partition in range(PARTITIONS):
            pairs = [
                LabelledRow(offset, offset, now_ms, now_ms + i, 0, 0, int(outcomes[i]))
                for p, offset, i in sorted(where)
                if p == partition
            ]
            record = msgspec.msgpack.encode(labelled(pairs, partition, version=str(version)))
            for _ in range(2):  # at least once
                self.producer.send(self.topics.labelled, record, b"0", partition=partition)
        self.producer.flush()
        return before_ms

    def alert(self, change_ms: int, fingerprint: str = "f1") -> None:
        """A firing alert about version 1."""
        drift = Drift("adwin", change_at=rfc3339(change_ms), version="1")
        value = codec.encode(alert(drift=drift, fingerprint=fingerprint))
        self.producer.send(self.topics.alerts, value, fingerprint.encode(), codec.headers(ALERT_TYPE, "test"))
        self.producer.flush()

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start `driftline …` with the deployment's settings."""
        retrain = self.settings.retrain
        chosen = {
            "kafka.bootstrap": self.settings.kafka.bootstrap,
            "kafka.topic_prefix": self.settings.kafka.topic_prefix,
            "kafka.request_timeout_s": "10",
            "redis.url": self.settings.redis.url,
            "redis.prefix": self.settings.redis.prefix,
            "repository": self.settings.repository,
            **{
                f"retrain.{name}": str(getattr(retrain, name))
                for name in ("group", "http", "trees", "depth", "labels", "minimum_rows", "maximum_rows", "wait_s")
            },
            "retrain.parity_rows": str(retrain.parity_rows),
        } | changes
        flags = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
        process = subprocess.Popen(
            [sys.executable, "-m", "driftline", *flags, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"NO_COLOR": "1", "COLUMNS": "300"},
        )
        self.processes.append(process)
        return process

    def retrain(self, **changes: str) -> tuple[subprocess.Popen[str], str]:
        """Start the loop and wait until it reads alerts → the process and its /metrics."""
        ready = self.folder / f"ready-{len(self.processes)}"
        process = self.start("retrain", "--ready-file", str(ready), **changes)
        eventually(lambda: (ready.exists() and ready.read_text()) or process.poll() is not None, "it reads alerts")
        assert process.poll() is None, process.communicate()[1]
        return process, ready.read_text()

    def events(self) -> list[ModelEvent]:
        """Everything in `model-events`."""
        decoder = model_event_decoder()
        with TopicReader(self.settings.kafka, self.topics.model_events) as reader:
            return [decoder.decode_any(r.value, r.headers) for r in reader.read_to_end()]

    def told(self, kind: str) -> list[ModelEvent]:
        """Model events of one kind."""
        return [event for event in self.events() if event.kind == kind]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.announcer.close()
        self.producer.close()


@pytest.fixture
def deployed(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Deployment]:
    """A deployment of one's own on the shared servers."""
    made = Deployment(kafka_broker, redis_store, deployment, tmp_path)
    yield made
    made.close()


def test_an_alert_leads_to_a_promoted_event(deployed: Deployment) -> None:
    """Predictions, labelled pairs and an alert in Kafka; candidate and promoted come out, once; SIGTERM ends it."""
    deployed.register()
    process, url = deployed.retrain()
    change_ms = deployed.live(400)
    deployed.alert(change_ms)
    deployed.alert(change_ms)
    (promoted,) = eventually(lambda: deployed.told("promoted"), "a version is promoted")
    assert [event.kind for event in deployed.events()] == ["registered", "candidate", "promoted"]
    assert promoted.state.aliases == {"champion": "2", "previous": "1"}
    assert promoted.state == deployed.repository.state("loans")
    assert promoted.metrics["accuracy"] > 0.9 > promoted.metrics["champion_accuracy"]
    assert promoted.trained_from["rows"] == 400
    assert promoted.trained_from["partitions"] == {"0": [0, 200], "1": [0, 200]}
    assert promoted.trained_from["labelled"]["partitions"] == {"0": [0, 2], "1": [0, 2]}
    assert promoted.parity["passed"]
    text = eventually(
        lambda: (page := _get(url)) and 'driftline_retrain_runs_total{result="promoted"} 1.0' in page and page,
        "the run is counted",
    )
    assert 'driftline_promotions_total{model="loans"} 1.0' in text
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND_S) == 0
    deployed.live(100)  # what came since does not count
    manifest = deployed.repository.manifest("loans", 2)
    assert reproduce(manifest, rows_from_log(manifest, KafkaLog(deployed.settings))).same


def test_a_version_that_does_worse_is_rolled_back(deployed: Deployment) -> None:
    """The labels after a false alarm were wrong and are right again: the old version serves again, over a restart."""
    deployed.register()
    process, _ = deployed.retrain()
    deployed.alert(deployed.live(400))
    eventually(lambda: deployed.told("promoted"), "a version is promoted")
    eventually(lambda: [r.state for r in deployed.runs.of("loans")] == ["watching"], "it is watched")
    process.kill()
    process.wait()
    deployed.live(200, version=2, changed=False)
    _, url = deployed.retrain()
    (told,) = eventually(lambda: deployed.told("rolledback"), "it is rolled back")
    assert told.state.aliases == {"champion": "1"}
    assert told.state == deployed.repository.state("loans")
    assert "does worse than version 1 would have done" in (told.reason or "")
    line = 'driftline_probations_total{model="loans",result="rolled_back"} 1.0'
    eventually(lambda: line in _get(url), "the rollback is counted")
    assert [r.state for r in RunStore(deployed.settings.repository).of("loans")] == ["rolled_back"]


def test_new_labels_lead_to_a_promotion_without_an_alert(deployed: Deployment) -> None:
    """Labels are counted from the topic, those of before the start too."""
    deployed.register()
    deployed.live(400)
    deployed.retrain(**{"retrain.labels": "300"})
    (promoted,) = eventually(lambda: deployed.told("promoted"), "a version is promoted")
    assert promoted.trigger["kind"] == "labels"
    assert [run.kind for run in deployed.runs.of("loans")] == ["labels"]


def test_a_person_starts_a_run_by_command(deployed: Deployment) -> None:
    """The command records it, the process takes it on; a model that there is not is one line and exit code 66."""
    deployed.register()
    deployed.live(400)
    assert deployed.start("retrain", "run", "loans").wait(BOUND_S) == 0
    again = deployed.start("retrain", "run", "loans")
    assert "is under way" in again.communicate(timeout=BOUND_S)[1]
    wrong = deployed.start("retrain", "run", "boats")
    assert "there is no model boats" in wrong.communicate(timeout=BOUND_S)[1]
    assert (again.returncode, wrong.returncode) == (2, 66)
    deployed.retrain()
    (promoted,) = eventually(lambda: deployed.told("promoted"), "a version is promoted")
    assert promoted.trigger["kind"] == "command"


def test_a_killed_loop_resumes_and_promotes_once(deployed: Deployment) -> None:
    """kill -9 while a run waits for labels; the next process takes the run over when the lease has run out."""
    deployed.register()
    first, _ = deployed.retrain()
    change_ms = time.time_ns() // 1_000_000 | 1  # no whole second: exact
    deployed.alert(change_ms)
    eventually(lambda: [r for r in deployed.runs.of("loans") if r.state == "collecting"], "a run collects")
    first.kill()
    first.wait()
    deployed.live(400)
    deployed.retrain()
    eventually(lambda: deployed.told("promoted"), "a version is promoted")
    eventually(lambda: not any(r.at_work for r in RunStore(deployed.settings.repository).of("loans")), "it is over")
    assert [event.kind for event in deployed.events()] == ["registered", "candidate", "promoted"]


def test_sigterm_while_a_run_waits_gives_its_lease_back(deployed: Deployment) -> None:
    """A stop is orderly at any time: exit code 0, the lease free at once, the run where it was."""
    deployed.register()
    process, url = deployed.retrain()
    deployed.alert(time.time_ns() // 1_000_000)
    eventually(lambda: [r for r in deployed.runs.of("loans") if r.state == "collecting"], "a run collects")
    assert 'driftline_retrain_active{model="loans"} 1.0' in _get(url)
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND_S) == 0
    leases = Leases(deployed.settings.redis)
    assert leases.take("loans")
    leases.close()
    assert [r.state for r in deployed.runs.of("loans")] == ["collecting"]


def test_metrics_are_clean(deployed: Deployment) -> None:
    """promtool finds nothing to say about /metrics."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus)")
    _, url = deployed.retrain()
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=_get(url), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_an_approval_by_command_promotes(deployed: Deployment) -> None:
    """Mode approve: the candidate waits, a person's command promotes it, and the run ends."""
    deployed.register()
    assert deployed.start("models", "mode", "loans", "approve").wait(BOUND_S) == 0
    deployed.retrain()
    deployed.alert(deployed.live(400))
    (candidate,) = eventually(lambda: deployed.told("candidate"), "there is a candidate")
    assert candidate.detail == "awaiting-approval"
    wrong = deployed.start("models", "approve", "loans", "7")
    assert "the challenger of loans is version 2, not 7" in wrong.communicate(timeout=BOUND_S)[1]
    assert wrong.returncode == 2
    assert deployed.start("models", "approve", "loans", "2").wait(BOUND_S) == 0
    eventually(
        lambda: [r.on_probation for r in RunStore(deployed.settings.repository).of("loans")] == [True], "the run ended"
    )
    assert [event.kind for event in deployed.told("promoted")] == ["promoted"]


def test_an_unpublished_change_is_published_at_the_next_start(deployed: Deployment) -> None:
    """A process died between its change and the event: the loop tells it before it does anything else."""
    deployed.register()
    deployed.repository.change("loans", lambda s: msgspec.structs.replace(s, frozen=True))
    deployed.retrain()
    last = deployed.events()[-1]
    assert (last.state.revision, last.state.frozen, last.detail) == (2, True, "republished")


def test_missing_services_are_one_line(deployed: Deployment) -> None:
    """No broker, no store, a port in use: exit code 69, what is wrong, how to mend it, no traceback."""
    _, url = deployed.retrain()
    taken = url.removeprefix("http://").removesuffix("/metrics")
    for change, said in (
        ({"kafka.bootstrap": "127.0.0.1:1", "kafka.request_timeout_s": "1"}, "broker"),
        ({"redis.url": "redis://127.0.0.1:1/0"}, "Redis"),
        ({"retrain.http": taken}, taken),
    ):
        process = deployed.start("retrain", **change)
        output = process.communicate(timeout=BOUND_S)[1]
        assert process.returncode == 69, output
        assert said in output
        assert "Traceback" not in output


def test_a_lease_has_one_holder(redis_store: RedisServer, deployment: str) -> None:
    """Only its holder renews or releases it; a lease that ran out is free again, and its old holder learns it."""
    settings = RedisSettings(url=redis_store.url, prefix=deployment)
    ours, theirs = Leases(settings), Leases(settings)
    assert ours.take("loans")
    assert not theirs.take("loans")
    assert theirs.take("cards")
    assert not theirs.renew("loans")
    theirs.release("loans")
    assert ours.renew("loans")
    ours.release("loans")
    assert theirs.take("loans")
    assert not ours.renew("loans")
    short = Leases(settings, lease_ms=50)
    assert short.take("brief")
    eventually(lambda: ours.take("brief"), "the lease runs out")
    assert not short.renew("brief")
    for leases in (ours, theirs, short):
        leases.close()


def test_a_store_that_is_away_is_unavailable() -> None:
    """A lease is never taken for held because nobody answered."""
    leases = Leases(RedisSettings(url="redis://127.0.0.1:1/0"))
    with pytest.raises(Unavailable):
        leases.take("loans")
    with pytest.raises(Unavailable):
        leases.check()


class TestKafkaLog(LogContract):
    """Kafka passes what the fake passes."""

    @pytest.fixture
    def log(self, deployed: Deployment) -> KafkaLog:
        return KafkaLog(deployed.settings)

    @pytest.fixture
    def write(self, deployed: Deployment) -> Writer:
        def append(records: Sequence[Labelled], predictions: Sequence[FullPrediction | None]) -> None:
            producer, topics = deployed.producer, deployed.topics
            for record in records:
                producer.send(topics.labelled, msgspec.msgpack.encode(record), b"0", partition=0)
            for event in predictions:
                producer.send(topics.predictions, codec.encode(event) if event else b"garbage", partition=0)
            producer.flush()

        return append


class TestKafkaAnnouncer(AnnouncerContract):
    """Kafka passes what the fake passes."""

    @pytest.fixture
    def announcer(self, deployed: Deployment) -> KafkaAnnouncer:
        return deployed.announcer


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text
