"""Cuts a run before and after every call, and lets a new owner go on with what survived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.case import Case, played, tried
from tests.simulation.verdict import Findings
from tests.simulation.worker import begin, play
from tests.simulation.world import World
from tests.support.memory.log import Sending
from tests.support.memory.wire import Moment, Wire


@dataclass(frozen=True, slots=True)
class Survived:
    """The world as a crash at each of ``moments`` leaves it: nothing in the log or the store changes between them."""

    world: World
    moments: list[Moment]

    def __str__(self) -> str:
        first = self.moments[0]
        return f"act {self.world.act}, {first.side} call {first.number} ({first.name})"


class Recorder:
    """Keeps the world at each moment of a run at which it is another; at most the first ``limit`` of them.

    A process keeps nothing that survives it, so that a copy of the broker and the store is what a crash leaves.
    """

    def __init__(self, world: World, limit: int | None = None) -> None:
        self.survived: list[Survived] = []
        self._world = world
        self._limit = limit
        self._seen: tuple[int, int] | None = None

    def __call__(self, moment: Moment) -> None:
        """Meet a moment."""
        changes = self._world.changes
        if changes == self._seen:
            self.survived[-1].moments.append(moment)
        elif self._limit is None or len(self.survived) < self._limit:
            self._seen = changes
            self.survived.append(Survived(self._world.copy(), [moment]))


def _survived(world: World, sending: Sending, limit: int | None = None) -> list[Survived]:
    recorder = Recorder(world, limit)
    play([begin(world, Wire(recorder), sending)])
    return recorder.survived


def _case(survived: Survived, sending: Sending, expected: Findings, before: str = "") -> Case:
    world = survived.world.copy()
    return tried(
        lambda: f"{before}{survived}",
        len(survived.moments),
        world,
        lambda: played([begin(world, sending=sending)]),
        expected,
    )


def crashes(world: World, sending: Sending, expected: Findings) -> Iterator[Case]:
    """A crash at every moment of a run."""
    for survived in _survived(world, sending):
        yield _case(survived, sending, expected)


def second_crashes(world: World, sending: Sending, expected: Findings, limit: int) -> Iterator[Case]:
    """A crash at every moment of a run, and another at the moments of the recovery that leave ``limit`` worlds."""
    for first in _survived(world, sending):
        for second in _survived(first.world.copy(), sending, limit):
            yield _case(second, sending, expected, f"{first}, then ")
