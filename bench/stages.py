"""Where a worker's CPU goes: timers of thread CPU around the functions that are its stages.

A stage's time is *self time*: what runs inside it and is a stage of its own is not counted twice. Every thread has its
own clock, so waiting costs nothing and two threads that take turns at the interpreter lock are told apart. The timers
cost two reads of a thread's clock a call; :meth:`Stopwatch.report` says how many calls there were and what one costs,
so that a reader can tell what the profile itself added. Runs with these timers are never the timed ones.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STAGES: Mapping[str, tuple[str, ...]] = {
    "fetch: socket": ("asyncio.selector_events:_SelectorSocketTransport._read_ready__data_received",),
    "fetch: response": ("aiokafka.conn:AIOKafkaConnection._handle_frame",),
    "fetch: decompress": ("streams.fetched:_Chunk.inflated",),
    "fetch: headers": ("streams.fetched:BatchFetchResult.getall",),
    "fetch: records": ("streams.fetched:Fetched.unpack",),
    "join: decode": ("streams.partition:plain_columns", "streams.codec:EventDecoder.decode_columns"),
    "join: columns": ("streams.partition:InputPartition._decode",),
    "join: take in": ("streams.joining:JoinStage.take_in",),
    "join: gather": ("streams.join:gather",),
    "join: predictions": ("streams.fates:Fates.predict", "streams.join:PartitionJoin._apply_predicted"),
    "join: outcomes": ("streams.fates:Fates.observe", "streams.join:PartitionJoin._apply_observed"),
    "join: order": ("streams.joining:JoinStage.advance",),
    "join: expire": ("streams.join:PartitionJoin.expire",),
    "checkpoint: close": ("streams.partition:InputPartition.close",),
    "checkpoint: summaries": ("streams.partition:InputPartition._summaries",),
    "checkpoint: labelled": ("streams.summarise:_labelled",),
    "checkpoint: pack": ("streams.stored:checkpoint",),
    "checkpoint: store": ("streams.store:StateStore.commit",),
    "checkpoint: produce": ("streams.kafka:SafeProducer.send", "streams.kafka:SafeProducer.flush"),
    "checkpoint: metrics": ("streams.metrics:WorkerMetrics.joined",),
    "checkpoint: rest": ("streams.joining:JoinStage.checkpoint",),
    "monitor: take in": ("streams.monitoring:MonitorStage.accept",),
    "monitor: detectors": ("streams.monitor:MonitorPartition.advance",),
    "monitor: pack": ("streams.monitor:MonitorPartition.close",),
    "monitor: report": ("streams.monitoring:MonitorStage._report",),
    "monitor: rest": ("streams.monitoring:MonitorStage.checkpoint",),
}
"""Stage → the functions whose self time it is, as ``module:qualified name``. A test checks that all of them exist."""
COLLECTOR = "garbage collector"
CALIBRATION_CALLS = 20_000
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Self time (thread CPU, ns) and calls by stage, over all threads.

    The totals are written without a lock: each thread has a table of its own, and :meth:`report` adds them up.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._tables: list[dict[str, list[int]]] = []

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with a timer. A generator is run to its end inside it: its work is the stage's work."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.begin()
            try:
                result = function(*args, **kwargs)
                return iter(list(result)) if hasattr(result, "send") else result
            finally:
                self.end(stage)

        return wrapper

    def begin(self) -> None:
        """A stage begins in this thread."""
        local = self._local
        if not hasattr(local, "open"):
            local.open, local.table = [], defaultdict(lambda: [0, 0])
            self._tables.append(local.table)
        local.open.append([time.thread_time_ns(), 0])

    def end(self, stage: str) -> None:
        """The innermost stage of this thread ends, and it was ``stage``."""
        local = self._local
        began, inside = local.open.pop()
        spent = time.thread_time_ns() - began
        row = local.table[stage]
        row[0] += spent - inside
        row[1] += 1
        if local.open:
            local.open[-1][1] += spent

    def collected(self, phase: str, _: Mapping[str, int]) -> None:
        """A callback of the garbage collector (:data:`gc.callbacks`)."""
        if phase == "start":
            self.begin()
        else:
            self.end(COLLECTOR)

    def totals(self) -> dict[str, tuple[float, int]]:
        """Stage → (seconds of thread CPU, calls) so far."""
        stages = {stage for table in self._tables for stage in list(table)}
        return {
            stage: (
                sum(table[stage][0] for table in self._tables if stage in table) / 1e9,
                sum(table[stage][1] for table in self._tables if stage in table),
            )
            for stage in stages
        }


def resolve(name: str) -> tuple[Any, str, Callable[..., Any]]:
    """``module:a.b`` → (owner of the last name, last name, function). Raises :class:`AttributeError` if it is gone."""
    module, _, path = name.partition(":")
    *owners, last = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, last, getattr(owner, last)


def install(stopwatch: Stopwatch) -> None:
    """Put timers around every stage of this process, and around the garbage collector."""
    for stage, names in STAGES.items():
        for name in names:
            owner, last, function = resolve(name)
            setattr(owner, last, stopwatch.timed(stage, function))
    gc.callbacks.append(stopwatch.collected)


def call_cost_s() -> float:
    """What one timer costs, measured here and now on a function that does nothing."""
    stopwatch = Stopwatch()
    empty = stopwatch.timed("", lambda: None)
    began = time.thread_time_ns()
    for _ in range(CALIBRATION_CALLS):
        empty()
    return (time.thread_time_ns() - began) / 1e9 / CALIBRATION_CALLS


def thread_cpu_s(process: Path = Path("/proc/self")) -> dict[int, tuple[str, float]]:
    """Kernel's thread id → (name, seconds of CPU) of every thread of a process. Threads that have ended are missing."""
    found: dict[int, tuple[str, float]] = {}
    for task in (process / "task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        fields = rest.split()
        ticks = int(fields[11]) + int(fields[12])
        found[int(task.name)] = (name, ticks / TICKS_A_SECOND)
    return found


def named_threads() -> dict[int, str]:
    """Kernel's thread id → Python's name of each thread that Python knows."""
    return {thread.native_id: thread.name for thread in threading.enumerate() if thread.native_id is not None}
