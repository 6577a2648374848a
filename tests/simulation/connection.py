"""Breaks the connection to the store in every call of a run; the worker itself goes on."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.case import Case, played, tried
from tests.simulation.traffic import Act
from tests.simulation.verdict import Findings
from tests.simulation.worker import begin
from tests.simulation.world import World
from tests.support.memory.wire import AnswerLost, Late, Moment, Wire


class Break:
    """Breaks the connection at the ``number``-th moment around a call to the store.

    The request is lost before the call, its answer after it; with ``late`` the request reaches the store so many calls
    later, as one does that a server finds in the buffer of a connection that its client has given up.
    """

    def __init__(self, number: int, late: int | None) -> None:
        self.at: Moment | None = None
        self._number = number
        self._met = 0
        self._late = late

    def __call__(self, moment: Moment) -> None:
        """Meet a moment."""
        if moment.peer != "store" or (self._late is not None and moment.side == "after"):
            return
        self._met += 1
        if self._met == self._number:
            self.at = moment
            raise AnswerLost("broken") if self._late is None else Late(self._late)


def broken_connections(acts: tuple[Act, ...], late: int | None, expected: Findings) -> Iterator[Case]:
    """One run for every moment around a call to the store."""
    number = 1
    while (case := _broken(acts, number, late, expected)) is not None:
        yield case
        number += 1


def _broken(acts: tuple[Act, ...], number: int, late: int | None, expected: Findings) -> Case | None:
    """The run in which the ``number``-th moment is met, or None if there are fewer."""
    world, breaks = World(acts), Break(number, late)
    case = tried(lambda: str(breaks.at), 1, world, lambda: played([begin(world, Wire(breaks))]), expected)
    return None if breaks.at is None else case
