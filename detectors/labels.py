"""Whether outcomes come as they used to: the labelled share of the last hour beside that of the hours before.

A version whose outcomes come in a nightly dump has hours with none: it is compared with its worst hour, so it is never
called slow. Times are stream time; a share is outcomes that arrived over predictions that arrived, and may be above 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

HISTORY_HOURS = 24
LEAST_HOURS = 6
"""Hours with predictions, before the last one, that tell what is usual."""
LEAST_EXPECTED = 100.0
"""Outcomes that the last hour should have brought before it can be said that they are missing."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What arrived in an hour of one version."""

    predictions: int = 0
    outcomes: int = 0
    slow: bool = False
    """It was said in it that outcomes are slow: it is no usual hour."""

    def plus(self, predictions: int, outcomes: int) -> "Hour":
        return replace(self, predictions=self.predictions + predictions, outcomes=self.outcomes + outcomes)


@dataclass(frozen=True, slots=True)
class Labelling:
    """The last hour's labelled share, and the lowest of a usual hour."""

    share: float
    usual: float
    hours: int

    def slow(self, least: float) -> bool:
        """Whether less than `least` of what is usual comes."""
        return self.share < least * self.usual

    def steady(self, least: float) -> bool:
        """Whether it has come half-way back to what is usual: what heals."""
        return self.share >= (1 + least) / 2 * self.usual


def labelling(recent: Hour, history: Mapping[int, Hour], hour: int) -> Labelling | None:
    """`recent`: the last 60 minutes; `history` by hour, of which those before the last full hour's begin count.

    Slow hours do not, or a feed that was blocked would be usual for a day; with hardly any others they do, so that what
    is slow for a day becomes usual. None if too little is known: few hours, or too few outcomes to be expected.
    """
    hours = [history[each] for each in range(hour - HISTORY_HOURS, hour - 1) if each in history]
    usual_hours = [each for each in hours if each.predictions and not each.slow]
    if len(usual_hours) < LEAST_HOURS:
        usual_hours = [each for each in hours if each.predictions]
    known = [each.outcomes / each.predictions for each in usual_hours]
    if len(known) < LEAST_HOURS or not recent.predictions:
        return None
    usual = min(known)
    if usual * recent.predictions < LEAST_EXPECTED:
        return None
    return Labelling(recent.outcomes / recent.predictions, usual, len(known))
