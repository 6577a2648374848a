"""A call to the store whose connection breaks is made again, and has its effect once."""

from __future__ import annotations

import pytest

from tests.simulation.traffic import short
from tests.simulation.verdict import Findings, Finished, findings
from tests.simulation.worker import begin, play
from tests.simulation.world import World
from tests.support.memory.wire import AnswerLost, Late, Moment, Wire


class Break:
    """Breaks the connection at the ``number``-th moment around a call to the store."""

    def __init__(self, number: int, late: int | None) -> None:
        self.number = number
        self.met = 0
        self.at: Moment | None = None
        self._late = late

    def __call__(self, moment: Moment) -> None:
        """Meet a moment."""
        if moment.peer != "store" or (self._late is not None and moment.side == "after"):
            return
        self.met += 1
        if self.met == self.number:
            self.at = moment
            raise AnswerLost("broken") if self._late is None else Late(self._late)


def problems(number: int, late: int | None, expected: Findings) -> list[str] | None:
    """What is wrong when the connection breaks at a moment; None when the run has no such moment."""
    world, breaks = World(short()), Break(number, late)
    try:
        workers = [begin(world, Wire(breaks))]
        play(workers)
    except Exception as error:  # noqa: BLE001 - whatever a worker ends with is told, and where
        return [f"{breaks.at}: {error!r}"]
    if breaks.at is None:
        return None
    return [f"{breaks.at}: {each}" for each in findings(world, workers).differences(expected)]


@pytest.mark.parametrize("late", [None, 1, 2, 3, 4])
def test_a_broken_connection_to_the_store_changes_nothing(late: int | None, short_run: Finished) -> None:
    """The request is lost, its answer is, or it reaches the store so many calls later."""
    number, found = 1, []
    while (wrong := problems(number, late, short_run.findings)) is not None:
        found += wrong
        number += 1
    assert not found, f"{len(found)} of {number}, first: {found[0]}"
    assert number > 100
