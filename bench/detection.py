"""How early and how falsely: the detectors' tables, each beside what is possible.

`python -m bench.detection` prints them, `--json` one object. A full run simulates some 1,700 million outcomes on one
core; `--quick` only shows that everything works.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.detection_champions import recorded_streams
from bench.detection_dating import dating
from bench.detection_measure import PER, frozen, name_of
from bench.detection_optimum import optimum
from bench.detection_peers import RUN_LENGTH, Runner, adwin, always, e_detector, focus, page_hinkley, stepd
from bench.detection_recall import recall_drop
from bench.detection_robust import FULL, QUICK, Size, cells, hourly
from detectors.adwin import Adwin
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference

BEFORE = 0.1
AFTERS = (0.15, 0.2, 0.4)
REFERENCE = 5_000
LENGTH = 20_000
SEED = 20_260_725
PARTS = ("frozen", "robust", "by_hour", "recall_drop", "streams", "dating", "cost")
COST_OUTCOMES = 1_000_000
COST_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Amount:
    """Streams for false alarms and for each delay: of ours and of the peers; streams of a recall that falls, of changes
    to date.
    """

    ours: tuple[int, int]
    peers: tuple[int, int]
    robust: Size
    recall: int
    dating: int


AMOUNTS = {
    False: Amount((1_500, 2_000), (500, 500), FULL, 40, 400),
    True: Amount((25, 50), (10, 20), QUICK, 4, 5),
}


def say(text: str) -> None:
    """Progress, which is no result."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure_frozen(amount: Amount) -> dict[str, Any]:
    """The default configuration, its peers at about equal false alarms, the optimum, and one that always alarms."""
    runners: dict[str, tuple[Runner, tuple[int, int]]] = {
        "default": (e_detector(), amount.ours),
        "adwin": (adwin(), amount.peers),
        "page_hinkley": (page_hinkley(), amount.peers),
        "stepd": (stepd(), amount.peers),
        "focus": (focus(), amount.peers),
        "always": (always, (10, 50)),
    }
    table: dict[str, Any] = {}
    for name, (run, streams) in runners.items():
        say(f"frozen: {name}, {streams[0] * LENGTH:,} stationary outcomes")
        table[name] = frozen(run, BEFORE, AFTERS, REFERENCE, streams, LENGTH, SEED)
    best = {name_of(after): optimum(BEFORE, after, RUN_LENGTH) for after in AFTERS}
    rate = max(PER / each.run_length for each in best.values())
    table["optimum"] = {
        "fa_per_10k": rate,
        "fa_upper": rate,
        "outcomes": 0,
        "delay": {name: each.median_delay for name, each in best.items()},
        "p95": {name: each.p95_delay for name, each in best.items()},
        "recall": dict.fromkeys(best, 1.0),
    }
    return table


def measure_robust(amount: Amount) -> list[dict[str, Any]]:
    """Every case, error rate and budget."""
    table = []
    for cell in cells(amount.robust, SEED):
        say(f"robust: {cell['case']}, rate {cell['rate']}, budget {cell['budget']}: {cell['realised']:.4f}")
        table.append(cell)
    return table


def measure_hours(amount: Amount) -> list[dict[str, Any]]:
    """Every swing, error rate and budget."""
    table = []
    for cell in hourly(amount.robust, SEED):
        told = ", ".join(f"{name}: {each['realised']:.4f}, {each['delay']}" for name, each in _both(cell))
        say(f"{cell['case']}, rate {cell['rate']}, budget {cell['budget']}: {told}")
        table.append(cell)
    return table


def _both(cell: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("by_hour", cell), ("plain", cell["plain"])]


def measure_streams() -> dict[str, Any] | None:
    """The recorded streams; None without their folder."""
    folder = os.environ.get("DRIFTLINE_DATA")
    if not folder:
        say("streams: left out: set DRIFTLINE_DATA to the folder with the harvard_*.csv.gz files")
        return None
    table = {}
    for name, entry in recorded_streams(Path(folder)):
        say(f"streams: {name}: {entry['found']} of {entry['of']}")
        table[name] = entry
    return table


def measure_cost() -> dict[str, float]:
    """CPU, µs an outcome, in batches of 5,000 at an error rate of .1; the least of three runs."""
    errors = (np.random.default_rng(SEED).random(COST_OUTCOMES) < BEFORE).astype(np.float64)
    makers: dict[str, Callable[[], Detector]] = {
        "e_detector": lambda: EDetector(reference=Reference.of_rate(REFERENCE, BEFORE)),
        "adwin": Adwin,
        "page_hinkley": PageHinkley,
    }
    table = {}
    for name, make in makers.items():
        runs = []
        for _ in range(3):
            detector, started = make(), time.process_time()
            for start in range(0, COST_OUTCOMES, COST_BATCH):
                detector.update_many(errors[start : start + COST_BATCH])
            runs.append(time.process_time() - started)
        table[name] = min(runs) / COST_OUTCOMES * 1e6
    return table


