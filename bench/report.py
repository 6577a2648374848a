"""Results: medians and their spread, the JSON object, the tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.pending import Pending
from bench.process import Usage
from bench.runs import WorkerRun
from bench.workloads import Workload

HEADLINES = (
    "ratio_bare",
    "ratio_bare_far",
    "ratio_bare_wall",
    "ratio_stock_faust",
    "pairs_per_s",
    "rss_mb",
    "rss_import_mb",
    "rss_pending_mb",
    "redis_bytes_per_pending",
    "redis_us_per_pair",
)
"""Keys of the JSON object that are always there; None where the workload was not measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the least and the greatest value around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def text(self, digits: int = 2) -> str:
        """``median (low–high)``."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


@dataclass(slots=True)
class Measured:
    """All runs of one workload, in the order in which they alternated."""

    workload: Workload
    bare: list[Usage] = field(default_factory=list)
    ours: list[WorkerRun] = field(default_factory=list)
    faust: list[Usage] = field(default_factory=list)
    faust_pairs: int = 0
    pending: Pending | None = None
    stages: dict[str, Any] | None = None

    def bare_cpu_us(self) -> Spread:
        """CPU of the bare loop, µs a pair."""
        return self._a_pair(run.cpu_s for run in self.bare)

    def cpu_us(self) -> Spread:
        """CPU of the worker, µs a pair, until the detectors have seen all."""
        return self._a_pair(run.usage.cpu_s for run in self.ours)

    def bare_wall_us(self) -> Spread:
        """Wall time of the bare loop, µs a pair."""
        return self._a_pair(run.wall_s for run in self.bare)

    def wall_us(self) -> Spread:
        """Wall time of the worker, µs a pair, until the last pair is in a checkpoint."""
        return self._a_pair(run.usage.wall_s for run in self.ours)

    def redis_us(self) -> Spread:
        """CPU of the store, µs a pair."""
        return self._a_pair(run.redis_cpu_s for run in self.ours)

    def ratio(self) -> Spread:
        """Bare CPU / ours, of runs that followed each other: above 1 we need less."""
        return Spread.of(b.cpu_s / o.usage.cpu_s for b, o in zip(self.bare, self.ours, strict=True))

    def wall_ratio(self) -> Spread:
        """Ours / bare wall time: above 1 we take longer."""
        return Spread.of(o.usage.wall_s / b.wall_s for b, o in zip(self.bare, self.ours, strict=True))

    def faust_ratio(self) -> Spread:
        """CPU of stock Faust a pair / ours."""
        ours = self.cpu_us().median
        return Spread.of(run.cpu_s / self.faust_pairs * 1e6 / ours for run in self.faust)

    def _a_pair(self, seconds: Iterable[float]) -> Spread:
        return Spread.of(each / self.workload.pairs * 1e6 for each in seconds)


def summary(results: Mapping[str, Measured], described: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object: the headline numbers at the top (None where nothing was measured), everything else below."""
    top: dict[str, float | None] = dict.fromkeys(HEADLINES)
    if (near := results.get("near")) is not None:
        top["ratio_bare"] = round(near.ratio().median, 3)
        top["ratio_bare_wall"] = round(near.wall_ratio().median, 3)
        top["pairs_per_s"] = round(1e6 / near.cpu_us().median)
        top["rss_mb"] = round(max(run.usage.rss_peak for run in near.ours) / 1e6)
        top["rss_import_mb"] = round(statistics.median(run.usage.rss_begin for run in near.ours) / 1e6)
        top["redis_us_per_pair"] = round(near.redis_us().median, 3)
        top["ratio_stock_faust"] = round(near.faust_ratio().median, 1) if near.faust else None
    if (far := results.get("far")) is not None:
        top["ratio_bare_far"] = round(far.ratio().median, 3)
        if far.pending is not None:
            top["rss_pending_mb"] = round(far.pending.rss_peak / 1e6)
            top["redis_bytes_per_pending"] = round(far.pending.used / far.pending.rows, 1)
    return {**top, "run": dict(described), "workloads": {name: _details(each) for name, each in results.items()}}


