"""When no verdict on a model is given, because its outcomes do not tell how good it is, and who is told so."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import msgspec

from streams.alerts import OUTCOMES_ONE_SIDED, OUTCOMES_SLOW

ONE_SIDED, SLOW, DUMP = "one_sided", "slow", "dump"


class Withheld(msgspec.Struct, frozen=True):
    """No verdict is given: why, and since when."""

    reason: str
    since_s: int
    tainted: bool = False
    """Since the last verdict, outcomes came from one side."""

    @property
    def whole(self) -> bool:
        """Whether what detectors find is held back too: a real collapse must not hide behind a slow feed."""
        return self.reason != SLOW


@dataclass(frozen=True, slots=True)
class Doubt:
    """A line in the log: the outcomes do not tell how good the model is, or (``over``) they do again."""

    model: str
    version: str
    reason: str
    since_s: int
    over: bool


def withheld(before: Withheld | None, minute: int, names: Set[str], *, settling: bool) -> Withheld | None:
    """Whether the verdict of a minute is withheld, as that of the minute ``before`` was.

    ``names``: alerts about outcomes that are open, or whose condition holds; ``settling``: a dump goes on, or did just
    now.
    """
    reason = ONE_SIDED if OUTCOMES_ONE_SIDED in names else DUMP if settling else SLOW if OUTCOMES_SLOW in names else ""
    if before is not None and before.reason == reason:
        return before
    tainted = reason == ONE_SIDED or (before is not None and before.tainted)
    return Withheld(reason, minute * 60, tainted) if reason else None


def doubts(model: str, version: str, before: Withheld | None, now: Withheld | None) -> Iterator[Doubt]:
    """What the log says of a change."""
    if before == now:
        return
    for each, over in ((before, True), (now, False)):
        if each is not None:
            yield Doubt(model, version, each.reason, each.since_s, over)
