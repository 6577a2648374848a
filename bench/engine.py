"""The worker against an idiomatic bare Kafka loop and stock Faust, on the same broker and data, alternating.

CPU is of the measured process alone, from before it joins the group; see bench/README.md for what is counted and why.
Progress goes to stderr, the tables (or with ``--json`` one object) to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import pending, report, runs
from bench.deployment import Deployment, filled
from bench.report import Measured
from bench.workloads import WORKLOADS, Workload, Writer
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

QUICK_SCALE = 0.01
FAUST_PAIRS = 10_000


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Benchmark:
    """Runs workloads on one broker and one store."""

    def __init__(self, kafka: KafkaBroker, store: RedisServer, folder: Path, count: int) -> None:
        self._kafka = kafka
        self._store = store
        self._folder = folder
        self._runs = count

    def workload(self, workload: Workload) -> Measured:
        """Measure one workload."""
        say(f"{workload.name}: writing {workload.pairs:,} pairs")
        measured = Measured(workload)
        if workload.later:
            deployment = Deployment(self._kafka, self._store, self._folder, workload)
            writer = Writer(deployment.settings, workload)
            writer.predictions(workload.pairs)
            say(f"{workload.name}: {workload.pairs:,} predictions wait")
            measured.pending = pending.measure(deployment, workload.pairs)
            writer.outcomes()
        else:
            deployment = filled(self._kafka, self._store, self._folder, workload)
        for number in range(self._runs):
            deployment.renew()
            measured.bare.append(runs.bare_run(deployment, workload))
            measured.ours.append(runs.worker_run(deployment, workload))
            say(f"{workload.name} {number + 1}/{self._runs}: {_line(measured)}")
        deployment.renew()
        measured.stages = self._profile(deployment, workload)
        deployment.remove()
        return measured

    def _profile(self, deployment: Deployment, workload: Workload) -> dict[str, Any]:
        """CPU by stage of one more run, with timers."""
        with (
            deployment.store.client() as client,
            runs.running(deployment, "profiled", deployment.folder / "stages.json") as worker,
        ):
            worker.until(lambda: runs.seen(client, deployment.settings) >= workload.pairs, "the profiled run ends")
            return worker.profile()

    def stock_faust(self, workload: Workload, measured: Measured) -> None:
        """Measure stock Faust on fewer pairs of the same kind."""
        say(f"stock Faust: {workload.pairs:,} pairs")
        deployment = filled(self._kafka, self._store, self._folder, workload)
        measured.faust_pairs = workload.pairs
        for number in range(self._runs):
            measured.faust.append(runs.faust_run(deployment, workload))
            cpu_us = measured.faust[-1].cpu_s / workload.pairs * 1e6
            say(f"stock Faust {number + 1}/{self._runs}: CPU µs a pair {cpu_us:.0f}")
        deployment.remove()


def _line(measured: Measured) -> str:
    pairs, bare, ours = measured.workload.pairs, measured.bare[-1], measured.ours[-1].usage
    return (
        f"CPU µs a pair {ours.cpu_s / pairs * 1e6:.1f} (bare {bare.cpu_s / pairs * 1e6:.1f}), "
        f"wall {ours.wall_s / pairs * 1e6:.1f} (bare {bare.wall_s / pairs * 1e6:.1f})"
    )


def described(count: int, scale: float) -> dict[str, Any]:
    """What one has to know to read the numbers."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=runs.ROOT
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "runs": count,
        "scale": scale,
    }


def chosen(arguments: argparse.Namespace) -> list[Workload]:
    """The workloads to run, at their size."""
    scale = QUICK_SCALE if arguments.quick else arguments.scale
    return [WORKLOADS[name].scaled(scale) for name in arguments.workload]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = "; ".join(f"{w.name}: {w.what}" for w in WORKLOADS.values())
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), help=listed)
    parser.add_argument("--runs", type=int, default=5, help="runs of each program; medians are of these")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads, as a factor")
    parser.add_argument("--quick", action="store_true", help="one run of a hundredth: does it work at all")
    parser.add_argument("--faust-pairs", type=int, default=FAUST_PAIRS, help="pairs for stock Faust; 0: without it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    found = parser.parse_args(arguments)
    if found.quick:
        found.runs, found.faust_pairs = 1, min(found.faust_pairs, 1_000)
    return found


def main() -> None:
    """Measure and print."""
    arguments = parse()
    results: dict[str, Measured] = {}
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        KafkaBroker(Path(name) / "kafka") as kafka,
        RedisServer(Path(name) / "redis") as store,
    ):
        benchmark = Benchmark(kafka, store, Path(name), arguments.runs)
        for workload in chosen(arguments):
            results[workload.name] = benchmark.workload(workload)
        if arguments.faust_pairs and "near" in results:
            slow = replace(results["near"].workload, pairs=arguments.faust_pairs, name="faust")
            benchmark.stock_faust(replace(slow, shuffle=min(slow.shuffle, slow.pairs // 2)), results["near"])
    found = report.summary(results, described(arguments.runs, QUICK_SCALE if arguments.quick else arguments.scale))
    if arguments.json:
        print(json.dumps(found))
    else:
        report.render(results, found, Console())


if __name__ == "__main__":
    main()