def _details(measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pairs": measured.workload.pairs,
        "runs": len(measured.ours),
        "ratio_bare": _spread(measured.ratio()),
        "wall_over_bare": _spread(measured.wall_ratio()),
        "worker_cpu_us_per_pair": _spread(measured.cpu_us()),
        "bare_cpu_us_per_pair": _spread(measured.bare_cpu_us()),
        "worker_wall_us_per_pair": _spread(measured.wall_us()),
        "bare_wall_us_per_pair": _spread(measured.bare_wall_us()),
        "redis_cpu_us_per_pair": _spread(measured.redis_us()),
        "worker_rss_mb": round(max(run.usage.rss_peak for run in measured.ours) / 1e6),
        "bare_rss_mb": round(max(run.rss_peak for run in measured.bare) / 1e6),
        "cores": {name: round(cores, 2) for name, cores in _cores(measured.ours).items()},
        "joined": sum(run.joined for run in measured.ours),
    }
    if measured.faust:
        found["ratio_stock_faust"] = _spread(measured.faust_ratio())
        found["faust_pairs"] = measured.faust_pairs
    if measured.pending is not None:
        found["pending"] = {
            "rows": measured.pending.rows,
            "redis_bytes_per_row": round(measured.pending.used / measured.pending.rows, 1),
            "key_bytes_per_row": {k: round(v / measured.pending.rows, 2) for k, v in measured.pending.keys.items()},
            "rss_mb": round(measured.pending.rss / 1e6),
            "rss_peak_mb": round(measured.pending.rss_peak / 1e6),
        }
    if measured.stages is not None:
        found["stages"] = by_stage(measured.stages, measured.workload.pairs)
    return found


def _cores(runs: Sequence[WorkerRun]) -> dict[str, float]:
    return {name: statistics.median(run.cores[name] for run in runs) for name in runs[0].cores}


def by_stage(profile: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    """A worker's profile, µs of CPU a pair: by stage, by thread, and what the timers added."""
    stages = {name: seconds / pairs * 1e6 for name, (seconds, _) in sorted(profile["stages"].items())}
    calls = sum(count for _, count in profile["stages"].values())
    threads: dict[str, float] = {}
    for name, seconds in profile["threads"]:
        threads[name] = threads.get(name, 0.0) + seconds / pairs * 1e6
    total = sum(threads.values())
    return {
        "stage_us": {name: round(us, 2) for name, us in stages.items()},
        "thread_us": {name: round(us, 2) for name, us in threads.items() if us >= 0.005},
        "total_us": round(total, 2),
        "outside_stages_us": round(total - sum(stages.values()), 2),
        "timers_us": round(calls * profile["call_cost_s"] / pairs * 1e6, 2),
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": round(spread.median, 3), "low": round(spread.low, 3), "high": round(spread.high, 3)}


def render(results: Mapping[str, Measured], found: Mapping[str, Any], console: Console) -> None:
    """The tables for a person."""
    described = " · ".join(f"{name} {value}" for name, value in found["run"].items())
    table = Table(title="worker against the bare loop: medians (lowest–highest)", caption=described)
    for name in (
        "workload",
        "pairs",
        "bare CPU / ours",
        "CPU µs a pair",
        "bare",
        "wall: ours / bare",
        "RSS MB",
        "Redis µs",
    ):
        table.add_column(name, justify="left" if name == "workload" else "right")
    for name, each in results.items():
        table.add_row(
            name,
            f"{each.workload.pairs:,}",
            each.ratio().text(),
            each.cpu_us().text(1),
            each.bare_cpu_us().text(1),
            each.wall_ratio().text(),
            f"{max(run.usage.rss_peak for run in each.ours) / 1e6:.0f}",
            each.redis_us().text(),
        )
    console.print(table)
    for name, each in results.items():
        details = found["workloads"][name]
        console.print(f"{name}: cores used {details['cores']}", highlight=False)
        if each.faust:
            console.print(f"{name}: stock Faust's CPU / ours {each.faust_ratio().text(0)} ({each.faust_pairs:,} pairs)")
        if each.pending is not None:
            console.print(f"{name}: waiting rows {details['pending']}", highlight=False)
        if each.stages is not None:
            _render_stages(name, details["stages"], console)


def _render_stages(name: str, stages: Mapping[str, Any], console: Console) -> None:
    table = Table(
        title=f"{name}: µs of CPU a pair by stage ({stages['timers_us']} of {stages['total_us']} are the timers)"
    )
    table.add_column("stage")
    table.add_column("µs", justify="right")
    for stage, us in sorted(stages["stage_us"].items(), key=lambda item: -item[1]):
        table.add_row(stage, f"{us:.2f}")
    table.add_row("outside of all stages", f"{stages['outside_stages_us']:.2f}", style="dim")
    for thread, us in sorted(stages["thread_us"].items(), key=lambda item: -item[1]):
        table.add_row(f"thread {thread}", f"{us:.2f}", style="dim")
    console.print(table)
