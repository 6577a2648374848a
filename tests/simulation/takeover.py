"""Suspends a worker in every call of a run while another one takes its partitions; then both go on."""

from __future__ import annotations

from collections.abc import Iterator

from streams.errors import RestartMe
from tests.simulation.case import Case, tried
from tests.simulation.traffic import Act
from tests.simulation.verdict import Findings
from tests.simulation.worker import STEPS_BOUND, Worker, begin, play
from tests.simulation.world import World
from tests.support.memory.log import Sending
from tests.support.memory.wire import Moment, SimulatedCrash, Wire

Takes = tuple[list[int], list[int]]
"""Partitions of the inputs, and of the summaries."""


class Suspend:
    """Suspends a worker before its ``number``-th call: another one takes over and makes some steps meanwhile.

    After one call is before the next: a worker that computes in between shows that to nobody.
    """

    def __init__(self, world: World, number: int, takes: Takes, steps: int | None, sending: Sending) -> None:
        self.at: Moment | None = None
        self.successors: list[Worker] = []
        self._number = number
        self._world = world
        self._takes = takes
        self._steps = steps
        self._sending: Sending = sending

    def __call__(self, moment: Moment) -> None:
        """Meet a moment."""
        if moment.side == "after" or moment.number != self._number:
            return
        self.at = moment
        successor = Worker(self._world, Wire(), self._sending)
        successor.take(*self._takes)
        self.successors.append(successor)
        play(list(self.successors), self._steps)


def takeovers(
    acts: tuple[Act, ...], takes: Takes | None, steps: int | None, sending: Sending, expected: Findings
) -> Iterator[Case]:
    """One run for every call.

    ``takes``: all partitions unless some are given; ``steps``: how far the successor comes before the other one wakes,
    None is to the end.
    """
    number = 1
    while (case := _taken(acts, number, takes, steps, sending, expected)) is not None:
        yield case
        number += 1


def abandoned_takeovers(acts: tuple[Act, ...], expected: Findings) -> Iterator[Case]:
    """Between any two steps of a worker another one begins to take over, and dies before any call of that."""
    steps = 0
    while True:
        call, case = 1, None
        while (found := _abandoned(acts, steps, call, expected)) is not None:
            yield (case := found)
            call += 1
        if case is None:
            return
        steps += 1


def _abandoned(acts: tuple[Act, ...], steps: int, call: int, expected: Findings) -> Case | None:
    """The run in which the takeover dies before its ``call``-th call, or None if it has no such call or step."""
    world = World(acts)
    workers = [begin(world)]
    for _ in range(steps):
        if not _go_on(workers):
            return None

    def cut(moment: Moment) -> None:
        if (moment.number, moment.side) == (call, "before"):
            raise SimulatedCrash(moment.name)

    try:
        begin(world, Wire(cut))
    except SimulatedCrash as crash:
        place = f"after {steps} steps, a takeover dies before {crash}"
        return tried(lambda: place, 1, world, lambda: _supervised(world, workers), expected)
    return None


def late_records(acts: tuple[Act, ...], steps: int, expected: Findings) -> Iterator[Case]:
    """A crash before every call, whose queued records reach the broker only when a successor has made some steps."""
    number = 1
    while (case := _late(acts, number, steps, expected)) is not None:
        yield case
        number += 1


def _late(acts: tuple[Act, ...], number: int, steps: int, expected: Findings) -> Case | None:
    """The run that is cut before the ``number``-th call, or None if there are fewer."""
    world = World(acts)

    def cut(moment: Moment) -> None:
        if (moment.number, moment.side) == (number, "before"):
            raise SimulatedCrash(moment.name)

    def go_on() -> list[Worker]:
        successors = [begin(world)]
        play(successors, steps)
        if dead is not None:
            dead.publisher.still_in_flight()
        play(successors)
        return _supervised(world, [begin(world)])

    dead: Worker | None = None
    try:
        dead = Worker(world, Wire(cut))
        dead.take(*world.everything)
        play([dead])
    except SimulatedCrash as crash:
        place = f"before call {number} ({crash}), the queue arrives {steps} steps later"
        return tried(lambda: place, 1, world, go_on, expected)
    return None


def _taken(
    acts: tuple[Act, ...], number: int, takes: Takes | None, steps: int | None, sending: Sending, expected: Findings
) -> Case | None:
    """The run in which the worker is suspended before its ``number``-th call, or None if there are fewer."""
    world = World(acts)
    suspend = Suspend(world, number, takes or world.everything, steps, sending)
    case = tried(lambda: str(suspend.at), 1, world, lambda: _run(world, suspend, sending), expected)
    return None if suspend.at is None else case


def _run(world: World, suspend: Suspend, sending: Sending) -> list[Worker]:
    workers: list[Worker] = []
    try:
        workers = [begin(world, Wire(suspend), sending)]
        while suspend.at is None and _go_on(workers):
            continue
    except RestartMe:
        workers = []  # the suspended worker saw that it was overtaken, and has ended
    _supervised(world, [*workers, *suspend.successors])
    return _supervised(world, [begin(world)])  # a third owner finds what the others left in the store


def _supervised(world: World, workers: list[Worker]) -> list[Worker]:
    """Let the workers go on to the world's end → those that own it then.

    While a partition is nobody's, because the worker that took it has ended, the group is made anew.
    """
    for _ in range(STEPS_BOUND * len(world.acts)):
        inputs = {p for worker in workers for p in worker.join.parts}
        summaries = {p for worker in workers for p in worker.monitor.parts}
        if (inputs, summaries) != tuple(map(set, world.everything)):
            workers = [begin(world)]
        if not _go_on(workers):
            return workers
    raise AssertionError(f"act {world.act} does not end")


def _go_on(workers: list[Worker]) -> bool:
    """One more step of the workers → whether there was one to make."""
    world = workers[0].world
    was = world.act, world.now_ms
    play(workers, 1)
    return (world.act, world.now_ms) != was
