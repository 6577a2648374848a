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
    """Since the last verdict, outcomes came from one side: not only seemed to."""

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


def withheld(
    before: Withheld | None, minute: int, names: Set[str], *, settling: bool, doubtful: bool = False
) -> Withheld | None:
    """Whether the verdict of a minute is withheld, as that of the minute ``before`` was.

    ``names``: alerts about outcomes that are open, or whose condition holds; ``settling``: a dump goes on, or did just
    now; ``doubtful``: outcomes seem to be of one side, too few as yet for an alert.
    """
    one_sided = OUTCOMES_ONE_SIDED in names
    if one_sided or (doubtful and not settling):
        reason = ONE_SIDED
    else:
        reason = DUMP if settling else SLOW if OUTCOMES_SLOW in names else ""
    if not reason:
        return None
    since_s = before.since_s if before is not None and before.reason == reason else minute * 60
    return Withheld(reason, since_s, one_sided or (before is not None and before.tainted))


def doubts(model: str, version: str, before: Withheld | None, now: Withheld | None) -> Iterator[Doubt]:
    """What the log says of a change."""
    if before is not None and now is not None and (before.reason, before.since_s) == (now.reason, now.since_s):
        return
    for each, over in ((before, True), (now, False)):
        if each is not None:
            yield Doubt(model, version, each.reason, each.since_s, over)
