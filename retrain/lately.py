"""Which newest rows speak for a rival of the champion, and the gate that none speak against it.

A run that knows of no change, or of an old one, tests on rows of more than one concept. Whoever knows the older one, an
archived version above all, may win on all of them and be wrong from the first answer on; whoever knows the newer one
loses on most of them. So newest stretches count on their own, for and against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from retrain.comparison import Comparison, MetricName, adjusted, compare, surely_worse
from retrain.training import Refused

Errors = npt.NDArray[np.float64]
SHORTEST = 100
"""Rows. Errors come in clusters: on 50 rows of Elec2 whoever is better on 500 may be four times as often wrong."""
ALIKE = 3.0
"""Standard errors by which the error on a stretch may differ from that on the rows before it."""
SIGNIFICANCE = 0.01
"""Of all stretches together (Bonferroni)."""


def stretches(rows: int) -> Iterator[int]:
    """The newest 100, 200, 400 of so many rows, and so on up to half of them."""
    length = SHORTEST
    while 2 * length <= rows:
        yield length
        length *= 2


def judged(
    champion: Errors, rivals: Sequence[Errors], metric: MetricName, significance: float, minimum_gain: float
) -> list[Comparison]:
    """Each rival against the champion, on all of its rows or on that newest stretch which speaks most for it.

    Errors are absolute ones, oldest first, of the champion's newest rows. All comparisons of all rivals share the
    significance.
    """
    tried = [
        (number, compare(metric, champion[-length:], errors[-length:], significance, minimum_gain))
        for number, errors in enumerate(rivals)
        for length in (len(errors), *stretches(len(errors)))
    ]
    weighed = adjusted([each for _, each in tried])
    found: list[list[Comparison]] = [[] for _ in rivals]
    for (number, _), each in zip(tried, weighed, strict=True):
        found[number].append(each)
    return [min(some, key=lambda each: (not each.better, each.p_value, -each.rows)) for some in found]


def telling(errors: Errors, chosen_by: int) -> Errors:
    """Those of a rival's errors, oldest first, that tell what it achieves: all, or the newest ``chosen_by`` only if it
    does otherwise there than before.

    It was chosen because it did well on that stretch, so the stretch flatters it: of 100 rows by two standard errors.
    """
    newest, before = errors[-chosen_by:], errors[:-chosen_by]
    if not len(before):
        return errors
    spread = float(np.sqrt(np.var(newest) / len(newest) + np.var(before) / len(before)))
    return errors if abs(float(np.mean(newest) - np.mean(before))) <= ALIKE * spread else newest


def require_no_worse_lately(champion: Errors, challenger: Errors, metric: MetricName) -> None:
    """Raise :class:`Refused` if the challenger surely does worse on a newest stretch of the rows, oldest first."""
    lengths = list(stretches(len(challenger)))
    for length in lengths:
        old, new = champion[-length:], challenger[-length:]
        p_value = surely_worse(metric, old, new)
        if p_value < SIGNIFICANCE / len(lengths):
            what = "share wrong" if metric == "accuracy" else "mean error"
            raise Refused(
                f"it does worse on the newest {length:,} rows: {what} {float(np.mean(new)):.4f}, champion"
                f" {float(np.mean(old)):.4f} (p = {p_value:.2g})"
            )
