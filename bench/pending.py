"""What a waiting prediction costs: bytes in the store, memory of the worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psutil
import redis

from bench.deployment import Deployment
from bench.process import peak_rss_bytes
from bench.runs import Worker, counters, running
from streams.settings import Settings

SETTLED_S = 2.5
"""Two checkpoints and more without a new record: everything has been written, and acknowledged entries are gone."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The store and a worker while ``rows`` predictions wait.

    ``keys`` are MEMORY USAGE of the join's keys by their last part, bytes. ``used`` is the growth of the store's
    ``used_memory``: with everything else that the deployment keeps there.
    """

    rows: int
    keys: dict[str, int]
    used: int
    rss: int
    rss_peak: int


def measure(deployment: Deployment, rows: int) -> Pending:
    """Let a worker take in ``rows`` predictions without an outcome, which the inputs hold, and look."""
    with deployment.store.client() as client:
        before = used_memory(client)
        with running(deployment) as worker:
            settle(worker, client, deployment.settings, rows)
            rss = psutil.Process(worker.pid).memory_info().rss
            keys = key_bytes(client, deployment.settings)
            return Pending(rows, keys, used_memory(client) - before, int(rss), peak_rss_bytes(worker.pid))


def settle(worker: Worker, client: redis.Redis, settings: Settings, rows: int) -> None:
    """Wait until all of them are in a checkpoint and nothing more is written about them."""
    worker.until(lambda: counters(client, settings).predictions >= rows, "the predictions are taken in")
    time.sleep(SETTLED_S)


def used_memory(client: redis.Redis) -> int:
    """Bytes that the store has allocated."""
    info: dict[str, Any] = client.info("memory")
    return int(info["used_memory"])


def key_bytes(client: redis.Redis, settings: Settings) -> dict[str, int]:
    """Part of the join's state → bytes that its keys take, over all partitions."""
    found: dict[str, int] = {}
    for key in client.scan_iter(f"{settings.redis.prefix}:{{join:*", count=1_000):
        part = key.decode().rpartition("}:")[2].partition(":")[0]
        found[part] = found.get(part, 0) + int(client.memory_usage(key, samples=0) or 0)
    return found
