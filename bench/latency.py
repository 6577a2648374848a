"""How long an outcome takes to be seen: from its producer to the window, and to the alert that it causes.

Two kinds of probes run against one worker, at idle and beside traffic at half of the rate that the worker can take:

* a *window* probe is a model of its own with one outcome in flight: sent at a random phase, and timed until the model's
  window in the store has counted it;
* an *alert* probe is a model of its own whose predictions are right for a while and then all wrong: timed from the
  first wrong outcome to the alert as a consumer of ``alerts`` gets it. The detectors need some of the wrong outcomes,
  but these are sent at once, so that their time is no part of it.

A prediction is sent long before its outcome. Times are of one process's monotonic clock.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import redis
from rich.console import Console
from rich.table import Table

from bench.deployment import Deployment, filled
from bench.engine import say
from bench.runs import RunFailed, running, worker_run
from bench.traffic import traffic
from bench.workloads import WORKLOADS, Workload
from streams.codec import encode, headers
from streams.events import MODEL_EVENT_TYPE, Alert, Baseline, ModelEvent, ModelState
from streams.kafka import SafeProducer, TopicReader
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

POLL_S = 0.005
AHEAD_S = 3.0
"""How long a prediction is there before its outcome."""
RIGHT, WRONG = 600, 200
"""Outcomes of an alert probe: enough right ones for the detectors to know better, then wrong ones."""
SAMPLE_BOUND_S = 60.0
RATE_PAIRS = 200_000


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds of each sample."""

    window_s: list[float]
    alert_s: list[float]


class Producer:
    """Sends single events at once."""

    def __init__(self, deployment: Deployment) -> None:
        self._topics = deployment.topics
        self._producer = SafeProducer(deployment.settings.kafka, **{"linger.ms": 0})

    def prediction(self, model: str, number: int) -> None:
        """Number ``number`` of a model; it says 1."""
        key = f"{model}-{number}"
        event = {"prediction_id": key, "model": model, "version": "1", "prediction": 1, "score": 0.5}
        self._producer.send(self._topics.predictions, msgspec.json.encode(event), key.encode())

    def outcome(self, model: str, number: int, *, right: bool = True) -> None:
        """Its outcome."""
        key = f"{model}-{number}"
        event = {"prediction_id": key, "outcome": 1 if right else 0}
        self._producer.send(self._topics.outcomes, msgspec.json.encode(event), key.encode())

    def flush(self) -> None:
        """Everything is in the broker."""
        self._producer.flush()

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()


def announce(deployment: Deployment, models: Sequence[str]) -> None:
    """Declare models whose version has a baseline, so that their detectors speak from the first outcome on."""
    producer = SafeProducer(deployment.settings.kafka)
    try:
        for model in models:
            baselines = {"1": Baseline("accuracy", 0.99, 5_000, 0.001)}
            state = ModelState(model, 1, "binary", [0, 1], 1, {"champion": "1"}, baselines, mode="observe")
            kind = headers(MODEL_EVENT_TYPE.format(what="registered"), "driftline/bench")
            producer.send(deployment.topics.model_events, encode(ModelEvent("registered", state)), model.encode(), kind)
    finally:
        producer.close()


def window_probes(
    client: redis.Redis, prefix: str, producer: Producer, models: Sequence[str], samples: int, chooser: random.Random
) -> list[float]:
    """Time ``samples`` outcomes, one in flight for each model."""
    found: list[float] = []
    counted = dict.fromkeys(models, 0)
    sent_s: dict[str, float] = {}
    due_s = {model: time.monotonic() + AHEAD_S + chooser.random() for model in models}
    for model in models:
        producer.prediction(model, 1)
    producer.flush()
    while len(found) < samples:
        now = time.monotonic()
        for model in [model for model, at in due_s.items() if at <= now]:
            del due_s[model]
            sent_s[model] = time.monotonic()
            producer.outcome(model, counted[model] + 1)
        reports = client.hmget(f"{prefix}:status", list(models))
        seen_s = time.monotonic()
        for model, report in zip(models, reports, strict=True):
            if model in sent_s and _window_count(report) > counted[model]:
                found.append(seen_s - sent_s.pop(model))
                counted[model] += 1
                producer.prediction(model, counted[model] + 1)
                due_s[model] = seen_s + AHEAD_S + chooser.random()
        if any(now - at > SAMPLE_BOUND_S for at in sent_s.values()):
            raise RunFailed(f"an outcome was not seen within {SAMPLE_BOUND_S:g} s")
        time.sleep(POLL_S)
    return found


def _window_count(report: Any) -> int:
    if not isinstance(report, bytes):
        return 0
    return sum(int(version["windows"]["1h"]["n"]) for version in msgspec.json.decode(report)["versions"])


