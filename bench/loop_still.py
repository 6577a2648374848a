"""What does the loop do while nothing happens? Generated streams whose concept stays, so every page is a false one.

`python -m bench.loop_still` prints a row a stream, `--json` one object. Everything is in one process, without Kafka, by
the classes that the processes use. Not every promotion is false: one of more rows may beat one of few.
Models are small (boosted trees of at most 2,000 rows), so that a stream takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.loop import ROLLBACK_COOLDOWN_ROWS, say, say_on_stderr
from bench.loop_streams import Case, RecordedStream
from bench.loop_world import serve
from streams.settings import RetrainSettings, Settings

AT_ONCE = Case(0, 1.0)
FEATURES = 5
NOISE = (0.1, 0.2)
"""Shares of labels that are the other class, of one stream and the next."""


def still(seed: int, rows: int) -> RecordedStream:
    """Two classes by the sign of x0 + x1 · x2, of normal features, with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    target = features[:, 0] + features[:, 1] * features[:, 2] > 0
    noise = rng.random(rows) < NOISE[seed % len(NOISE)]
    return RecordedStream(f"still {seed}", features, (target ^ noise).astype(np.int64), ())


def measured(stream: RecordedStream) -> dict[str, Any]:
    """What the loop did on a stream; the limit of promotions does not hide any."""
    policy = RetrainSettings(
        algorithms=["xgboost"],
        trees=20,
        depth=3,
        maximum_rows=2_000,
        recent_rows=[200, 500, 1_000],
        parity_rows=500,
        rollback_cooldown_s=ROLLBACK_COOLDOWN_ROWS,
        max_promotions_per_week=len(stream),
    )
    served = serve(stream, AT_ONCE, Settings(retrain=policy))
    say(f"{stream.name} is over")
    return {
        "accuracy": 1.0 - float(served.errors.mean()),
        **served.acts,
    }


def show(found: dict[str, Any]) -> Table:
    """The streams as a person reads them."""
    shown = Table("stream", "accuracy", "promotions", "rollbacks", "false pages")
    for name, entry in found.items():
        counts = (str(len(entry[each])) for each in ("promotions", "rollbacks", "pages"))
        shown.add_row(name, f"{entry['accuracy']:.4f}", *counts)
    return shown


def main(argv: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.loop_still", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--rows", type=int, default=40_000)
    options = parser.parse_args(argv)
    say_on_stderr(logging.ERROR)
    streams = (still(seed, options.rows) for seed in range(options.streams))
    found = {stream.name: measured(stream) for stream in streams}
    if options.json:
        print(json.dumps(found, allow_nan=False))
    else:
        Console().print(show(found))


if __name__ == "__main__":
    main()
