"""Is the challenger better than the champion? A one-sided paired test on rows that neither was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]  # ships no types

from streams.events import Baseline

MetricName = Literal["accuracy", "mae"]

ROUNDING = 1e-3
"""Share of a mean absolute error by which an export may differ: less is no gain, however surely it comes."""


class Comparison(msgspec.Struct, frozen=True):
    """Champion against challenger on the same rows.

    ``metric`` is ``accuracy`` (higher is better) or ``mae`` (lower is better); ``gain`` is positive when the
    challenger is better; ``p_value`` is one-sided: how likely such a gain is when the challenger is no better, or, of
    one among several comparisons, when no better one were among them (:func:`adjusted`). ``needed_gain`` is in the
    metric's units.
    """

    metric: MetricName
    rows: int
    champion: float
    challenger: float
    standard_error: float
    gain: float
    test: str
    p_value: float
    significance: float
    needed_gain: float = 0.0

    @property
    def better(self) -> bool:
        """Whether the challenger may replace the champion."""
        return self.gain > self.needed_gain and self.p_value < self.significance

    def describe(self) -> str:
        """One line for a person."""
        gain = f", gain {self.gain:.4g}, needed > {self.needed_gain:.4g}" if self.needed_gain else ""
        return (
            f"{self.metric} {self.challenger:.4f} against the champion's {self.champion:.4f} on {self.rows} rows "
            f"({self.test}: p = {self.p_value:.2g}, needed < {self.significance:.2g}{gain})"
        )


def baseline(metric: MetricName, errors: npt.NDArray[Any]) -> Baseline:
    """A baseline of absolute errors: 0/1 for a class (→ accuracy), |outcome − prediction| for a number (→ MAE)."""
    n = len(errors)
    mean = float(np.mean(errors))
    if metric == "accuracy":
        return Baseline(metric, 1.0 - mean, n, math.sqrt(mean * (1.0 - mean) / n))
    return Baseline(metric, mean, n, float(np.std(errors, ddof=1)) / math.sqrt(n) if n > 1 else 0.0)


def compare(
    metric: MetricName,
    champion: npt.NDArray[Any],
    challenger: npt.NDArray[Any],
    significance: float,
    minimum_gain: float = 0.0,
) -> Comparison:
    """Compare the absolute errors of both on the same rows, in the same order.

    ``minimum_gain`` is a difference of accuracies, or a share of the champion's mean absolute error.
    """
    if len(champion) != len(challenger) or len(champion) == 0:
        raise ValueError(f"errors of the same rows are needed, not {len(champion)} and {len(challenger)}")
    if metric == "accuracy":
        fixed = int(np.sum((champion != 0) & (challenger == 0)))
        broken = int(np.sum((champion == 0) & (challenger != 0)))
        test, p_value = "McNemar mid-p", mcnemar(broken, fixed)
    else:
        test, p_value = "paired t", paired_t(champion, challenger)
    old, new = baseline(metric, champion), baseline(metric, challenger)
    gain = float(np.mean(champion) - np.mean(challenger))
    needed = minimum_gain if metric == "accuracy" else max(minimum_gain, ROUNDING) * old.value
    return Comparison(
        metric, len(champion), old.value, new.value, new.standard_error, gain, test, p_value, significance, needed
    )


def surely_worse(metric: MetricName, champion: npt.NDArray[Any], challenger: npt.NDArray[Any]) -> float:
    """One-sided p-value that the challenger's absolute errors are larger: how likely it would seem so if they are
    not.
    """
    if metric == "accuracy":
        fixed, broken = (champion != 0) & (challenger == 0), (champion == 0) & (challenger != 0)
        return mcnemar(int(np.sum(fixed)), int(np.sum(broken)))
    return paired_t(challenger, champion)


def mcnemar(broken: int, fixed: int) -> float:
    """One-sided mid-p of McNemar's test: rows that only the challenger gets wrong, and only the champion.

    Fagerland, Lydersen, Laake, "The McNemar test for binary matched-pairs data" (2013): the mid-p test keeps its
    level where the asymptotic one does not, and has more power than the exact one.
    """
    n = broken + fixed
    if n == 0:
        return 1.0
    return float(stats.binom.sf(fixed, n, 0.5) + 0.5 * stats.binom.pmf(fixed, n, 0.5))


def paired_t(champion: npt.NDArray[Any], challenger: npt.NDArray[Any]) -> float:
    """One-sided p-value that the challenger's mean absolute error is lower: a test of the MAE that is published."""
    difference = np.asarray(champion, dtype=np.float64) - np.asarray(challenger, dtype=np.float64)
    if len(difference) < 2:
        return 1.0
    if float(np.ptp(difference)) == 0.0:
        return 0.0 if difference[0] > 0 else 1.0
    return float(stats.ttest_1samp(difference, 0.0, alternative="greater").pvalue)


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p-values that may be told apart by one significance, however many they are."""
    p_values = hommel([each.p_value for each in comparisons])
    return [msgspec.structs.replace(each, p_value=p) for each, p in zip(comparisons, p_values, strict=True)]


def hommel(p_values: Sequence[float]) -> list[float]:
    """Hommel's adjusted p-values: the largest of Simes' of all sets of hypotheses that one belongs to.

    Hommel, "A stagewise rejective multiple test procedure based on a modified Bonferroni test" (1988); the algorithm is
    that of Wright, "Adjusted p-values for simultaneous inference" (1992). Valid for tests that are positively
    dependent, as those of several challengers against one champion on the same rows are. Where all of them agree it
    needs no more than one test does, where Bonferroni's divides the significance by their number.
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    ordered = np.asarray(p_values, dtype=np.float64)[order]
    found = np.full(n, np.min(n * ordered / np.arange(1, n + 1), initial=1.0))
    for size in range(n - 1, 1, -1):
        few, many = ordered[: n - size + 1], ordered[n - size + 1 :]
        simes = np.min(size * many / np.arange(2, size + 1))
        of_size = np.minimum(size * few, simes)
        found[: len(few)] = np.maximum(found[: len(few)], of_size)
        found[len(few) :] = np.maximum(found[len(few) :], of_size[-1])
    result = np.empty(n)
    result[order] = np.maximum(found, ordered)
    return [float(p) for p in result]
