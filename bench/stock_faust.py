"""The worker's ancestor: an agent as Faust's documentation teaches it, one event at a time.

Two agents share a dict for the join, as a Faust user would who knows that tables cost more (a table join is 1.6 times
slower), and feed River's detectors one by one; counters go to Redis now and then. Run as a process of its own; it
writes what it used as JSON.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from pathlib import Path
from typing import Any

import faust
import psutil
import redis

from bench.bare import detectors
from bench.process import own_cpu_s, peak_rss_bytes, write_json

COUNT_EVERY = 1_000


class Prediction(faust.Record, serializer="json"):
    """The fields that the join needs."""

    prediction_id: str
    predicted_at: int
    prediction: int


class Outcome(faust.Record, serializer="json"):
    """An outcome."""

    prediction_id: str
    outcome: int


class Joined:
    """What the agents share: rows that wait, detectors, counters."""

    def __init__(self, store: redis.Redis, pairs: int, out: Path) -> None:
        self.predictions: dict[str, Prediction] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.pairs = 0
        self.errors = 0
        self.began: tuple[float, float] | None = None
        self.rss_begin = psutil.Process().memory_info().rss
        self._store = store
        self._wanted = pairs
        self._out = out
        self._minutes: dict[tuple[int, int], int] = {}
        self._adwin, self._page_hinkley = detectors()

    def pair(self, prediction: Prediction, outcome: Outcome) -> None:
        """A prediction has met its outcome; the last pair ends the process."""
        error = int(prediction.prediction != outcome.outcome)
        self._adwin.update(error)
        self._page_hinkley.update(error)
        cell = (prediction.predicted_at // 60_000, error)
        self._minutes[cell] = self._minutes.get(cell, 0) + 1
        self.pairs += 1
        self.errors += error
        if self.pairs % COUNT_EVERY == 0 or self.pairs == self._wanted:
            pipe = self._store.pipeline(transaction=False)
            for (minute, kind), count in self._minutes.items():
                pipe.hincrby("faust", f"{minute}:{kind}", count)
            pipe.execute()
            self._minutes.clear()
        if self.pairs == self._wanted:
            self._finish()

    def _finish(self) -> None:
        if self.began is None:
            raise RuntimeError("a pair came before the app began")
        cpu_s, at_s = self.began
        used = {
            "cpu_s": own_cpu_s() - cpu_s,
            "wall_s": time.perf_counter() - at_s,
            "errors": self.errors,
            "rss_begin": self.rss_begin,
            "rss_peak": peak_rss_bytes(),
        }
        write_json(self._out, used)
        os._exit(0)  # Faust's stop takes seconds and is no part of the work


def build(bootstrap: str, prefix: str, joined: Joined, data_dir: str) -> Any:
    """The app with its two agents."""
    app = faust.App(
        f"stock-{uuid.uuid4().hex[:8]}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=data_dir,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        topic_partitions=4,
    )
    predictions = app.topic(f"{prefix}predictions", value_type=Prediction)
    outcomes = app.topic(f"{prefix}outcomes", value_type=Outcome)

    @app.agent(predictions)
    async def on_prediction(stream: Any) -> None:
        async for prediction in stream:
            outcome = joined.outcomes.pop(prediction.prediction_id, None)
            if outcome is None:
                joined.predictions[prediction.prediction_id] = prediction
            else:
                joined.pair(prediction, outcome)

    @app.agent(outcomes)
    async def on_outcome(stream: Any) -> None:
        async for outcome in stream:
            prediction = joined.predictions.pop(outcome.prediction_id, None)
            if prediction is None:
                joined.outcomes[outcome.prediction_id] = outcome
            else:
                joined.pair(prediction, outcome)

    return app


def main() -> None:
    """Measure from before the app starts to the last pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    joined = Joined(redis.Redis.from_url(options.redis), options.pairs, options.out)
    app = build(options.bootstrap, options.prefix, joined, options.data_dir)
    joined.began = (own_cpu_s(), time.perf_counter())
    faust.Worker(app, loglevel="error", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
