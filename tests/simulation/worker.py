"""One worker process in one thread: the stages, and what :class:`streams.engine.Engine` does around them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from streams.joining import JoinStage
from streams.log import Reader, Record
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.monitoring import MonitorStage
from streams.partition import Batch
from streams.store import StateStore
from tests.simulation.world import FETCH_MS, INPUTS, SETTINGS, TICK_MS, TOPICS, World
from tests.support.memory.log import MemoryLog, Sending
from tests.support.memory.redis import client_of
from tests.support.memory.wire import Wire

FETCH = (17, 9, 26)
"""Records in a fetch, in turn."""
JOIN_ROWS = 15
"""So that some fetches are joined at once and others wait for the timer."""
STEPS_BOUND = 60
"""Steps after which an act must be over."""


class PolledFeed:
    """Reads cuts when it is asked: :class:`streams.monitoring.ThreadedFeed` without the thread."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def drain(self) -> list[Record]:
        """What has come since the last call."""
        return self._reader.poll(0)

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()


class LosesNothing(WorkerMetrics):
    """The store keeps all that it was given here: an owner that has to rebuild its state shows a broken protocol."""

    def rebuilt(self, stage: str) -> None:
        """Say so."""
        raise AssertionError(f"the state of a {stage} partition had to be rebuilt, although nothing was lost")


class Worker:
    """A process: everything in it is lost with it."""

    def __init__(
        self, world: World, wire: Wire, sending: Sending = "in order", metrics: WorkerMetrics | None = None
    ) -> None:
        self.world = world
        self.wire = wire
        self._log = MemoryLog(world.broker, wire)
        self._store = StateStore(client_of(world.store, wire), SETTINGS.redis.prefix, sleep=lambda _: None)
        self._store.check_layout(world.counts)
        self.publisher = self._log.publisher(sending)
        self.models = ModelEvents(SETTINGS, self._log, self.publisher)
        self.models.start()
        told = metrics or LosesNothing(CollectorRegistry())
        stage = SETTINGS, self._store, self._log, self.publisher, self.models, world.counts, told, self._monotonic
        self.join = JoinStage(*stage)
        self.join.join_rows = JOIN_ROWS
        self.monitor = MonitorStage(*stage, PolledFeed)
        self._fetches = 0
        self._positions: dict[tuple[str, int], int] = {}

    def _monotonic(self) -> float:
        return self.world.now_ms / 1000

    def take(self, inputs: Iterable[int], summaries: Iterable[int]) -> None:
        """Become the owner of input partitions and of summaries partitions."""
        self.join.take(inputs)
        self.monitor.take(summaries)
        self._positions = {}
        for p, part in self.join.parts.items():
            for side, topic in enumerate(INPUTS):
                end = self.world.broker.end(topic, p)
                self._positions[topic, p] = part.start(side, 0, 0, end, topic)
        for p in self.monitor.parts:
            self._positions[TOPICS.summaries, p] = self.monitor.start(p, 0, self.world.broker.end(TOPICS.summaries, p))

    @property
    def is_fenced(self) -> bool:
        """Whether it owns nothing any more."""
        return not self.join.parts and not self.monitor.parts

    def step(self) -> None:
        """A fetch of every partition that it owns, and then the timer."""
        self.world.now_ms += FETCH_MS
        empty: list[tuple[int, int, int, float]] = []
        for p in list(self.join.parts):
            for side, topic in enumerate(INPUTS):
                began_s = self._monotonic()
                if not self._input(topic, p):
                    empty.append((p, side, self._positions[topic, p], began_s))
        for p in list(self.monitor.parts):
            self._summaries(p)
        self.world.now_ms += TICK_MS
        for found in empty:
            self.join.idle(*found)
        for p in list(self.join.parts):
            self.join.advance(p)
        self.join.checkpoint(always=True)
        self.monitor.checkpoint()

    def _input(self, topic: str, partition: int) -> bool:
        """A fetch of an input → whether it found something."""
        self._fetches += 1
        batch = self._fetch(topic, partition, FETCH[self._fetches % len(FETCH)])
        if batch is None:
            return False
        seek_to = self.join.take_in(batch)
        if seek_to is not None:
            raise AssertionError(f"{topic}-{partition}: the worker asks to go back to {seek_to}")
        return True

    def _summaries(self, partition: int) -> None:
        batch = self._fetch(TOPICS.summaries, partition, 1_000)
        if batch is not None and (seek_to := self.monitor.accept(batch)) is not None:
            raise AssertionError(f"summaries-{partition}: the worker asks to go back to {seek_to}")

    def _fetch(self, topic: str, partition: int, limit: int) -> Batch | None:
        offset = self._positions[topic, partition]
        records = self.wire.call(
            "log", f"fetch {topic}-{partition}", lambda: self.world.broker.read(topic, partition, offset, limit)
        )
        if not records:
            return None
        self._positions[topic, partition] = next_offset = records[-1].offset + 1
        runs: list[tuple[int, int]] = []
        for record in records:
            same = bool(runs) and runs[-1][0] == record.at_ms
            runs[-1:] = [(record.at_ms, runs[-1][1] + 1)] if same else [*runs[-1:], (record.at_ms, 1)]
        return Batch(
            topic,
            partition,
            0,
            offset,
            next_offset,
            [record.value for record in records],
            [record.offset for record in records],
            runs,
            records[0].key,
        )

    @property
    def has_finished_the_act(self) -> bool:
        """Whether everything that it owns has been read and has had its effect, up to the act's end."""
        world = self.world
        return all(
            part.processed == [world.broker.end(topic, p) for topic in INPUTS] and part.clock_ms >= world.target_ms
            for p, part in self.join.parts.items()
        ) and all(part.monitor.watermark_ms >= world.target_ms for part in self.monitor.parts.values())


def begin(
    world: World, wire: Wire | None = None, sending: Sending = "in order", metrics: WorkerMetrics | None = None
) -> Worker:
    """A new process that owns all partitions. One that may have to rebuild their state is given its ``metrics``."""
    worker = Worker(world, wire or Wire(), sending, metrics)
    worker.take(*world.everything)
    return worker


def have_finished_the_act(workers: list[Worker]) -> bool:
    """Whether the workers together have, or none has begun yet."""
    return workers[0].world.act < 0 or all(worker.has_finished_the_act for worker in workers)


def play(workers: list[Worker], steps: int | None = None) -> None:
    """Let the workers go on in turn from where their world is, to its end or for some steps of each.

    One that has been fenced goes: nobody owns what it lost unless another of them does.
    """
    world = workers[0].world
    taken = in_act = 0
    while steps is None or taken < steps:
        if have_finished_the_act(workers):
            if world.is_over:
                return
            world.go_on()
            in_act = 0
            continue
        for worker in list(workers):
            worker.step()
        workers[:] = [worker for worker in workers if not worker.is_fenced]
        taken, in_act = taken + 1, in_act + 1
        if in_act > STEPS_BOUND:
            raise AssertionError(f"act {world.act} is not over after {STEPS_BOUND} steps")
