"""The bets of an e-detector on one error after the other, which numpy makes in several passes over matrices."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from native.arrays import floats
from native.library import library, typed


class Row(IntEnum):
    """The rows of a wealth."""

    GAINS = 0
    STAKES = 1
    RIGHT = 2
    SLOPE = 3
    WEIGHTS = 4


ROWS = len(Row)
Wealth = ctypes.Array[ctypes.c_double]
"""Row by row, in each a number for every alternative."""
Bet = Callable[[NDArray[np.float64], float, Wealth], int]


def new_wealth(alternatives: int) -> Wealth:
    """All of it 0."""
    return (ctypes.c_double * (ROWS * alternatives))()


@cache
def betting() -> Bet | None:
    """Bets on errors up to the first at which the statistic reaches a threshold; gives its index, or how many errors
    there are if it does not. The wealth is then that behind the last error that was bet on. None without the library.

    Raises TypeError for errors that are not floats.
    """
    loaded = library()
    if loaded is None:
        return None
    compiled = typed(loaded.bets_bet, "bnfpn", ctypes.c_size_t)

    def bet(errors: NDArray[np.float64], threshold: float, wealth: Wealth) -> int:
        used: int = compiled(floats(errors), errors.size, threshold, wealth, len(wealth) // ROWS)
        return used

    return bet
