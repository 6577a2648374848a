"""Whether outcomes come for every predicted class alike: of mature cohorts, and of what arrives just now.

A feed that brings the outcomes of one class only makes an accuracy of that class, which nobody asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from detectors.cohorts import Count

LEAST_PREDICTIONS = 10
"""Of the class whose outcomes are missed, in mature cohorts."""
LEAST_Z = 4.0
"""Standard errors between two labelled shares: once in 30,000 looks by chance."""
LEAST_OUTCOMES = 20
"""That arrived, whose classes are compared with those that were predicted."""
LEAST_NATS = 12.0
"""Of log likelihood: by Chernoff's bound once in 160,000 looks by chance, however rare the class is."""
LEAST_RATIO = 0.25
"""What arrives is never mature: only a class that comes at less than a quarter of the others' rate is missed."""
SUSPECT_NATS = math.log(100)
"""Of log likelihood, before a detection waits. The outcomes of one of two classes say that they are of one class at
least as fast as their errors say that something changed: n of them, of a class with share p, tell n ln(1/p) nats of
their class, and of an error rate that was p·e among all at most as much. No detector pages with less than this.
"""
SUSPECT_RATIO = 0.5
"""Looser than :data:`LEAST_RATIO`: an estimated change point may lie before the last outcomes of the other class."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A predicted class whose outcomes do not come as those of the others do.

    ``share`` and ``others`` are labelled shares of mature predictions; if not ``mature``, outcomes over those that were
    to be expected. ``n`` predictions of the class were looked at, or so many outcomes of all.
    """

    label: str
    share: float
    others: float
    n: int
    mature: bool


class Arriving(NamedTuple):
    """Of one predicted class: outcomes that arrived, and how many of all that did its predictions let expect."""

    outcomes: int = 0
    expected: float = 0.0

    def plus(self, other: "Arriving") -> "Arriving":
        return Arriving(self.outcomes + other.outcomes, self.expected + other.expected)


def of_cohorts(counts: Mapping[str, Count], least: float) -> Lacking | None:
    """The class whose labelled share lies by `least` of the others' share (0 to 1), or more, below it; else None.

    A test of two proportions, so that few predictions say nothing. Of several the one that is surest.
    """
    known = {label: count for label, count in counts.items() if count.predictions}
    total = sum(count.predictions for count in known.values())
    labelled = sum(min(count.outcomes, count.predictions) for count in known.values())
    worst: tuple[float, Lacking] | None = None
    for label, count in sorted(known.items()):
        n, rest = count.predictions, total - count.predictions
        if n < LEAST_PREDICTIONS or not rest:
            continue
        own = min(count.outcomes, n)
        share, others = own / n, (labelled - own) / rest
        pooled = labelled / total
        error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / rest))
        if error <= 0.0 or share > (1.0 - least) * others:
            continue
        z = (others - share) / error
        if z >= LEAST_Z and (worst is None or z > worst[0]):
            worst = z, Lacking(label, share, others, n, True)
    return None if worst is None else worst[1]


def of_arrivals(arrived: Mapping[str, Arriving]) -> Lacking | None:
    """The class of which much less arrives than the predictions behind what arrives let expect; else None."""
    n = sum(each.outcomes for each in arrived.values())
    if n < LEAST_OUTCOMES:
        return None
    worst: tuple[float, Lacking] | None = None
    for label, each in sorted(arrived.items()):
        expected, found = each.expected / n, each.outcomes / n
        if not 0.0 < expected < 1.0 or found >= expected:
            continue
        share, others = found / expected, (1.0 - found) / (1.0 - expected)
        nats = n * _divergence(found, expected)
        if share < LEAST_RATIO * others and nats >= LEAST_NATS and (worst is None or nats > worst[0]):
            worst = nats, Lacking(label, share, others, n, False)
    return None if worst is None else worst[1]


def suspect(n: int, found: int, expected: float) -> bool:
    """Whether one of two classes may have stopped coming: of n outcomes `found` are of one, and `expected` (above 0,
    below n) were to be.
    """
    ratios = found / expected, (n - found) / (n - expected)
    nats = n * _divergence(found / n, expected / n)
    return nats >= SUSPECT_NATS and min(ratios) < SUSPECT_RATIO * max(ratios)


def telling(n: int, expected: float) -> bool:
    """Whether n outcomes, of which `expected` (above 0, below n) are to be of one of two classes, are so many that
    :func:`suspect` would say so if either did not come.
    """
    return -n * math.log(max(expected, n - expected) / n) >= SUSPECT_NATS


def _divergence(found: float, expected: float) -> float:
    """Kullback and Leibler's, of two shares."""
    parts = ((found, expected), (1.0 - found, 1.0 - expected))
    return sum(share * math.log(share / of) for share, of in parts if share > 0.0)
