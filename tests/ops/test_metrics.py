"""/metrics of worker, serve and retrain as Prometheus reads them, on real servers with a little traffic."""

from __future__ import annotations

import csv
import random
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.driftline import Driftline, Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.producer import EventProducer, outcome, prediction
from tests.support.redis import RedisServer
from tests.support.server import executable

PROCESS = {
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
}
WORKER = PROCESS | {
    "driftline_events_consumed",
    "driftline_pairs",
    "driftline_join_pending",
    "driftline_join_delay_seconds",
    "driftline_windowed_accuracy_ratio",
    "driftline_consumer_lag",
    "driftline_last_event_timestamp_seconds",
    "driftline_checkpoint_duration_seconds",
    "driftline_checkpoint_timestamp_seconds",
    "driftline_checkpoint_age_seconds",
    "driftline_watermark_timestamp_seconds",
    "driftline_dead_letters",
    "driftline_drift_active",
    "driftline_drift_detections",
}
SERVE = PROCESS | {
    "driftline_model_info",
    "driftline_model_reloads",
    "driftline_inference_duration_seconds",
    "driftline_requests",
    "driftline_predictions_published",
}
RETRAIN = PROCESS | {"driftline_retrain_runs", "driftline_retrain_alerts", "driftline_promotions"}
PARTITIONS = 4


def page(url: str) -> str:
    """The text of /metrics."""
    with urllib.request.urlopen(url, timeout=30) as response:
        text: str = response.read().decode()
    return text


def families(text: str) -> dict[str, Metric]:
    """Metric families by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def lint(text: str) -> None:
    """`promtool check metrics` finds nothing: names, units, help, types."""
    done = subprocess.run(
        [executable("promtool", "prometheus"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (done.stdout + done.stderr).strip(), done.stdout + done.stderr


def partitions(text: str) -> dict[str, set[str]]:
    """Metric → the partitions that it has series of."""
    found: dict[str, set[str]] = {}
    for family in families(text).values():
        for sample in family.samples:
            if "partition" in sample.labels:
                found.setdefault(sample.name, set()).add(sample.labels["partition"])
    return found


@pytest.fixture
def deployed(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    """A deployment of one's own."""
    with Driftline(kafka_broker, redis_store, deployment, tmp_path, kafka__partitions=PARTITIONS) as made:
        yield made.create_topics()


def publish(deployed: Driftline, rows: int, model: str = "loan", start: int = 0) -> None:
    """Predictions and their outcomes, and one record that is no event."""
    with EventProducer(deployed.broker.bootstrap) as producer:
        for number in range(start, start + rows):
            identity = f"{model}-{number}"
            producer.send(deployed.topics.predictions, prediction(identity, model, number % 2))
            producer.send(deployed.topics.outcomes, outcome(identity, number % 2 if number % 10 else 1 - number % 2))
        producer.send(deployed.topics.predictions, b"not JSON", "x")


def joined(process: Process, pairs: int) -> bool:
    """Whether a worker says that it has joined so many pairs."""
    return any(sample.value >= pairs for sample in families(page(process.url))["driftline_pairs"].samples)


def test_the_workers_metrics(deployed: Driftline) -> None:
    """The names of the documentation have series after some traffic, and promtool finds nothing."""
    worker = deployed.worker()
    publish(deployed, 200)

    def whole() -> str:
        text = page(worker.url)
        present = {name for name, family in families(text).items() if family.samples}
        accuracy = families(text)["driftline_windowed_accuracy_ratio"].samples
        # No alert fires in so little traffic, so the alert's own series are named and empty.
        return text if joined(worker, 200) and accuracy and present >= WORKER - NEVER else ""

    text = eventually(whole, "every metric has a series")
    lint(text)
    assert families(text).keys() >= WORKER
    counted = {
        (s.labels.get("topic"), s.labels.get("reason")) for s in families(text)["driftline_dead_letters"].samples
    }
    assert (deployed.topics.predictions, "not_json") in counted or ("predictions", "not_json") in counted
    assert worker.terminate() == 0


NEVER = {"driftline_drift_active", "driftline_drift_detections"}


def test_the_metrics_of_serve_and_retrain(deployed: Driftline) -> None:
    """After a version was trained and has answered: names, process metrics, promtool."""
    table = deployed.folder / "loan.csv"
    draw = random.Random(1)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["income", "debt", "granted"])
        for _ in range(400):
            income, debt = draw.random(), draw.random()
            writer.writerow([f"{income:.4f}", f"{debt:.4f}", int(income > debt)])
    deployed.run("train", str(table), "--model", "loan")
    serve, retrain = deployed.daemon("serve"), deployed.daemon("retrain")
    serve.started()
    deployed.run("publish", str(table), "--url", serve.url, "--rows", "20", "--chunk", "10")
    text = page(f"{serve.url}/metrics")
    lint(text)
    assert {name for name, family in families(text).items() if family.samples} >= SERVE
    (version,) = families(text)["driftline_model_info"].samples
    assert version.labels == {"model": "loan", "version": "1"}
    text = page(retrain.started().url)
    lint(text)
    assert families(text).keys() >= RETRAIN
    assert {name for name, family in families(text).items() if family.samples} >= PROCESS


def test_series_of_revoked_partitions_go_away(deployed: Driftline) -> None:
    """While two workers share the partitions no series is exported twice; the one that stays takes all of them back."""
    first = deployed.worker()
    everything = {str(number) for number in range(PARTITIONS)}
    publish(deployed, 100)
    eventually(lambda: partitions(page(first.url)).get("driftline_checkpoint_timestamp_seconds") == everything, "all")
    second = deployed.worker()

    def shared() -> bool:
        mine, other = partitions(page(first.url)), partitions(page(second.url))
        name = "driftline_checkpoint_timestamp_seconds"
        return bool(mine.get(name)) and bool(other.get(name)) and mine[name] | other[name] == everything

    eventually(shared, "both have partitions")

    def doubled() -> dict[str, set[str]]:
        mine, other = partitions(page(first.url)), partitions(page(second.url))
        names = mine.keys() & other.keys()
        return {name: mine[name] & other[name] for name in names if mine[name] & other[name]}

    eventually(lambda: not doubled(), f"no partition has series at two workers: {doubled()}")
    assert second.terminate() == 0
    eventually(lambda: partitions(page(first.url)).get("driftline_join_pending") == everything, "the first has all")
