"""What became of predictions by when they were made: how many have their outcome, by predicted class, and how right.

A cohort is what was predicted in a minute, hour or day of stream time (the broker's). Nothing that came before a
cohort's predictions were counted is counted either, so a share is of whole cohorts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HOUR_MINUTES = 60
DAY_MINUTES = 1_440
MAX_CLASSES = 20
"""Predicted classes that are told apart; more of them are one."""
OTHER = "(other)"
ALL = ""
"""The class of a prediction that has none: of a regression."""


class Tier(NamedTuple):
    """Cohorts of one size, and how long they are kept."""

    minutes: int
    kept_minutes: int


TIERS = (Tier(1, 180), Tier(HOUR_MINUTES, 4 * DAY_MINUTES), Tier(DAY_MINUTES, 62 * DAY_MINUTES))
LEAST_MIX = 30
"""Predictions of a cohort whose classes are taken for those of its own; of fewer, the next larger cohort's."""


class Count(NamedTuple):
    """Of one predicted class; ``loss`` are the wrong ones of ``outcomes``, of a regression the sum of their |e|."""

    predictions: int = 0
    outcomes: int = 0
    loss: float = 0.0

    def plus(self, other: "Count") -> "Count":
        return Count(self.predictions + other.predictions, self.outcomes + other.outcomes, self.loss + other.loss)

    @property
    def share(self) -> float | None:
        """The labelled share; None without predictions."""
        return min(1.0, self.outcomes / self.predictions) if self.predictions else None


Counts = dict[str, Count]
Tiers = list[dict[int, Counts]]


def rounded(cohorts: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.int64]:
    """The minutes of predictions as coarse as :class:`Cohorts` tells those apart that are so old at minute ``now``.

    Thousands of pairs of the same day then are a few counts.
    """
    age = now - cohorts
    for (_, kept), (larger, _) in pairwise(TIERS):
        cohorts = np.where(age >= kept, cohorts - cohorts % larger, cohorts)
    return cohorts


@dataclass(frozen=True, slots=True)
class Mature:
    """The newest cohorts of which nearly all outcomes have come that will: those of minutes ``first`` to ``end``."""

    first: int
    end: int
    counts: Mapping[str, Count]

    @property
    def total(self) -> Count:
        """All classes."""
        total = Count()
        for _, each in sorted(self.counts.items()):
            total = total.plus(each)
        return total


class Cohorts:
    """The cohorts of one version. ``tiers`` is all of the state, ``since`` the minute from which on it is counted."""

    def __init__(self, tiers: Tiers | None = None, since: int = -1) -> None:
        self.tiers: Tiers = tiers if tiers else [{} for _ in TIERS]
        self.since = since

    def advance(self, now: int) -> None:
        """Minute ``now`` is counted next: let go of what is too old for it."""
        if self.since < 0:
            self.since = now
        for tier, cohorts in zip(TIERS, self.tiers, strict=True):
            first = _first(tier, now)
            for old in [number for number in cohorts if number < first]:
                del cohorts[old]

    def add(self, now: int, cohort: int, label: str, count: Count) -> None:
        """Count predictions of minute ``cohort``, or outcomes of such, that arrived in minute ``now``."""
        for tier, cohorts in zip(TIERS, self.tiers, strict=True):
            number = cohort // tier.minutes
            if cohort < self.since - self.since % tier.minutes or number < _first(tier, now):
                continue
            counts = cohorts.setdefault(number, {})
            known = label if label in counts or len(counts) < MAX_CLASSES else OTHER
            counts[known] = counts.get(known, Count()).plus(count)

    def mix(self, cohort: int) -> Counts | None:
        """The counts of the smallest cohort around a minute that tells its classes; None if none is known."""
        found = None
        for tier, cohorts in zip(TIERS, self.tiers, strict=True):
            counts = cohorts.get(cohort // tier.minutes)
            if counts is None or cohort < self.since - self.since % tier.minutes:
                continue
            found = counts
            if sum(each.predictions for each in counts.values()) >= LEAST_MIX:
                break
        return found

    def mature(self, now: int, delay_minutes: int, span_minutes: int) -> Mature | None:
        """The last ``span_minutes`` of cohorts that are older than a delay when minute ``now`` is over.

        From the smallest cohorts that reach back so far, whole ones only: a span below their size is none. None if
        nothing of it is known.
        """
        for tier, cohorts in zip(TIERS, self.tiers, strict=True):
            end = now + 1 - delay_minutes
            end -= end % tier.minutes
            first = end - span_minutes
            if span_minutes % tier.minutes or first // tier.minutes < _first(tier, now):
                continue
            first = max(first, self.since + -self.since % tier.minutes)
            if first >= end:
                continue
            counts: Counts = {}
            for number in range(first // tier.minutes, end // tier.minutes):
                for label, count in cohorts.get(number, {}).items():
                    counts[label] = counts.get(label, Count()).plus(count)
            return Mature(first, end, counts)
        return None


def _first(tier: Tier, now: int) -> int:
    """The oldest cohort of a tier that is kept in minute ``now``."""
    return (now - tier.kept_minutes) // tier.minutes + 1
