"""Multi-window burn rates: how fast a version spends the errors that it is allowed.

A minimum accuracy of 0.90 is an error budget of 10 %: a version that is wrong in 10 % of cases burns it at rate 1, one
that is wrong in half of them at rate 5. A pair of windows burns when both do: the long one says that it matters, the
short one that it still goes on. The method is that of chapter 5, Alerting on SLOs, of Google's The Site Reliability
Workbook; unlike a request, a prediction may be wrong when all is well, which bounds the rates that can be asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from detectors.baseline import Baseline
from detectors.tally import Tally

MAE_ALLOWED = 1.25
"""A regression's budget: so many times its baseline's mean absolute error."""
KNOWN = 3.0
"""Standard errors of a baseline: it must be missed by so many at least."""
MINIMUM_ERRORS = 20
"""Errors in the long window of a fast pair before it speaks. A version at half its budget has so many by chance, at the
rate that is asked for, in 2 of 10⁸ windows at rate 2.4 and in 1 of 10⁵ at 1.6 (Poisson)."""
SHORT_ERRORS = 5
"""A short window that holds fewer outcomes than make so many errors at the budget says nothing."""
SHORT_OUTCOMES = 30
"""The same for a regression."""
ROUNDING = 1e-9
"""0.95 − 0.90 is a little less than 0.05: a limit that is met to the last digit counts as met."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two windows in minutes, and the rate at which both must burn. `at_once`: it fires without being held."""

    short_minutes: int
    long_minutes: int
    rate: float
    at_once: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.short_minutes <= self.long_minutes:
            raise ValueError(f"the windows {self.short_minutes} and {self.long_minutes} are no short and long one")
        if self.rate < 1:
            raise ValueError(f"a burn rate of {self.rate} is within the budget: give 1 or more")


def pairs(window_minutes: int, fast: Sequence[tuple[int, int, float]]) -> list[Pair]:
    """The fast pairs that are shorter than the window, fastest first, then the window's own pair at rate 1."""
    shorter = sorted((each for each in fast if each[1] < window_minutes), key=lambda each: each[1])
    own = Pair(max(1, window_minutes // 12), window_minutes, 1.0, at_once=False)
    return [*(Pair(short, long, rate) for short, long, rate in shorter), own]


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """The error rate (or mean absolute error) that a version may have, and the one that it has when all is well."""

    rule: Literal["minimum", "baseline"]
    metric: Literal["accuracy", "mae"]
    healthy: float
    allowed: float

    @classmethod
    def of(cls, baseline: Baseline, minimum: float, drop: float) -> "ErrorBudget":
        """The tighter one of a minimum accuracy and a drop below the baseline.

        A minimum above the baseline is left out: the version never achieved it, and the drop watches. What is told by
        few rows is not known to the point: nothing within three standard errors of it is a drop.
        """
        unknown = KNOWN * baseline.standard_error
        if baseline.metric == "mae":
            return cls("baseline", "mae", baseline.value, max(MAE_ALLOWED * baseline.value, baseline.value + unknown))
        healthy, drop = 1.0 - baseline.value, max(drop, unknown)
        if baseline.value - drop < minimum <= baseline.value:
            return cls("minimum", "accuracy", healthy, 1.0 - minimum)
        return cls("baseline", "accuracy", healthy, healthy + drop)

    def error(self, tally: Tally) -> float | None:
        """What the budget limits, measured; None without outcomes of its kind."""
        if self.metric == "mae":
            return tally.mae
        return None if tally.accuracy is None else 1.0 - tally.accuracy

    def limit(self, rate: float) -> float:
        """The error at a burn rate. No error rate is above 1, so it is at most half-way from the budget to that."""
        if self.metric == "mae":
            return rate * self.allowed
        return min(rate * self.allowed, (1.0 + self.allowed) / 2) if rate > 1 else self.allowed

    def rate(self, error: float) -> float:
        """How many times as fast as allowed; 0 for a version that may not err at all, and has no rate."""
        return error / self.allowed if self.allowed > ROUNDING else 0.0

    def exceeded(self, error: float, rate: float) -> bool:
        """A drop that is met to the last digit counts, a minimum that is met is kept."""
        limit = self.limit(rate)
        return error > limit + ROUNDING if self.rule == "minimum" else error > 0 and error >= limit - ROUNDING

    @property
    def clear(self) -> float:
        """The error below which an alert heals: half-way back from the budget to what is healthy."""
        return (self.healthy + max(self.healthy, self.allowed)) / 2

    def fast_enough(self, long: Tally, error: float) -> bool:
        """Whether the long window of a fast pair holds enough errors to speak."""
        return long.n >= SHORT_OUTCOMES if self.metric == "mae" else long.n * error >= MINIMUM_ERRORS - ROUNDING

    def short_speaks(self, short: Tally) -> bool:
        """Whether a short window holds enough outcomes to speak; else the long one decides alone."""
        least = SHORT_OUTCOMES if self.metric == "mae" else SHORT_ERRORS / max(self.allowed, SHORT_ERRORS / 10_000)
        return short.n >= least


@dataclass(frozen=True, slots=True)
class Burn:
    """What a pair measured: the long window, its error, and whether the pair burns. `cleared`: whether it heals."""

    pair: Pair
    long: Tally
    error: float
    burns: bool
    cleared: bool


def burning(
    window: Callable[[int], Tally], budget: ErrorBudget, asked: Sequence[Pair], minimum_outcomes: int
) -> Burn | None:
    """The first pair that burns, else the last one, whose window must hold `minimum_outcomes`; None if it does not.

    `window` gives the outcomes of so many minutes up to now.
    """
    *fast, own = asked
    for pair in fast:
        long = window(pair.long_minutes)
        error = budget.error(long)
        if error is None or not budget.exceeded(error, pair.rate) or not budget.fast_enough(long, error):
            continue
        if _goes_on(window(pair.short_minutes), budget, pair.rate):
            return Burn(pair, long, error, burns=True, cleared=False)
    long = window(own.long_minutes)
    error = budget.error(long)
    if error is None or long.n < minimum_outcomes:
        return None
    short = window(own.short_minutes)
    burns = budget.exceeded(error, own.rate) and _goes_on(short, budget, own.rate)
    recent = budget.error(short) if budget.short_speaks(short) else None
    cleared = not burns and min(error, error if recent is None else recent) <= budget.clear + ROUNDING
    return Burn(own, long, error, burns, cleared)


def _goes_on(short: Tally, budget: ErrorBudget, rate: float) -> bool:
    """Whether a short window agrees, or cannot say."""
    error = budget.error(short)
    return error is None or not budget.short_speaks(short) or budget.exceeded(error, rate)
