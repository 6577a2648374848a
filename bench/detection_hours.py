"""A daily swing as the monitor sees it: a model with 10,000 outcomes a day, watched by what is known of its hours.

The monitor's own classes, with what is shipped and `by_hour`; beside them the same without, which learn from the first
day too. Every detection counts, from the first outcome on, those among them that come before the hours are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.detection_measure import Delays, FalseAlarms
from bench.detection_nights import DAY_S, START_S, shipped
from bench.detection_processes import PERIOD, Rates, overdispersed, steady
from streams.order import Errors
from streams.version_watch import VersionWatch

CHANGE_DAYS = 7
AFTER_DAYS = 1


@dataclass(frozen=True, slots=True)
class Swing:
    """Rates of a process, which swing by so much of themselves over a day."""

    size: float
    rates: Rates = steady

    @property
    def name(self) -> str:
        return f"by hour ± {self.size:.0%}" + (", overdispersion" if self.rates is overdispersed else "")


SWINGS = (Swing(0.3), Swing(0.6), Swing(0.3, overdispersed), Swing(0.6, overdispersed), Swing(0.0))


def outcomes(
    rng: np.random.Generator, swing: Swing, days: int, rate: float, change: int | None = None, shift: float = 0.0
) -> Errors:
    """Outcomes of so many days from a random minute of a day on, those of a minute in one second.

    From outcome ``change`` on they are wrong by so much more of what they were.
    """
    n = days * PERIOD
    seconds = START_S + (int(rng.integers(DAY_S)) + np.arange(n) * DAY_S // PERIOD) // 60 * 60
    each = swing.rates(rng, n, rate) * (1.0 + swing.size * np.sin(2.0 * np.pi * seconds / DAY_S))
    if change is not None:
        each[change:] *= 1.0 + shift
    wrong = (rng.random(n) < np.minimum(1.0, each)).astype(np.float64)
    return Errors(seconds, np.zeros(n, dtype=np.int64), np.arange(n), wrong)


def watch_of(budget: float, by_hour: Literal["", "day"]) -> VersionWatch:
    """What is shipped, with so many false alarms in 10,000 outcomes, all of them for the error rate."""
    settings = shipped(budget).model_copy(update={"baseline_hours": 24, "by_hour": by_hour})
    return VersionWatch("accuracy", settings)


def false_alarms_by_hour(
    swing: Swing,
    by_hour: Literal["", "day"],
    budget: float,
    rate: float,
    streams: int,
    length: int,
    seed: int,
    early: int,
) -> FalseAlarms:
    """Detections on streams in which nothing changes but the hour."""
    found = first = 0
    for number in range(streams):
        made = outcomes(np.random.default_rng([seed, number]), swing, length // PERIOD, rate)
        each = watch_of(budget, by_hour).feed(made)
        found += len(each)
        first += sum(at.outcomes_seen <= early for at in each)
    return FalseAlarms(found, streams * length, first, streams * early)


def delays_by_hour(
    swing: Swing, by_hour: Literal["", "day"], budget: float, rate: float, shift: float, streams: int, seed: int
) -> Delays:
    """Outcomes from a change at the end of the seventh day until a detection, within a day."""
    change, each = CHANGE_DAYS * PERIOD, list[float]()
    for number in range(streams):
        made = outcomes(np.random.default_rng([seed, number]), swing, CHANGE_DAYS + AFTER_DAYS, rate, change, shift)
        found = [at.outcomes_seen - change for at in watch_of(budget, by_hour).feed(made)]
        late = [at for at in found if at > 0]
        if not any(-PERIOD < at <= 0 for at in found):  # a false alarm is counted elsewhere, and may last for the day
            each.append(float(late[0]) if late else math.inf)
    return Delays(tuple(each))
