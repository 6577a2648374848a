"""A champion that is hardly ever right any more: one that knows little is worth having until a better one comes."""

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


def collapsed(normal: Baseline | None, errors: npt.NDArray[np.float64]) -> bool:
    """Whether three quarters of the accuracy are lost, or errors are four times as large as normal, on the newer half
    of the rows and the newest 50: a gradual change begins with rows of the old concept. Errors are absolute ones,
    oldest first; without a baseline nobody knows.
    """
    if normal is None or not len(errors):
        return False
    told_by = max(len(errors) - len(errors) // 2, min(len(errors), TOLD_BY))
    error = float(np.mean(errors[-told_by:]))
    return error >= normal.value / LEFT if normal.metric == "mae" else 1.0 - error <= LEFT * normal.value
