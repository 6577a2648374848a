"""A champion that is hardly ever right any more, or no better than whoever always says the same: one that knows little
is worth having until a better one comes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.events import Baseline

QUICK_ROWS = 30
"""Enough to train on, or to ask the archive with, for a champion that has collapsed."""
LEFT = 0.25
"""Of its accuracy, then. Half is what a bad hour costs where errors come in clusters."""
TOLD_BY = 50
"""Rows, the newest, by which it is told at least, if there are so many."""
LOST_ROWS = 90
"""Enough to train on for a champion that knows nothing: so much of a bad hour is no hour any more."""
LOST = 0.6
"""Of its accuracy, what is left at most: a bad hour where errors come in clusters leaves more."""


def is_stopgap(normal: Baseline | None, achieved: Baseline) -> bool:
    """Whether what won is far from what the champion that it beat once achieved: better than one that has collapsed is
    easily said.
    """
    if normal is None or normal.metric != achieved.metric:
        return False
    return _down_to(LOST, normal, achieved.value)


def needs_help(normal: Baseline | None, errors: npt.NDArray[np.float64], outcomes: npt.NDArray[np.float64]) -> bool:
    """Whether a champion with these errors on these rows, oldest first, is to be challenged at once."""
    rows = len(errors)
    if rows >= QUICK_ROWS and collapsed(normal, errors):
        return True
    return rows >= LOST_ROWS and knows_nothing(normal, errors, outcomes)


def knows_nothing(normal: Baseline | None, errors: npt.NDArray[np.float64], outcomes: npt.NDArray[np.float64]) -> bool:
    """Whether it is no better, on the newer half of the rows, than an answer that is always the same would have been
    (the commonest class, the median), and lost two fifths of its accuracy, or has two thirds more of error.

    Errors are absolute ones, outcomes class indices or numbers, oldest first; without a baseline nobody knows.
    """
    if normal is None or not len(errors):
        return False
    newer = slice(len(errors) // 2, None)
    error, said = float(np.mean(errors[newer])), outcomes[newer]
    if normal.metric == "mae":
        return error >= float(np.mean(np.abs(said - np.median(said)))) and _down_to(LOST, normal, error)
    commonest = float(np.unique(said, return_counts=True)[1].max()) / len(said)
    return 1.0 - error <= commonest and _down_to(LOST, normal, 1.0 - error)


def collapsed(normal: Baseline | None, errors: npt.NDArray[np.float64]) -> bool:
    """Whether three quarters of the accuracy are lost, or errors are four times as large as normal, on the newer half
    of the rows and the newest 50: a gradual change begins with rows of the old concept. Errors are absolute ones,
    oldest first; without a baseline nobody knows.
    """
    if normal is None or not len(errors):
        return False
    told_by = max(len(errors) - len(errors) // 2, min(len(errors), TOLD_BY))
    error = float(np.mean(errors[-told_by:]))
    return _down_to(LEFT, normal, error if normal.metric == "mae" else 1.0 - error)


def _down_to(share: float, normal: Baseline, achieved: float) -> bool:
    """Whether so much of the normal accuracy is left at most, or of the inverse of the normal error."""
    return achieved >= normal.value / share if normal.metric == "mae" else achieved <= share * normal.value
