"""Streams of errors to detect drift in: independent ones, and those that break the textbook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Errors = NDArray[np.float64]
Rates = Callable[[np.random.Generator, int, float], NDArray[np.float64]]
"""(generator, n, mean rate) → the error rate of each of n outcomes, from a random place in the process."""

PERIOD = 10_000
SWING = 0.3
BLOCK = 1_000
DISPERSION = 5.0
DUMP_SHARE = 0.1
DUMP_FACTOR = 2.0


def steady(rng: np.random.Generator, n: int, rate: float) -> NDArray[np.float64]:
    """One rate for ever."""
    return np.full(n, rate)


def swinging(rng: np.random.Generator, n: int, rate: float) -> NDArray[np.float64]:
    """A rate that swings by ± 30 % over 10,000 outcomes: the hours of a day."""
    at = rng.integers(PERIOD) + np.arange(n)
    return rate * (1.0 + SWING * np.sin(2.0 * np.pi * at / PERIOD))


def overdispersed(rng: np.random.Generator, n: int, rate: float) -> NDArray[np.float64]:
    """A beta-distributed rate for each 1,000 outcomes, so that their sums have 5 times the binomial variance."""
    correlation = (DISPERSION - 1.0) / (BLOCK - 1.0)
    size = 1.0 / correlation - 1.0
    offset = int(rng.integers(BLOCK))
    blocks = rng.beta(rate * size, (1.0 - rate) * size, (n + offset) // BLOCK + 1)
    return np.repeat(blocks, BLOCK)[offset : offset + n]


def dumped(rng: np.random.Generator, n: int, rate: float) -> NDArray[np.float64]:
    """The labels of a tenth of the outcomes come together once in 10,000, and twice as many of them are errors."""
    at = (rng.integers(PERIOD) + np.arange(n)) % PERIOD
    rest = rate * (1.0 - DUMP_SHARE * DUMP_FACTOR) / (1.0 - DUMP_SHARE)
    return np.where(at < DUMP_SHARE * PERIOD, rate * DUMP_FACTOR, rest)


@dataclass(frozen=True, slots=True)
class Stream:
    """Errors of a reference and those that follow, which are `rate_after` worse from `change` on, if it is given."""

    reference: Errors
    errors: Errors


def stream(
    rng: np.random.Generator,
    rates: Rates,
    rate: float,
    reference: int,
    n: int,
    change: int | None = None,
    shift: float = 0.0,
) -> Stream:
    """One stream of a process; from error `change` of the n on, its rate is higher by `shift` (at most 1)."""
    each = rates(rng, reference + n, rate)
    if change is not None:
        each[reference + change :] = np.minimum(1.0, each[reference + change :] + shift)
    errors = (rng.random(reference + n) < each).astype(np.float64)
    return Stream(errors[:reference], errors[reference:])
