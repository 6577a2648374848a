"""Does the loop do for three classes and for numbers what it does for two? On generated streams with known drift.

`python -m bench.loop_kinds` prints a row a stream, `--json` one object. Compared are mean errors after the first 5,000
rows: the share of rows wrong, of a regression the mean absolute error. The streams are River's: Waveform, whose
features are named otherwise from one drift to the next, and the three kinds of drift of Friedman's function; one that
stays as it is, with errors that have heavy tails, so that every page about it is a false one. Everything is in one
process, without Kafka, by the classes that the processes use.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from river.datasets import base, synth

from bench.loop import ROLLBACK_COOLDOWN_ROWS, number, say, say_on_stderr
from bench.loop_streams import Case, RecordedStream
from bench.loop_world import serve
from bench.loop_yardsticks import yardsticks
from retrain.run import recipes
from streams.settings import RetrainSettings, Settings

ROWS = 20_000
CASES = (Case(0, 1.0), Case(500, 1.0), Case(0, 0.1))
SEED = 20_261_128
TWICE = (10_000, 15_000)
THRICE = (8_000, 12_000, 16_000)
WINDOW = 1_000
"""Rows in which both concepts of a gradual drift come."""
TURN = 7
"""Places that the features of Waveform move by, of 21."""
TAIL = 2.5
"""Degrees of freedom of Student's t: its variance is finite, its third moment is not."""


def _rows(dataset: base.SyntheticDataset, rows: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """The first ``rows`` of a generator: features and target."""
    pairs = list(islice(dataset, rows))
    features = np.array([list(x.values()) for x, _ in pairs], dtype=np.float32)
    return features, np.array([y for _, y in pairs])


def waveform(rows: int) -> RecordedStream:
    """Three classes; the second concept has the features in other places, and the first one returns."""
    features, target = _rows(synth.Waveform(seed=SEED), rows)
    moved = slice(*TWICE)
    features[moved] = np.roll(features[moved], TURN, axis=1)
    return RecordedStream("waveform", features, target.astype(np.int64), TWICE, "multiclass")


def friedman(kind: str, drifts: tuple[int, ...], window: int = 0) -> Callable[[int], RecordedStream]:
    """A regression: ``gra``, all changes and the first concept returns; ``lea``, more and more of the rows do; ``gsg``,
    all of them do, gradually.
    """

    def made(rows: int) -> RecordedStream:
        dataset = synth.FriedmanDrift(drift_type=kind, position=drifts, transition_window=window, seed=SEED)
        return RecordedStream(f"friedman {kind}", *_rows(dataset, rows), drifts, "regression")

    return made


def heavy(rows: int) -> RecordedStream:
    """Friedman's function without a drift; what the features do not tell has heavy tails."""
    features, target = _rows(synth.Friedman(seed=SEED), rows)
    surprise = np.random.default_rng(SEED).standard_t(TAIL, rows)
    return RecordedStream("heavy tails", features, target + surprise, (), "regression")


STREAMS: dict[str, Callable[[int], RecordedStream]] = {
    "waveform": waveform,
    "friedman gra": friedman("gra", TWICE),
    "friedman lea": friedman("lea", THRICE),
    "friedman gsg": friedman("gsg", TWICE, WINDOW),
    "heavy tails": heavy,
}


def measured(stream: RecordedStream, case: Case) -> dict[str, Any]:
    """What the loop did on a stream, and what leaving the model alone or retraining by the clock would have done."""
    settings = Settings(retrain=RetrainSettings(rollback_cooldown_s=ROLLBACK_COOLDOWN_ROWS))
    known = yardsticks(stream, case, recipes(settings.retrain)[0])
    served = serve(stream, case, settings)
    errors = {
        "static": float(known.static.mean()),
        "cron_recent": float(known.cron_recent.mean()),
        "cron_all": float(known.cron_all.mean()),
        "loop": float(served.errors.mean()),
    }
    best = min(errors[name] for name in ("static", "cron_recent", "cron_all"))
    say(f"{stream.name}, {case.name}: loop {errors['loop']:.4f}, best of the others {best:.4f}")
    return {
        **errors,
        "oracle": None if known.oracle is None else float(known.oracle.mean()),
        "ratio": errors["loop"] / best,
        **served.acts,
    }


def show(found: list[dict[str, Any]]) -> Table:
    """The streams as a person reads them."""
    names = ("static", "cron_recent", "cron_all", "oracle", "loop")
    shown = Table("stream", "labels", *names, "loop ÷ best", "promotions", "rollbacks", "pages", title="mean errors")
    for entry in found:
        counts = (str(len(entry[each])) for each in ("promotions", "rollbacks", "pages"))
        values = (number(entry[name], 4) for name in names)
        shown.add_row(entry["stream"], entry["case"], *values, number(entry["ratio"], 3), *counts)
    return shown


def main(argv: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.loop_kinds", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")
    parser.add_argument("--only", action="append", choices=STREAMS, help="measure only this stream (may be repeated)")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many cases of labels")
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args(argv)
    say_on_stderr(logging.ERROR)
    found = []
    for name in options.only or STREAMS:
        stream = STREAMS[name](options.rows)
        for case in CASES[: options.cases]:
            found.append({"stream": name, "case": case.name, **measured(stream, case)})
    if options.json:
        print(json.dumps({"streams": found}, allow_nan=False))
    else:
        Console(width=140).print(show(found))


if __name__ == "__main__":
    main()
