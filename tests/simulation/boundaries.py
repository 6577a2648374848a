"""Every instant around every call of a run, and what of the world had survived there."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.world import World
from tests.support.memory.wire import Moment


@dataclass(frozen=True, slots=True)
class Survived:
    """The world as a crash at ``moments`` leaves it: between them nothing in the log or the store has changed.

    A process holds nothing that survives it, so that whoever starts then finds the same after each of them.
    """

    world: World
    moments: list[Moment]

    def __str__(self) -> str:
        first = self.moments[0]
        return f"act {self.world.act}, {first.side} call {first.number} ({first.name})"


class Recorder:
    """Keeps the world at each moment of a run at which it is another; at most the first ``limit`` of them."""

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

    @property
    def moments(self) -> int:
        """How many moments were met."""
        return sum(len(each.moments) for each in self.survived)