class AlertFeed:
    """Reads ``alerts`` in a thread and notes when each model's first firing alert came."""

    def __init__(self, deployment: Deployment) -> None:
        self.seen_s: dict[str, float] = {}
        self._reader = TopicReader(deployment.settings.kafka, deployment.topics.alerts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            records, now = self._reader.poll(), time.monotonic()
            for record in records:
                alert = msgspec.json.decode(record.value or b"", type=Alert)
                if alert.status == "firing":
                    self.seen_s.setdefault(alert.labels["model"], now)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._reader.close()


def alert_probes(
    deployment: Deployment, producer: Producer, models: Sequence[str], chooser: random.Random
) -> list[float]:
    """One sample of each model."""
    feed = AlertFeed(deployment)
    try:
        for model in models:
            for number in range(RIGHT + WRONG):
                producer.prediction(model, number)
        producer.flush()
        time.sleep(AHEAD_S)
        for model in models:
            for number in range(RIGHT):
                producer.outcome(model, number)
        producer.flush()
        time.sleep(2 * AHEAD_S)  # the right ones are in seconds of their own
        sent_s: dict[str, float] = {}
        for model in models:
            time.sleep(chooser.uniform(0.1, 0.4))
            sent_s[model] = time.monotonic()
            for number in range(RIGHT, RIGHT + WRONG):
                producer.outcome(model, number, right=False)
        deadline = time.monotonic() + SAMPLE_BOUND_S
        while missing := sent_s.keys() - feed.seen_s.keys():
            if time.monotonic() > deadline:
                raise RunFailed(f"no alert of {sorted(missing)} within {SAMPLE_BOUND_S:g} s")
            time.sleep(POLL_S)
        early = [model for model, at in sent_s.items() if feed.seen_s[model] < at]
        if early:
            raise RunFailed(f"{early} alerted before anything was wrong")
        return [feed.seen_s[model] - at for model, at in sent_s.items()]
    finally:
        feed.close()


def measure(deployment: Deployment, rate: float, samples: int, alerts: int) -> Latencies:
    """All samples beside traffic of ``rate`` pairs a second."""
    chooser = random.Random(7)
    windows = [f"window-{number}" for number in range(min(20, samples))]
    alerting = [f"alert-{number}" for number in range(alerts)]
    announce(deployment, [*windows, *alerting])
    with running(deployment), traffic(deployment, rate), deployment.store.client() as client:
        producer = Producer(deployment)
        try:
            window_s = window_probes(client, deployment.settings.redis.prefix, producer, windows, samples, chooser)
            return Latencies(window_s, alert_probes(deployment, producer, alerting, chooser))
        finally:
            producer.close()


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the worst, seconds."""
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
        "max": round(ordered[-1], 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="outcomes timed to the window")
    parser.add_argument("--alerts", type=int, default=40, help="alerts timed")
    parser.add_argument("--rate", type=float, help="pairs a second of the traffic; without it half of what is measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        KafkaBroker(Path(name) / "kafka") as kafka,
        RedisServer(Path(name) / "redis") as store,
    ):
        rate = arguments.rate
        if rate is None:
            near = replace(WORKLOADS["near"], pairs=RATE_PAIRS)
            say(f"how fast is the worker? {near.pairs:,} pairs")
            deployment = filled(kafka, store, Path(name), near)
            rate = near.pairs / worker_run(deployment, near).usage.wall_s / 2
            deployment.remove()
        for label, pairs_per_s in (("idle", 0.0), ("half", rate)):
            say(f"{label}: {pairs_per_s:.0f} pairs a second")
            deployment = Deployment(kafka, store, Path(name), Workload("latency", "", 1))
            latencies = measure(deployment, pairs_per_s, arguments.samples, arguments.alerts)
            found[label] = {
                "pairs_per_s": round(pairs_per_s),
                "checkpoint_s": deployment.settings.worker.checkpoint_s,
                "window_s": quantiles(latencies.window_s),
                "alert_s": quantiles(latencies.alert_s),
            }
            say(f"{label}: {found[label]}")
            deployment.remove()
    if arguments.json:
        print(json.dumps(found))
        return
    table = Table(title="from the producer of an outcome, in seconds (and in checkpoints)")
    for heading in ("traffic", "to", "samples", "p50", "p99", "worst"):
        table.add_column(heading, justify="right")
    for label, each in found.items():
        for what in ("window", "alert"):
            q, unit = each[f"{what}_s"], each["checkpoint_s"]
            cells = [f"{q[name]:.2f} ({q[name] / unit:.1f})" for name in ("p50", "p99", "max")]
            table.add_row(f"{label}, {each['pairs_per_s']:,}/s", what, str(q["n"]), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
