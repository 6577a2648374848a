"""The worse error rates that the e-detector bets on, and what each error does to a bet."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ANGLES: NDArray[np.float64] = np.array([0.033, 0.065, 0.12, 0.22, 0.4, 0.86])
"""Distances of the alternatives from the acceptable rate, in arcsin √p: there, one distance takes about as many errors
to see at every rate. From .1 they are .12, .14, .18, .26, .44 and .73."""
WEIGHTS: NDArray[np.float64] = np.array([2.0, 6.0, 5.0, 4.0, 4.0, 1.0]) / 22.0
"""Small drifts need the larger shares: a share of w costs a bet ln(1/w) in wealth, small drifts take long to win it
back, but the large ones have few errors in all."""
LEAST_KEPT = 0.3
"""A right answer leaves at least so much of a bet, so that 500 of them stay within the range of floats."""


@dataclass(frozen=True, slots=True)
class Bets:
    """For each alternative, wealth is multiplied by `right` + `slope` · x on an error x from 0 to 1."""

    right: NDArray[np.float64]
    slope: NDArray[np.float64]


def bets(level: float, dispersion: float = 1.0) -> Bets:
    """Bets that are fair or worse while the mean error is at most `level` (above 0, below 1).

    On 0 and 1 a bet is the likelihood ratio of an alternative p to the level c, to the power 1/dispersion: for
    overdispersed errors the quasi-likelihood, whose mean is about 1 where that of the ratio itself would grow. In
    between it is linear. So its mean is at most (1 − c) · right + c · wrong ≤ 1 for *any* errors in 0..1 of conditional
    mean at most c: by Jensen's inequality for the power, and because wrong ≥ right for a mean below c.
    """
    angle = math.asin(math.sqrt(level))
    worse = np.sin(np.minimum(angle + ANGLES, math.pi / 2)) ** 2
    worse = np.minimum(worse, 1.0 - LEAST_KEPT * (1.0 - level))
    right = (1.0 - worse) / (1.0 - level)
    wrong = worse / level
    if dispersion > 1.0:
        right, wrong = right ** (1.0 / dispersion), wrong ** (1.0 / dispersion)
    return Bets(right, wrong - right)
