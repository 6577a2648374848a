"""What a worse model costs: points lost, errors more than usual, and their price, from counts and a cost per error.

The price has no currency: it is in whatever unit the cost of an error was stated in.
"""

from dataclasses import dataclass

from detectors.episode import Scalar, Severity

CRITICAL_POINTS = 0.10
"""Accuracy lost that makes an alert critical, where no cost a day says what does."""
CRITICAL_MAE_RATIO = 1.5
"""A mean absolute error of so many times the baseline is critical."""
MINUTES_A_DAY = 1_440
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Prices:
    """What an error of a model costs, and the cost a day that makes an alert critical; None is not stated.

    An error of a regression is a unit of absolute error more than usual.
    """

    per_error: float | None = None
    critical_a_day: float | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """How much worse a version is than it was: `lost` error rate (or absolute error), `extra` errors so far, a day."""

    metric: str
    healthy: float
    lost: float
    extra: float
    extra_a_day: float

    @classmethod
    def measured(
        cls, metric: str, healthy: float, recent: float, errors: float, outcomes: int, outcomes_a_minute: float
    ) -> "Effect":
        """`errors` among `outcomes` since it began, `recent` the error now; better than healthy costs nothing."""
        lost = max(0.0, recent - healthy)
        extra = max(0.0, errors - healthy * outcomes)
        return cls(metric, healthy, lost, extra, lost * outcomes_a_minute * MINUTES_A_DAY)

    def severity(self, prices: Prices) -> Severity:
        """Critical by its cost a day if the operator stated what is, else by the points lost: also while nobody knows
        yet how many outcomes come in a day.
        """
        if prices.per_error is not None and prices.critical_a_day is not None and self.extra_a_day:
            critical = self.extra_a_day * prices.per_error >= prices.critical_a_day - ROUNDING
        elif self.metric == "mae":
            critical = self.lost >= (CRITICAL_MAE_RATIO - 1) * self.healthy - ROUNDING
        else:
            critical = self.lost >= CRITICAL_POINTS - ROUNDING
        return "critical" if critical else "warning"

    def evidence(self, prices: Prices) -> dict[str, Scalar]:
        """As an alert carries it; with costs if an error has one."""
        found: dict[str, Scalar] = {"lost": self.lost, "extra_errors": self.extra, "extra_a_day": self.extra_a_day}
        if prices.per_error is not None:
            found["cost_so_far"] = self.extra * prices.per_error
            found["cost_a_day"] = self.extra_a_day * prices.per_error
        return found
