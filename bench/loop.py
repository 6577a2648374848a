"""Does the loop do better than leaving a model alone, or retraining it by the clock? On recorded streams that drift.

`python -m bench.loop` prints a table for each case of label delay and labelled share, `--json` one object: `streams` is
the case of labels at once for every row, `cases` has all that were measured. What stands beside the loop is of boosted
trees; `alone` is the loop's own first version, of whichever algorithm errs least, left alone. It needs DRIFTLINE_DATA,
the folder with the streams. Everything is in one process, without Kafka, by the classes that the processes use.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from bench.loop_streams import CASES, FIRST_ROWS, Case, RecordedStream, streams
from bench.loop_world import Served, as_plain, serve
from bench.loop_yardsticks import Concepts, Yardsticks, concepts, excess, yardsticks
from retrain.run import recipes
from streams.settings import RetrainSettings, Settings

QUICK_ROWS = 11_000
ALLOWED_LOSS = 0.005
"""Of accuracy, to the best of the yardsticks."""
STRETCH_ROWS = 1_000
ROLLBACK_COOLDOWN_ROWS = 500
"""Here a row is a second: the default, made for days of labels, would be longer than a stream."""


def say(text: str) -> None:
    """Progress, which is no result."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def say_on_stderr(level: int) -> None:
    """Let the loop's own words, from a level on, not get into the results."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def measured(stream: RecordedStream, case: Case, found: Concepts, settings: Settings) -> dict[str, Any]:
    """One stream in one case."""
    started = time.monotonic()
    known = yardsticks(stream, case, recipes(settings.retrain)[0])
    served = serve(stream, case, settings)
    ours = excess(found, served.errors)
    oracle = excess(found, known.oracle) if known.oracle is not None else []
    accuracies = {
        "static": _accuracy(known.static),
        "cron_recent": _accuracy(known.cron_recent),
        "cron_all": _accuracy(known.cron_all),
        "oracle": _accuracy(known.oracle) if known.oracle is not None else None,
        "alone": _accuracy(served.alone),
        "loop": _accuracy(served.errors),
    }
    best = max(accuracies[name] or 0.0 for name in ("static", "cron_recent", "cron_all"))
    entry = {
        **accuracies,
        "retrains": len(served.runs),
        "promotions": len(served.promotions),
        "rollbacks": len(served.rollbacks),
        "drift_points": [round(points, 1) for points in found.points],
        "excess": ours,
        "oracle_excess": oracle,
        "excess_ratio": sum(ours) / sum(oracle) if sum(oracle) > 0 else None,
        "margin": (accuracies["loop"] or 0.0) - best,
        "passed": (accuracies["loop"] or 0.0) >= best - ALLOWED_LOSS,
        "lost": list(lost(known, served)),
        "events": [{"row": row, "kind": "promoted", "version": version} for row, version in served.promotions]
        + [{"row": row, "kind": "rolledback", "version": version} for row, version in served.rollbacks],
        "runs": [as_plain(run) for run in served.runs],
        "seconds": round(time.monotonic() - started, 1),
    }
    say(f"{stream.name}, {case.name}: loop {accuracies['loop']:.4f}, best of the others {best:.4f}")
    return entry


def _accuracy(errors: Any) -> float:
    return 1.0 - float(errors.mean())


def lost(known: Yardsticks, served: Served) -> Iterator[dict[str, Any]]:
    """The three stretches of 1,000 rows where the loop lost most to the better clock, and what it did about it."""
    clock = min(known.cron_recent, known.cron_all, key=lambda errors: float(errors.sum()))
    edges = [*range(0, len(clock), STRETCH_ROWS), len(clock)]
    worst = sorted(pairwise(edges), key=lambda at: float((clock - served.errors)[slice(*at)].sum()))[:3]
    for start, end in sorted(worst):
        errors = float((served.errors - clock)[start:end].sum())
        if errors > 0:
            reasons = [
                run.reason or run.state
                for run in served.runs
                if start <= as_plain(run)["row"] - FIRST_ROWS < end  # type: ignore[operator]  # it is an int
            ]
            yield {"from_row": start + FIRST_ROWS, "errors": errors, "runs": reasons}


def show(case: Case, table: dict[str, Any]) -> Table:
    """A case as a person reads it."""
    shown = Table(title=f"{case.name}: accuracy after the first {FIRST_ROWS:,} rows")
    names = ("static", "cron_recent", "cron_all", "oracle", "alone", "loop", "margin")
    for heading in ("stream", *names, "runs", "promoted", "rolled back", "drifts", "excess ÷ oracle's"):
        shown.add_column(heading, justify="left" if heading == "stream" else "right")
    for name, entry in table.items():
        values = [number(entry[key], 4) for key in names[:-1]]
        shown.add_row(
            name.removeprefix("harvard_") + ("" if entry["passed"] else " !"),
            *values,
            f"{entry['margin']:+.4f}",
            str(entry["retrains"]),
            str(entry["promotions"]),
            str(entry["rollbacks"]),
            " ".join(f"{points:.0f}" for points in entry["drift_points"]),
            number(entry["excess_ratio"], 2),
        )
    return shown


def number(value: float | None, digits: int) -> str:
    """A dash for what does not exist."""
    return "–" if value is None else f"{value:.{digits}f}"


def main(argv: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.loop", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--only", action="append", help="measure only this stream (may be repeated)")
    parser.add_argument("--delay", type=int, action="append", help="only this label delay in rows (may be repeated)")
    parser.add_argument("--labelled", type=float, action="append", help="only this share of labelled rows")
    parser.add_argument("--rows", type=int, help="only so many rows of each stream")
    parser.add_argument("--quick", action="store_true", help="does it work at all: the first drift, labels at once")
    options = parser.parse_args(argv)
    folder = os.environ.get("DRIFTLINE_DATA")
    if not folder:
        parser.error("set DRIFTLINE_DATA to the folder with the streams (.csv.gz)")
    say_on_stderr(logging.WARNING)
    parity_rows = 500 if options.quick else 10_000
    settings = Settings(retrain=RetrainSettings(parity_rows=parity_rows, rollback_cooldown_s=ROLLBACK_COOLDOWN_ROWS))
    cases = [
        case
        for case in CASES
        if (not options.delay or case.delay in options.delay)
        and (not options.labelled or case.labelled in options.labelled)
    ][: 1 if options.quick else None]
    rows = options.rows or (QUICK_ROWS if options.quick else None)
    found: dict[Case, dict[str, Any]] = {case: {} for case in cases}
    for stream in streams(Path(folder), set(options.only) if options.only else None):
        played = stream if rows is None else stream.first(rows)
        known = concepts(played, recipes(settings.retrain)[0])
        for case in cases:
            found[case][stream.name] = measured(played, case, known, settings)
    if options.json:
        plain = [{"delay": c.delay, "labelled": c.labelled, "streams": table} for c, table in found.items()]
        print(json.dumps({"streams": found.get(CASES[0], {}), "cases": plain}, allow_nan=False))
        return
    console = Console(width=180)
    for case, table in found.items():
        console.print(show(case, table))
        for name, entry in table.items():
            for stretch in entry["lost"] if not entry["passed"] else ():
                console.print(f"{name} lost {stretch['errors']:.0f} errors from row {stretch['from_row']:,} on:")
                for reason in stretch["runs"] or ["no run"]:
                    console.print(f"  {reason}", highlight=False)


if __name__ == "__main__":
    main()
