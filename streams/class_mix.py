"""Whether the outcomes of the champion's two classes come as they were predicted: also while a minute goes on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.cohorts import HOUR_MINUTES
from detectors.four_rates import OTHER, PREDICTED, Codes
from detectors.one_sided import LEAST_OUTCOMES, suspect, telling
from streams.arriving import ArrivingState

Ints = NDArray[np.int64]


class Mix(NamedTuple):
    """Outcomes, those of them that were predicted to be positive, and of how many that was to be expected."""

    n: int = 0
    positive: int = 0
    expected: float = 0.0

    @property
    def share(self) -> float:
        """Of the outcomes, those that are to be expected of the positive class: above 0 and below 1."""
        return (self.expected + 0.5) / (self.n + 1.0)

    def plus(self, other: Mix) -> Mix:
        """Both together."""
        return Mix(self.n + other.n, self.positive + other.positive, self.expected + other.expected)


class ClassMix:
    """What arrives of a model with two classes. ``state`` is all of it; whole minutes are counted there by others.

    What a minute that goes on lets expect is what the hour before it did: which predictions its outcomes belong to is
    known when it is over. Every answer is about a stretch that ends with a second, wherever records have been cut.
    """

    def __init__(self, state: ArrivingState) -> None:
        self.state = state

    def take(self, seconds: Ints, codes: Codes | None) -> None:
        """Count outcomes in the order of their ``seconds``, with the codes of :mod:`detectors.four_rates`."""
        if codes is None:
            return
        counted, known = self.state.seconds, codes < OTHER
        positive = known & (codes & PREDICTED != 0)
        starts = [0] if seconds[0] == seconds[-1] else [0, *(1 + np.flatnonzero(seconds[1:] != seconds[:-1])).tolist()]
        for start, end in pairwise([*starts, len(seconds)]):
            if n := int(np.count_nonzero(known[start:end])):
                before = counted.get(at_s := int(seconds[start]), (0, 0))
                counted[at_s] = before[0] + n, before[1] + int(np.count_nonzero(positive[start:end]))
        oldest = (int(seconds[-1]) // 60 - 1) * 60
        for old in [second for second in counted if second < oldest]:
            del counted[old]

    def doubtful(self, since_s: int, second: int, positive: str) -> bool:
        """Whether what came from ``since_s`` up to a ``second`` of the newest minute is of a mix of classes that the
        predictions do not let expect, so that one of the two may not come any more.

        ``positive`` is the spelling of the positive class. Never so where there are more classes than two, or none.
        """
        minute = second // 60
        usual = self._whole(range(minute - HOUR_MINUTES, minute), positive)
        if usual is None or usual.n < LEAST_OUTCOMES:
            return False
        share = usual.share
        begin_s = max(since_s, 60 * (minute - 1))
        before = self._whole(range(max(since_s // 60 + 1, minute - HOUR_MINUTES), minute - 1), positive) or Mix()
        total = _expecting(before.n, before.positive, before, share)
        for at_s, (n, found) in sorted(self.state.seconds.items()):
            if begin_s <= at_s <= second:
                total = total.plus(_expecting(n, found, self._whole([at_s // 60], positive) or Mix(), share))
        return total.n > 0 and suspect(*total)

    def alike(self, first: int, minute: int, positive: str) -> bool:
        """Whether what has come in the minutes from ``first`` to the last one that is over is as was predicted, and so
        much that it would show if it were not: by the mix of the hour before, as one class may not be predicted now.
        """
        known, usual = (
            self._whole(each, positive) for each in (range(first, minute + 1), range(first - HOUR_MINUTES, first))
        )
        if known is None or usual is None or not known.n:
            return False
        expecting = _expecting(known.n, known.positive, known, usual.share)
        return telling(known.n, known.n * usual.share) and not suspect(*expecting)

    def _whole(self, minutes: Iterable[int], positive: str) -> Mix | None:
        """The outcomes of minutes that are over; None if they are not of two classes."""
        classes = self.state.classes
        labels = {label for of_class in classes.values() for label in of_class}
        if not positive or len(labels - {positive}) > 1:
            return None
        total = Mix()
        for known in (classes[minute] for minute in minutes if minute in classes):
            n, expected = sum(each.outcomes for each in known.values()), sum(each.expected for each in known.values())
            if expected > 0.0 and positive in known:
                total = total.plus(Mix(n, known[positive].outcomes, n * known[positive].expected / expected))
            else:
                total = total.plus(Mix(n))
        return total


def _expecting(n: int, positive: int, known: Mix, share: float) -> Mix:
    """n outcomes with what is expected of them: what is of those that are ``known``, or a ``share`` if they are few."""
    return Mix(n, positive, n * (known.expected + share) / (known.n + 1.0))
