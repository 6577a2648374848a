"""What a checkpoint, a takeover and a rebalance cost, by the number of predictions that wait.

Light traffic flows all the time. A checkpoint's duration is the worker's own metric. A pause is the longest time
between two cuts of one input partition, by the broker's clock, around an event; without one it is the interval of the
checkpoints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from bench.deployment import Deployment
from bench.engine import say
from bench.pending import settle
from bench.runs import RunFailed, Worker, running
from bench.traffic import traffic
from bench.two_workers import assigned
from bench.workloads import WORKLOADS, Workload, Writer
from streams.kafka import TopicReader
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

SIZES = (10_000, 100_000, 1_000_000)
CHECKPOINT_S = 0.25
RATE = 1_000.0
WATCH_S = 10.0
EVENT_MARGIN_MS = 2_000
CHECKPOINT_METRIC = "driftline_checkpoint_duration_seconds"


def checkpoint_times(worker: Worker) -> tuple[int, float]:
    """Checkpoints so far and the seconds that they took, as the worker's metrics page tells."""
    url = worker.metrics_url()
    with urllib.request.urlopen(url, timeout=30) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    values = {s.name: s.value for family in families for s in family.samples if s.name.startswith(CHECKPOINT_METRIC)}
    return int(values[f"{CHECKPOINT_METRIC}_count"]), float(values[f"{CHECKPOINT_METRIC}_sum"])


def longest_pause_s(deployment: Deployment, since_ms: int) -> float:
    """The longest time between two cuts of one partition that ends after ``since_ms``, seconds."""
    times: dict[int, list[int]] = {}
    with TopicReader(deployment.settings.kafka, deployment.topics.checkpoints) as reader:
        for record in reader.read_to_end():
            if record.value and b'"record":"cut"' in record.value:
                times.setdefault(record.partition, []).append(record.at_ms)
    return longest_gap_ms(times.values(), since_ms) / 1000


def longest_gap_ms(times: Iterable[Sequence[int]], since_ms: int) -> int:
    """The longest time between two neighbours of one of the rising series that ends at ``since_ms`` or later.

    Raises :class:`RunFailed` if nothing ends there: then there was no cut after the event at all.
    """
    gaps = [later - earlier for cuts in times for earlier, later in pairwise(cuts) if later >= since_ms]
    if not gaps:
        raise RunFailed("no cut was published after the event")
    return max(gaps)


def now_ms() -> int:
    """The wall clock, which is the broker's too."""
    return time.time_ns() // 1_000_000


def measure(deployment: Deployment, rows: int) -> dict[str, Any]:
    """All costs with ``rows`` predictions waiting, which the inputs hold."""
    found: dict[str, Any] = {"pending": rows}
    partitions = deployment.settings.kafka.partitions
    with deployment.store.client() as client, running(deployment, "filler") as worker:
        settle(worker, client, deployment.settings, rows)
    with running(deployment, "first") as first, traffic(deployment, RATE, shuffle=100):
        assigned(first, partitions)
        found["takeover_s"] = first.events("partitions.assigned")[-1]["seconds"]
        time.sleep(WATCH_S / 2)
        (count, seconds), since = checkpoint_times(first), now_ms()
        time.sleep(WATCH_S)
        after = checkpoint_times(first)
        found["checkpoint_ms"] = round((after[1] - seconds) / (after[0] - count) * 1000, 1)
        found["undisturbed_pause_s"] = round(longest_pause_s(deployment, since), 3)
        joins = now_ms()
        with running(deployment, "second") as second:
            assigned(second, partitions // 2)
            assigned(first, partitions // 2)
            time.sleep(EVENT_MARGIN_MS / 1000)
            found["join_pause_s"] = round(longest_pause_s(deployment, joins), 3)
            leaves = now_ms()
        assigned(first, partitions)
        time.sleep(EVENT_MARGIN_MS / 1000)
        found["leave_pause_s"] = round(longest_pause_s(deployment, leaves), 3)
    return found


def main() -> None:
    """Measure each size and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pending", type=int, nargs="+", default=SIZES, help="predictions that wait")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        KafkaBroker(Path(name) / "kafka") as kafka,
        RedisServer(Path(name) / "redis") as store,
    ):
        for rows in arguments.pending:
            workload: Workload = replace(
                WORKLOADS["far"], pairs=rows, changes={"worker.checkpoint_s": str(CHECKPOINT_S)}
            )
            deployment = Deployment(kafka, store, Path(name), workload)
            say(f"{rows:,} predictions")
            Writer(deployment.settings, workload).predictions(rows)
            results.append(measure(deployment, rows))
            say(str(results[-1]))
            deployment.remove()
    if arguments.json:
        print(json.dumps({"checkpoint_s": CHECKPOINT_S, "rate": RATE, "sizes": results}))
        return
    table = Table(title=f"{RATE:,.0f} pairs a second, a checkpoint every {CHECKPOINT_S} s")
    for heading in results[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for each in results:
        table.add_row(*(f"{value:,}" for value in each.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
