"""Everything that one simulated process asks of its broker and store passes here, call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant around one call: before the other side has done anything, or after, the answer still on its way.

    ``number`` counts the calls of the process from 1; ``name`` says what it asked, for people.
    """

    number: int
    side: Literal["before", "after"]
    peer: Literal["log", "store"]
    name: str


class SimulatedCrash(BaseException):
    """The process is gone: nothing that it does after this is seen by anyone. No code of ours may catch it."""


class AnswerLost(Exception):
    """The connection broke: before, the request never came; after, it had its effect and nobody says so."""


class Late(AnswerLost):
    """The connection broke, and the request reaches the other side only before the ``calls``-th call after it."""

    def __init__(self, calls: int) -> None:
        super().__init__(f"{calls} calls late")
        self.calls = calls


def undisturbed(_: Moment) -> None:
    """Let every call through."""


class Wire:
    """Counts the calls of one process and tells ``meet`` of the moments around each.

    ``meet`` may raise :class:`SimulatedCrash`, after which the process is dead and reaches nobody any more;
    :class:`AnswerLost`, which the store's client sees as a broken connection; or let another process run meanwhile.
    """

    def __init__(self, meet: Callable[[Moment], None] = undisturbed) -> None:
        self.calls = 0
        self.dead = False
        self._meet = meet
        self._late: dict[int, Callable[[], object]] = {}

    def call(self, peer: Literal["log", "store"], name: str, action: Callable[[], T]) -> T:
        """Let the other side do something, and give its answer."""
        if self.dead:
            raise SimulatedCrash(f"{name}: the process is gone")
        self.calls += 1
        number = self.calls
        if (late := self._late.pop(number, None)) is not None:
            late()
        try:
            self._meet(Moment(number, "before", peer, name))
            answer = action()
            self._meet(Moment(number, "after", peer, name))
        except SimulatedCrash:
            self.dead = True
            raise
        except Late as delayed:
            self._late[number + delayed.calls] = action
            raise
        return answer
