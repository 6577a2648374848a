"""The worker against an idiomatic bare Kafka loop: CPU an event, on the same broker and data, alternating.

The bare loop is what one would write by hand: confluent-kafka batches, msgspec, a dict for the join, River's detectors
one by one, Redis counters, a commit at the end. It keeps nothing and is at most once. The worker does everything:
ordered join, fenced checkpoints, labelled pairs, cuts and summaries, detectors, alerts. CPU is of the process alone,
from the first assignment to the last pair (the worker's start is left out, joining the group is counted for both).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import msgspec
import psutil
import redis
from confluent_kafka import Consumer
from river.drift import ADWIN, PageHinkley

from streams.kafka import SafeProducer
from streams.records import Counters
from streams.settings import Settings, load
from streams.topics import TopicAdmin
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

SHUFFLE = 10_000
FEATURES = 10
DEADLINE_S = 300


def fill(settings: Settings, pairs: int) -> None:
    """Predictions with ten features, outcomes shuffled within 10,000 predictions; every ninth prediction is wrong."""
    TopicAdmin(settings).create()
    producer = SafeProducer(settings.kafka)
    prefix = settings.kafka.topic_prefix
    chooser = random.Random(1)
    features = {f"f{i}": i * 0.37 for i in range(FEATURES)}
    waiting: list[tuple[str, int]] = []

    def outcome(at: int) -> None:
        waiting[at], waiting[-1] = waiting[-1], waiting[at]
        key, label = waiting.pop()
        value = msgspec.json.encode({"prediction_id": key, "outcome": label, "observed_at": now})
        producer.send(f"{prefix}outcomes", value, key.encode())

    now = int(time.time() * 1000)
    for number in range(pairs):
        key, label = str(uuid.UUID(int=chooser.getrandbits(128), version=4)), number & 1
        event = {
            "prediction_id": key,
            "model": "m",
            "version": "1",
            "predicted_at": now,
            "prediction": label if number % 9 else 1 - label,
            "score": 0.5,
            "features": features,
        }
        producer.send(f"{prefix}predictions", msgspec.json.encode(event), key.encode())
        waiting.append((key, label))
        if len(waiting) > SHUFFLE:
            outcome(chooser.randrange(len(waiting)))
    while waiting:
        outcome(chooser.randrange(len(waiting)))
    producer.close()


class Row(msgspec.Struct, gc=False):
    """The fields that the bare loop needs."""

    prediction_id: str
    predicted_at: int = 0
    prediction: int = -1
    outcome: int = -1


def bare(bootstrap: str, prefix: str, url: str, pairs: int) -> dict[str, float]:
    """The loop that one would write by hand."""
    store = redis.Redis.from_url(url)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bare-{uuid.uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
        }
    )
    cpu0, wall0 = _own_cpu(), time.perf_counter()
    consumer.subscribe([f"{prefix}predictions", f"{prefix}outcomes"])
    decode = msgspec.json.Decoder(Row).decode
    predictions: dict[str, Row] = {}
    outcomes: dict[str, Row] = {}
    adwin, page_hinkley = ADWIN(), PageHinkley()
    joined = 0
    while joined < pairs:
        minutes: dict[tuple[int, int], int] = {}
        for message in consumer.consume(10_000, 0.5):
            if message.error():
                continue
            row = decode(message.value())
            if row.outcome < 0:
                other = outcomes.pop(row.prediction_id, None)
                prediction = row
                if other is None:
                    predictions[row.prediction_id] = row
                    continue
                label = other.outcome
            else:
                found = predictions.pop(row.prediction_id, None)
                if found is None:
                    outcomes[row.prediction_id] = row
                    continue
                prediction, label = found, row.outcome
            joined += 1
            error = int(prediction.prediction != label)
            adwin.update(error)
            page_hinkley.update(error)
            cell = (prediction.predicted_at // 60_000, error)
            minutes[cell] = minutes.get(cell, 0) + 1
        if minutes:
            pipe = store.pipeline(transaction=False)
            for (minute, error), count in minutes.items():
                pipe.hincrby("bare", f"{minute}:{error}", count)
            pipe.execute()
            consumer.commit(asynchronous=False)
    used, wall = _own_cpu() - cpu0, time.perf_counter() - wall0
    consumer.close()
    return {"cpu_us": used / pairs / 2 * 1e6, "wall_us": wall / pairs / 2 * 1e6}


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def worker(settings: Settings, arguments: list[str], url: str, pairs: int, folder: Path) -> dict[str, float]:
    """One worker, from its readiness to the checkpoint that holds the last pair."""
    ready = folder / f"ready-{uuid.uuid4().hex}"
    store = redis.Redis.from_url(url)
    command = [sys.executable, "-m", "driftline", "--log", "warning", *arguments, "worker", "--ready-file", str(ready)]
    with (folder / "worker.log").open("a") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + DEADLINE_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker did not start: {(folder / 'worker.log').read_text()[-500:]}")
            time.sleep(0.01)
        before, wall0, began = 0.0, time.perf_counter(), watched.cpu_times()
        before = began.user + began.system
        while _joined(store, settings) < pairs:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker did not finish: {(folder / 'worker.log').read_text()[-500:]}")
            time.sleep(0.05)
        now = watched.cpu_times()
        wall = time.perf_counter() - wall0
        rss = watched.memory_info().rss
        return {
            "cpu_us": (now.user + now.system - before) / pairs / 2 * 1e6,
            "wall_us": wall / pairs / 2 * 1e6,
            "rss_mb": rss / 1e6,
        }
    finally:
        process.terminate()
        process.wait(30)


def _joined(store: redis.Redis, settings: Settings) -> int:
    total = 0
    for partition in range(settings.kafka.partitions):
        raw = store.hget(f"{settings.redis.prefix}:{{join:{partition}}}:meta", "counters")
        if isinstance(raw, bytes):
            total += msgspec.json.decode(raw, type=Counters).joined
    return total


def main() -> None:
    """Alternate the two, print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    bares: list[dict[str, float]] = []
    ours: list[dict[str, float]] = []
    with KafkaBroker(folder / "kafka") as kafka, RedisServer(folder / "redis") as store:
        shared = {"kafka.bootstrap": kafka.bootstrap, "redis.url": store.url, "worker.http": "127.0.0.1:0"}
        for run in range(options.runs):
            flags = {
                **shared,
                "kafka.topic_prefix": f"b{run}-",
                "redis.prefix": f"b{run}",
                "worker.group": f"b{run}",
            }
            settings, _ = load(environ={}, flags=flags)
            fill(settings, options.pairs)
            arguments = [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]
            bares.append(_bare_process(kafka.bootstrap, f"b{run}-", store.url, options.pairs))
            ours.append(worker(settings, arguments, store.url, options.pairs, folder))
            print(f"run {run + 1} of {options.runs}: bare {bares[-1]}, worker {ours[-1]}", file=sys.stderr)
    cpu_bare = statistics.median(r["cpu_us"] for r in bares)
    cpu_ours = statistics.median(r["cpu_us"] for r in ours)
    result = {
        "pairs": options.pairs,
        "runs": options.runs,
        "ratio_bare": round(statistics.median(b["cpu_us"] / o["cpu_us"] for b, o in zip(bares, ours, strict=True)), 3),
        "bare_us_cpu_per_event": round(cpu_bare, 2),
        "worker_us_cpu_per_event": round(cpu_ours, 2),
        "worker_us_wall_per_event": round(statistics.median(r["wall_us"] for r in ours), 2),
        "bare_us_wall_per_event": round(statistics.median(r["wall_us"] for r in bares), 2),
        "pairs_per_s": round(1e6 / cpu_ours / 2),
        "rss_mb": round(max(r["rss_mb"] for r in ours)),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")


def _bare_process(bootstrap: str, prefix: str, url: str, pairs: int) -> dict[str, float]:
    """In a process of its own, so that its CPU is its own."""
    call = f"bare({bootstrap!r}, {prefix!r}, {url!r}, {pairs})"
    code = f"import json; from bench.engine import bare; print(json.dumps({call}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
