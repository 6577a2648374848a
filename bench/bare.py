"""The yardstick: the loop that one would write by hand.

Batches from confluent-kafka, msgspec, a dict for the join, River's detectors one by one, counters in Redis, a commit at
the end of each batch. It keeps nothing and is at most once. With more than one model it has detectors for each.
Run as a process of its own, so that its CPU is its own; it writes what it used as JSON.
"""

from __future__ import annotations

import argparse
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import psutil
import redis
from confluent_kafka import Consumer
from river import drift

from bench.process import own_cpu_s, peak_rss_bytes, write_json

BATCH = 10_000
WAIT_S = 0.5


class Row(msgspec.Struct, gc=False):
    """The fields that the loop needs of one model."""

    prediction_id: str
    predicted_at: int = 0
    prediction: int = -1
    outcome: int = -1


class ModelRow(Row, gc=False):
    """And of several models."""

    model: str = ""


def detectors() -> tuple[Any, Any]:
    """A model's detectors."""
    return drift.ADWIN(), drift.PageHinkley()  # type: ignore[no-untyped-call]  # River has no types


def consumer_of(bootstrap: str) -> Any:
    """A consumer in a group of its own that begins at the beginning."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bare-{uuid.uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
        }
    )


def one_model(consumer: Any, store: redis.Redis, pairs: int) -> int:
    """Join ``pairs`` pairs of one model → how many of them were wrong."""
    decode = msgspec.json.Decoder(Row).decode
    predictions: dict[str, Row] = {}
    outcomes: dict[str, Row] = {}
    adwin, page_hinkley = detectors()
    joined = errors = 0
    while joined < pairs:
        minutes: dict[tuple[int, int], int] = {}
        for message in consumer.consume(BATCH, WAIT_S):
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
                errors += error * count
            pipe.execute()
            consumer.commit(asynchronous=False)
    return errors


def many_models(consumer: Any, store: redis.Redis, pairs: int) -> int:
    """The same with detectors and counters for each model."""
    decode = msgspec.json.Decoder(ModelRow).decode
    predictions: dict[str, ModelRow] = {}
    outcomes: dict[str, ModelRow] = {}
    by_model: dict[str, tuple[Any, Any]] = {}
    joined = errors = 0
    while joined < pairs:
        minutes: dict[tuple[str, int, int], int] = {}
        for message in consumer.consume(BATCH, WAIT_S):
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
            own = by_model.get(prediction.model)
            if own is None:
                own = by_model[prediction.model] = detectors()
            own[0].update(error)
            own[1].update(error)
            cell = (prediction.model, prediction.predicted_at // 60_000, error)
            minutes[cell] = minutes.get(cell, 0) + 1
        if minutes:
            pipe = store.pipeline(transaction=False)
            for (name, minute, error), count in minutes.items():
                pipe.hincrby(f"bare:{name}", f"{minute}:{error}", count)
                errors += error * count
            pipe.execute()
            consumer.commit(asynchronous=False)
    return errors


def main() -> None:
    """Measure from before joining the group to the last pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--models", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    store = redis.Redis.from_url(options.redis)
    rss = psutil.Process().memory_info().rss
    consumer = consumer_of(options.bootstrap)
    cpu_s, began_s = own_cpu_s(), time.perf_counter()
    consumer.subscribe([f"{options.prefix}predictions", f"{options.prefix}outcomes"])
    errors = (one_model if options.models == 1 else many_models)(consumer, store, options.pairs)
    used_s, wall_s = own_cpu_s() - cpu_s, time.perf_counter() - began_s
    consumer.close()
    used = {"cpu_s": used_s, "wall_s": wall_s, "errors": errors, "rss_begin": rss, "rss_peak": peak_rss_bytes()}
    write_json(options.out, used)


if __name__ == "__main__":
    main()
