"""Two workers against one: pairs a CPU-second, how the partitions are split, and what limits the wall clock.

Workers form their group on inputs that show nothing: the workload is written in a transaction, and its commit lets one
worker and two begin with the same backlog at one instant. Joining the group is no part of either.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.deployment import Deployment
from bench.engine import say
from bench.process import Utilisation, cpu_s
from bench.runs import RunFailed, Worker, counters, running, seen
from bench.workloads import WORKLOADS, Workload, Writer
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

ASSIGNED_S = 120.0


@dataclass(frozen=True, slots=True)
class GroupRun:
    """A run of some workers on the same backlog."""

    workers: int
    split: list[list[int]]
    cpu_s: float
    wall_s: float
    cores: dict[str, float]


def group_run(kafka: KafkaBroker, store: RedisServer, folder: Path, workload: Workload, count: int) -> GroupRun:
    """Let ``count`` workers take a workload that is there when they begin."""
    deployment = Deployment(kafka, store, folder, workload)
    with ExitStack() as stack, store.client() as client:
        writer = Writer(deployment.settings, workload, transaction=deployment.name)
        writer.write()
        workers = [stack.enter_context(running(deployment, f"worker{number}")) for number in range(count)]
        split = [assigned(worker, deployment.settings.kafka.partitions // count) for worker in workers]
        if counters(client, deployment.settings).predictions:
            raise RunFailed("a worker has seen what is not committed")
        pids = {f"worker {number + 1}": worker.pid for number, worker in enumerate(workers)}
        utilisation = Utilisation({**pids, "broker": kafka.pid, "redis": store.pid})
        before, began_s = sum(cpu_s(pid) for pid in pids.values()), time.monotonic()
        writer.commit()
        workers[0].until(lambda: counters(client, deployment.settings).joined >= workload.pairs, "all is joined")
        wall_s, cores = time.monotonic() - began_s, utilisation.cores()
        workers[0].until(lambda: seen(client, deployment.settings) >= workload.pairs, "the detectors have seen all")
        used_s = sum(cpu_s(pid) for pid in pids.values()) - before
        if counters(client, deployment.settings).joined != workload.pairs:
            raise RunFailed(f"{workload.pairs} pairs became {counters(client, deployment.settings)}")
        if [assigned(worker, len(part)) for worker, part in zip(workers, split, strict=True)] != split:
            raise RunFailed("a rebalance fell into the run: nothing can be said about its split")
    deployment.remove()
    return GroupRun(count, split, used_s, wall_s, cores)


def assigned(worker: Worker, count: int) -> list[int]:
    """Wait until a worker owns ``count`` input partitions → their numbers."""

    def owned() -> list[int]:
        told = worker.events("partitions.assigned")
        return sorted(told[-1]["inputs"]) if told else []

    worker.until(lambda: len(owned()) == count, f"{count} partitions are assigned", ASSIGNED_S)
    return owned()


def summary(runs: list[GroupRun], pairs: int) -> dict[str, Any]:
    """Medians by number of workers, and two against one."""
    found: dict[str, Any] = {"pairs": pairs}
    for count in sorted({run.workers for run in runs}):
        mine = [run for run in runs if run.workers == count]
        found[f"workers_{count}"] = {
            "runs": len(mine),
            "split": [run.split for run in mine],
            "pairs_per_cpu_s": round(pairs / statistics.median(run.cpu_s for run in mine)),
            "pairs_per_cpu_s_all": sorted(round(pairs / run.cpu_s) for run in mine),
            "pairs_per_wall_s": round(pairs / statistics.median(run.wall_s for run in mine)),
            "cores": {name: round(statistics.median(run.cores[name] for run in mine), 2) for name in mine[0].cores},
        }
    one, two = found["workers_1"], found["workers_2"]
    found["two_over_one_per_cpu_s"] = round(two["pairs_per_cpu_s"] / one["pairs_per_cpu_s"], 3)
    found["two_over_one_wall"] = round(two["pairs_per_wall_s"] / one["pairs_per_wall_s"], 3)
    return found


def main() -> None:
    """Alternate one and two workers, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=WORKLOADS["near"].pairs)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    workload = replace(WORKLOADS["near"], pairs=arguments.pairs)
    done: list[GroupRun] = []
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        KafkaBroker(Path(name) / "kafka") as kafka,
        RedisServer(Path(name) / "redis") as store,
    ):
        for number in range(arguments.runs):
            for count in (1, 2):
                done.append(group_run(kafka, store, Path(name), workload, count))
                say(f"{number + 1}/{arguments.runs}, {count} workers: {done[-1]}")
    found = summary(done, workload.pairs)
    if arguments.json:
        print(json.dumps(found))
        return
    table = Table(title=f"{workload.pairs:,} pairs", caption=f"two/one a CPU-second: {found['two_over_one_per_cpu_s']}")
    for heading in ("workers", "partitions", "pairs a CPU-second", "pairs a second", "cores used"):
        table.add_column(heading, justify="right")
    for count in (1, 2):
        each = found[f"workers_{count}"]
        split = " + ".join(str(len(part)) for part in each["split"][0])
        cores = ", ".join(f"{process} {used}" for process, used in each["cores"].items())
        table.add_row(str(count), split, f"{each['pairs_per_cpu_s']:,}", f"{each['pairs_per_wall_s']:,}", cores)
    Console().print(table)


if __name__ == "__main__":
    main()
