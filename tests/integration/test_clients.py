"""Other people's tools: kcat and a Java producer publish events that join, and kcat reads the alerts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.events import Baseline, ModelState
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.kafka_jars import kafka_libs
from tests.support.producer import outcome, prediction
from tests.support.redis import RedisServer
from tests.support.server import executable

pytestmark = pytest.mark.kafka

BOUND_S = 120
PUBLISH = Path(__file__).parents[1] / "support" / "java" / "Publish.java"
MURMUR2 = ("-X", "partitioner=murmur2_random")
Events = Mapping[str, dict[str, Any]]


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(kafka_broker, redis_store, deployment, tmp_path) as made:
        yield made


def kcat(driftline: Driftline, *arguments: str, stdin: str = "") -> str:
    """Run kcat → its stdout."""
    command = [executable("kcat", "kcat"), "-b", driftline.broker.bootstrap, "-X", "log_level=3", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(events: Events) -> str:
    return "".join(f"{key}\t{json.dumps(event)}\n" for key, event in events.items())


def kcat_publishes(driftline: Driftline, topic: str, events: Events, *options: str) -> None:
    kcat(driftline, "-P", "-t", topic, "-K", "\t", *options, stdin=lines(events))


def java_publishes(driftline: Driftline, topic: str, events: Events) -> None:
    command = [executable("java", "openjdk-17-jdk-headless"), "-cp", f"{kafka_libs()}/*", str(PUBLISH)]
    done = subprocess.run(
        [*command, driftline.broker.bootstrap, topic],
        input=lines(events),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def predictions(count: int) -> Events:
    return {f"id-{i}": prediction(f"id-{i}", "loans", i % 2) for i in range(count)}


def outcomes(count: int, wrong_from: int | None = None) -> Events:
    wrong = count if wrong_from is None else wrong_from
    return {f"id-{i}": outcome(f"id-{i}", i % 2 if i < wrong else 1 - i % 2) for i in range(count)}


def test_what_java_predicts_and_kcat_observes_joins(driftline: Driftline) -> None:
    """A Java producer with its defaults, and kcat with the partitioner that the documentation names."""
    driftline.create_topics()
    worker = driftline.worker()
    java_publishes(driftline, driftline.topics.predictions, predictions(200))
    kcat_publishes(driftline, driftline.topics.outcomes, outcomes(200), *MURMUR2)
    eventually(lambda: driftline.stored_counters().joined == 200, "every pair is joined")
    assert not worker.events("partitioner.mismatch")


def test_the_wrong_partitioner_is_named_with_the_cure(driftline: Driftline) -> None:
    """kcat's own partitioner sends outcomes where their predictions are not: the worker says so, and what to do."""
    driftline.create_topics()
    worker = driftline.worker()
    kcat_publishes(driftline, driftline.topics.predictions, predictions(200), *MURMUR2)
    kcat_publishes(driftline, driftline.topics.outcomes, outcomes(200))
    told = eventually(lambda: worker.events("partitioner.mismatch"), "the worker says what is wrong")[0]
    assert (told["predictions"], told["outcomes"]) == ("murmur2", "crc32")
    assert driftline.topics.outcomes in told["what"]
    assert "-X partitioner=murmur2_random" in told["mend"]
    assert driftline.stored_counters().joined < 200


def test_kcat_reads_an_alert_as_an_engineer_would(driftline: Driftline) -> None:
    """One line of JSON says what happened, to which model, since when, and what to do."""
    baselines = {"1": Baseline("accuracy", 0.99, 5_000, 0.001)}
    driftline.create_topics().announce(
        ModelState("loans", 1, "binary", [0, 1], 1, {"champion": "1"}, baselines, mode="observe")
    )
    driftline.worker()
    kcat_publishes(driftline, driftline.topics.predictions, predictions(3_000), *MURMUR2)
    kcat_publishes(driftline, driftline.topics.outcomes, outcomes(3_000, wrong_from=1_500), *MURMUR2)

    def read() -> list[str]:
        return kcat(driftline, "-C", "-q", "-e", "-t", driftline.topics.alerts).splitlines()

    alert = json.loads(eventually(read, "an alert")[0])
    assert (alert["status"], alert["labels"]["alertname"]) == ("firing", "ConceptDriftDetected")
    summary, description = alert["annotations"]["summary"], alert["annotations"]["description"]
    assert "Model loans (version 1)" in summary
    assert "has been wrong more often" in summary
    assert alert["drift"]["change_at"] in summary
    assert "`driftline status`" in description
    assert "driftline models freeze loans" in description
    for name in ("startsAt", "endsAt", "generatorURL", "fingerprint"):
        assert alert[name]
    headers = kcat(driftline, "-C", "-q", "-e", "-t", driftline.topics.alerts, "-c", "1", "-f", "%h")
    assert "ce_type=driftline.alert.v1" in headers
    assert f"ce_id={alert['fingerprint']}/{alert['startsAt']}/1" in headers
