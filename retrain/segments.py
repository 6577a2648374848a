"""Metrics by the events' own ``segment``, and the gate that no segment may lose more than allowed.

A challenger that is better on the whole may be worse for some. What a small segment loses may be chance, so a loss
counts when a paired test says that it is one: of few rows an exact one, which holds for any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]  # ships no types

from retrain.comparison import MetricName, surely_worse
from retrain.training import Refused

Errors = npt.NDArray[np.float64]
MINIMUM_ROWS = 10
"""Of a segment: of fewer its errors say nothing, and are not told."""
EXACT_ROWS = 50
"""Of a segment: with fewer its test is an exact one."""
SIGNIFICANCE = 0.05
"""Of all segments together (Bonferroni): one that is worse for none of them is refused once in twenty times at most."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of one segment: their share wrong by each model, or their mean absolute error. ``p_value`` is one-sided: how
    likely such a loss is when the challenger is no worse there; ``gain_p_value`` is that of a gain.
    """

    name: str
    rows: int
    champion: float
    challenger: float
    p_value: float
    gain_p_value: float

    def loss(self, metric: MetricName) -> float:
        """What it loses: a difference of accuracies, or a share of the champion's mean absolute error."""
        lost = self.challenger - self.champion
        return lost if metric == "accuracy" else lost / max(self.champion, 1e-12)


def segments_of(names: Sequence[str], champion: Errors, challenger: Errors, metric: MetricName) -> list[Segment]:
    """Every segment with enough rows, by name. Errors are of the same rows in the same order; a row without a segment
    has the name "". No names at all are rows of which none has one.
    """
    if not names:
        return []
    if not len(names) == len(champion) == len(challenger):
        raise ValueError(f"{len(names)} names for {len(champion)} and {len(challenger)} errors")
    found = []
    column = np.asarray(names)
    for name, rows in zip(*np.unique(column, return_counts=True), strict=True):
        if not name or rows < MINIMUM_ROWS:
            continue
        here = column == name
        old, new = champion[here], challenger[here]
        lost, gained = _p_value(metric, old, new), _p_value(metric, new, old)
        found.append(Segment(str(name), int(rows), float(np.mean(old)), float(np.mean(new)), lost, gained))
    return found


def _p_value(metric: MetricName, one: Errors, other: Errors) -> float:
    """One-sided, that the other's errors are larger. Of few rows by the sign test of those on which they differ, which
    of classes is McNemar's exact test: neither mid-p nor Student's t is sure to keep its level on ten rows.
    """
    if len(one) >= EXACT_ROWS:
        return surely_worse(metric, one, other)
    larger, smaller = int(np.sum(other > one)), int(np.sum(other < one))
    return float(stats.binom.sf(larger - 1, larger + smaller, 0.5))


def require_no_loser(segments: Sequence[Segment], metric: MetricName, allowed: float) -> None:
    """Raise :class:`Refused`, naming each segment that loses more than ``allowed``, and surely loses."""
    reasons = [
        f"{each.name} loses {each.loss(metric):.3f} on {each.rows} rows (p = {each.p_value:.2g}), at most {allowed:g}"
        " is allowed"
        for each in segments
        if each.loss(metric) > allowed and each.p_value < SIGNIFICANCE / len(segments)
    ]
    if reasons:
        raise Refused("it treats segments worse than allowed: " + "; ".join(reasons))
