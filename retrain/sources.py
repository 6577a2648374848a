"""Which rows the challengers of a run are trained on, and which rows they are tested on. Pure index arithmetic.

Rows are in time order and have indices from 0. A concept may have changed at a known row; nothing says that it did,
or that what came before is useless. So several choices are weighed against each other instead of one being trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

OLDER_WEIGHT = 0.5
"""What all rows before the change weigh together, of what those since it weigh."""
MINIMUM_BLOCK = 20
"""Rows of a test block, at least."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows ``start`` up to wherever training ends; from ``change`` on with weight 1, those before it with less."""

    name: str
    start: int
    change: int

    def weights(self, end: int) -> npt.NDArray[np.float64] | None:
        """The weight of each row from ``start`` to ``end``; None if they weigh alike."""
        older, newer = self.change - self.start, end - self.change
        if older <= 0 or newer <= 0:
            return None
        weights = np.ones(end - self.start)
        weights[:older] = min(1.0, OLDER_WEIGHT * newer / older)
        return weights


def sources(rows: int, change: int | None, recent_rows: Sequence[int]) -> list[Source]:
    """What can be trained on of ``rows`` rows whose concept may have changed at row ``change``.

    Choices that would be the same rows are listed once: each one more costs significance.
    """
    known = change if change is not None and 0 < change < rows else None
    found = []
    if known is not None:
        found += [Source("since the change", known, known), Source("widened", 0, known)]
    starts = {rows - newest for newest in recent_rows if newest < rows} - {known}
    found += [Source(f"the newest {rows - start:,}", start, start) for start in sorted(starts, reverse=True)]
    found.append(Source("all", 0, 0))
    return found


def blocks(start: int, end: int, test_share: float, count: int) -> list[tuple[int, int]]:
    """The newest ``test_share`` of rows ``start`` to ``end``, in at most ``count`` blocks, oldest first.

    Each is half of what is left, so that the newest is short: what was trained before it has seen a late change. None
    is shorter than 20 rows, unless it is the only one; none at all if no row is left to train on.
    """
    left = round((end - start) * test_share)
    if not 0 < left < end:
        return []
    edges = [end - left]
    while len(edges) < count and left // 2 >= MINIMUM_BLOCK:
        left //= 2
        edges.append(end - left)
    return list(pairwise([*edges, end]))
