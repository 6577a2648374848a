"""False alarms and delays of a detector: on independent errors, and on those that break the textbook."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2  # type: ignore[import-untyped]  # scipy leaves it untyped

from bench.detection_peers import Runner
from bench.detection_processes import Rates, steady, stream

CONFIDENCE = 0.95
PER = 10_000
"""Outcomes that false alarms are counted in."""
BEFORE = 5_000
AFTER = 5_000


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alarms in so many stationary outcomes; `early` of them in the first `early_outcomes`."""

    alarms: int
    outcomes: int
    early: int = 0
    early_outcomes: int = 0

    @property
    def rate(self) -> float:
        """Per 10,000 outcomes."""
        return self.alarms / self.outcomes * PER

    @property
    def upper(self) -> float:
        """The one-sided upper 95 % bound of the rate, for alarms that are Poisson (Garwood 1936)."""
        return float(chi2.ppf(CONFIDENCE, 2 * (self.alarms + 1))) / 2.0 / self.outcomes * PER


@dataclass(frozen=True, slots=True)
class Delays:
    """Outcomes from the change to the first alarm behind it, of the streams without one before; inf: none came."""

    each: tuple[float, ...]

    def quantile(self, share: float) -> float | None:
        """None if fewer than that share were found."""
        value = float(np.quantile(np.array(self.each), share, method="higher")) if self.each else math.inf
        return value if math.isfinite(value) else None

    @property
    def recall(self) -> float:
        return sum(map(math.isfinite, self.each)) / len(self.each) if self.each else 0.0


def false_alarms(
    run: Runner,
    rates: Rates,
    rate: float,
    reference: int,
    streams: int,
    length: int,
    seed: int,
    early: int = 0,
    done: Callable[[], None] = lambda: None,
) -> FalseAlarms:
    """Alarms on streams in which nothing changes but what the process always does."""
    alarms = first = 0
    for number in range(streams):
        made = stream(np.random.default_rng([seed, number]), rates, rate, reference, length)
        found = run(made)
        alarms += len(found)
        first += sum(index < early for index in found)
        done()
    return FalseAlarms(alarms, streams * length, first, streams * min(early, length))


def delays(
    run: Runner, rates: Rates, rate: float, shift: float, reference: int, streams: int, seed: int, after: int = AFTER
) -> Delays:
    """Delays to a rise by `shift` after 5,000 outcomes that follow the reference, each stream with its own."""
    found: list[float] = []
    for number in range(streams):
        rng = np.random.default_rng([seed, number])
        made = stream(rng, rates, rate, reference, BEFORE + after, BEFORE, shift)
        alarms = run(made)
        if alarms and alarms[0] < BEFORE:
            continue  # a false alarm, counted elsewhere: the delay is that of those who were still waiting
        found.append(float(alarms[0] - BEFORE + 1) if alarms else math.inf)
    return Delays(tuple(found))


def frozen(
    run: Runner,
    rate: float,
    afters: Sequence[float],
    reference: int,
    streams: tuple[int, int],
    length: int,
    seed: int,
) -> dict[str, object]:
    """The protocol with a frozen model: `streams` for false alarms and for each delay."""
    alarms = false_alarms(run, steady, rate, reference, streams[0], length, seed)
    measured = {
        name_of(after): delays(run, steady, rate, after - rate, reference, streams[1], seed + 1) for after in afters
    }
    return {
        "fa_per_10k": alarms.rate,
        "fa_upper": alarms.upper,
        "outcomes": alarms.outcomes,
        "delay": {name: each.quantile(0.5) for name, each in measured.items()},
        "p95": {name: each.quantile(0.95) for name, each in measured.items()},
        "recall": {name: each.recall for name, each in measured.items()},
    }


def name_of(rate: float) -> str:
    """.15, as the tables call it."""
    return f"{rate:.2f}".lstrip("0")
