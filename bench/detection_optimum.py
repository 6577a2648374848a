"""The yardstick of detection: CUSUM that knows both error rates, by its Markov chain.

No procedure of the same run length has a smaller worst-case delay (Moustakides, Annals of Statistics 1986). The log
likelihood ratio of an error is put on a lattice fine enough that a right answer is an exact number of steps, and run
length and delay are those of the chain (Brook and Evans, Biometrika 1972), not simulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, identity  # type: ignore[import-untyped]  # scipy leaves it untyped
from scipy.sparse.linalg import splu  # type: ignore[import-untyped]  # scipy leaves it untyped

STEPS_A_RIGHT = 20
"""Steps of the lattice that a right answer takes down: the wrong one's, rounded to whole steps, is off by 1/40 of
it."""
SETTLED = 5_000
MOST_ERRORS = 200_000


@dataclass(frozen=True, slots=True)
class Optimum:
    """The CUSUM for a change from `before` to `after`: its threshold in nats, and what it achieves."""

    threshold: float
    run_length: float
    median_delay: float
    p95_delay: float


class _Chain:
    """CUSUM's states 0..limit − 1 (in steps), and how an error moves it; from `limit` on it has fired."""

    def __init__(self, before: float, after: float, limit: int) -> None:
        self.limit = limit
        step = math.log((1.0 - before) / (1.0 - after)) / STEPS_A_RIGHT
        self.step = step
        self.up = max(1, round(math.log(after / before) / step))
        states = np.arange(limit)
        self._down_to = np.maximum(states - STEPS_A_RIGHT, 0)
        self._up_to = states + self.up

    def matrix(self, rate: float) -> csc_matrix:
        """Transitions among the states that have not fired."""
        stays = self._up_to < self.limit
        states = np.arange(self.limit)
        rows = np.concatenate((states, states[stays]))
        columns = np.concatenate((self._down_to, self._up_to[stays]))
        values = np.concatenate((np.full(self.limit, 1.0 - rate), np.full(int(stays.sum()), rate)))
        return csc_matrix((values, (rows, columns)), shape=(self.limit, self.limit))

    def run_length(self, rate: float) -> float:
        """Expected errors until it fires, from 0."""
        solver = splu(csc_matrix(identity(self.limit) - self.matrix(rate)))
        lengths: NDArray[np.float64] = solver.solve(np.ones(self.limit))
        return float(lengths[0])

    def delays(self, before: float, after: float, shares: tuple[float, ...]) -> list[float]:
        """Errors after a change that comes when it has long been quiet, until these shares of the streams have
        fired."""
        quiet, drifted = self.matrix(before).T.tocsr(), self.matrix(after).T.tocsr()
        share = np.zeros(self.limit)
        share[0] = 1.0
        for _ in range(SETTLED):
            share = quiet @ share
        share /= share.sum()
        delays: list[float] = []
        left = 1.0
        for error in range(1, MOST_ERRORS):
            share = drifted @ share
            now = float(share.sum())
            while len(delays) < len(shares) and now <= 1.0 - shares[len(delays)]:
                # Within the error that passes the share, in proportion.
                delays.append(error - 1 + (left - 1.0 + shares[len(delays)]) / (left - now))
            if len(delays) == len(shares):
                return delays
            left = now
        raise ArithmeticError(f"too few streams have fired {MOST_ERRORS} errors after {before} → {after}")


def optimum(before: float, after: float, run_length: float) -> Optimum:
    """The CUSUM whose expected run length is at least `run_length`, and hardly more.

    Raises ValueError unless 0 < before < after < 1.
    """
    if not 0.0 < before < after < 1.0:
        raise ValueError(f"the optimum needs rates 0 < before < after < 1, got {before} and {after}")
    low, high = 1, 64
    while _Chain(before, after, high).run_length(before) < run_length:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _Chain(before, after, middle).run_length(before) < run_length:
            low = middle
        else:
            high = middle
    chain = _Chain(before, after, high)
    return Optimum(high * chain.step, chain.run_length(before), *chain.delays(before, after, (0.5, 0.95)))