def number(value: object, digits: int = 0) -> str:
    """A number, or a dash for what was never reached."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "–"


def show_frozen(table: dict[str, Any]) -> Table:
    shown = Table(title="frozen: error rate .1, unknown, 5,000 reference rows; median delay (95 %), × optimum, recall")
    for heading in ("detector", "FA / 10k", "≤ (95 %)", *(f"→ {name_of(after)}" for after in AFTERS)):
        shown.add_column(heading)
    best = table["optimum"]["delay"]
    for name, entry in table.items():
        delays = []
        for after in best:
            median, slow = entry["delay"][after], entry["p95"][after]
            ratio = f" × {median / best[after]:.2f}" if median is not None else ""
            delays.append(f"{number(median)} ({number(slow)}){ratio} {entry['recall'][after]:.3f}")
        shown.add_row(name, number(entry["fa_per_10k"], 3), number(entry["fa_upper"], 3), *delays)
    return shown


def show_robust(table: list[dict[str, Any]]) -> Table:
    shown = Table(title="robust: false alarms in 10,000 outcomes; delay to twice the rate; River's defaults beside")
    for heading in ("case", "reference", "rate", "budget", "realised", "≤ (95 %)", "first 20,000", "delay", "recall"):
        shown.add_column(heading)
    shown.add_column("ADWIN")
    shown.add_column("Page-Hinkley")
    for each in table:
        river = each["river"]
        over = " !" if each["realised"] > each["budget"] else ""
        shown.add_row(
            each["case"],
            f"{each['reference']:,}",
            str(each["rate"]),
            str(each["budget"]),
            number(each["realised"], 4) + over,
            number(each["fa_upper"], 4),
            number(each["early"], 3),
            number(each["delay"]),
            number(each["recall"], 2),
            number(river["adwin"], 2),
            number(river["page_hinkley"], 2),
        )
    return shown


def show_hours(table: list[dict[str, Any]]) -> Table:
    shown = Table(title="by_hour: false alarms in 10,000 outcomes; delays to 1.5 and 2 times the errors, recall")
    for heading in ("case", "rate", "budget", "null", "realised", "≤ (95 %)", "first 50,000", "× 1.5", "× 2"):
        shown.add_column(heading)
    for each in table:
        for name, entry in _both(each):
            over = " !" if entry["realised"] > each["budget"] else ""
            shown.add_row(
                each["case"],
                str(each["rate"]),
                str(each["budget"]),
                name,
                number(entry["realised"], 4) + over,
                number(entry["fa_upper"], 4),
                number(entry["early"], 3),
                *(f"{number(entry['delay'][to])} {entry['recall'][to]:.2f}" for to in ("1.5", "2")),
            )
    return shown


def show_dating(table: list[dict[str, Any]]) -> Table:
    shown = Table(title="dating: how old a change is said to be, as a share of how old it is; quantiles")
    for heading in ("change", "detector", "found", *table[0]["quantiles"], "least squares"):
        shown.add_column(heading)
    for each in table:
        change = f"{each['before']} → {each['after']}"
        shares = (number(share, 2) for share in (*each["quantiles"].values(), each["least_squares"]))
        shown.add_row(change, each["detector"], f"{each['found']} of {each['of']}", *shares)
    return shown


def show_streams(table: dict[str, Any]) -> Table:
    shown = Table(title="streams: drifts that cost the frozen champion 2 points or more")
    for heading in ("stream", "found", "false alarms", "row", "errors", "delay", "optimum", "on the same rows"):
        shown.add_column(heading)
    for name, entry in table.items():
        for place, drift in enumerate(entry["drifts"]):
            head = (name, f"{entry['found']} of {entry['of']}", str(entry["false_alarms"])) if not place else ("",) * 3
            rates = f"{drift['before']:.3f} → {drift['after']:.3f}"
            delays = (number(drift["delay"]), number(drift["optimum"]), number(drift["optimum_here"]))
            shown.add_row(*head, f"{drift['row']:,}", rates, *delays)
    return shown


def main(argv: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--quick", action="store_true", help="does it work at all: a minute, numbers without meaning")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part (may be repeated)")
    options = parser.parse_args(argv)
    amount = AMOUNTS[options.quick]
    parts: tuple[str, ...] = tuple(options.only or PARTS)
    result: dict[str, Any] = {}
    if "frozen" in parts:
        result["frozen"] = measure_frozen(amount)
    if "robust" in parts:
        result["robust"] = measure_robust(amount)
    if "by_hour" in parts:
        result["by_hour"] = measure_hours(amount)
    if "recall_drop" in parts:
        say(f"recall_drop: {amount.recall} streams")
        result["recall_drop"] = recall_drop(amount.recall, SEED)
    if "streams" in parts:
        result["streams"] = measure_streams()
    if "dating" in parts:
        say(f"dating: {amount.dating} streams a change")
        result["dating"] = list(dating(amount.dating, SEED))
    if "cost" in parts:
        say("cost")
        result["cost_us"] = measure_cost()
    if options.json:
        print(json.dumps(result, allow_nan=False))
        return
    console = Console(width=150)
    if "frozen" in result:
        console.print(show_frozen(result["frozen"]))
    if "robust" in result:
        console.print(show_robust(result["robust"]))
    if "by_hour" in result:
        console.print(show_hours(result["by_hour"]))
    if result.get("streams"):
        console.print(show_streams(result["streams"]))
    if "dating" in result:
        console.print(show_dating(result["dating"]))
    if "recall_drop" in result:
        console.print("recall_drop:", result["recall_drop"])
    if "cost_us" in result:
        console.print("cost, µs an outcome:", result["cost_us"])


if __name__ == "__main__":
    main()
