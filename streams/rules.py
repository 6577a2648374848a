"""What makes a model's numbers an alert: the conditions that the policy judges, as functions of measured values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectors.baseline import Baseline
from detectors.burn_rate import ROUNDING, ErrorBudget, Pair, burning
from detectors.policy import Condition, Scalar, Severity
from detectors.tally import Tally
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, OUTCOMES_MISSING, Evidence

CRITICAL_DROP = 0.10
"""Accuracy lost that makes an alert critical."""
CRITICAL_MAE_RATIO = 1.5
"""A mean absolute error of so many times the baseline is critical."""


@dataclass(frozen=True, slots=True)
class AccuracyLimits:
    """What a version may do: the minimum accuracy, the drop below its baseline, the windows that are asked."""

    minimum: float
    drop: float
    pairs: tuple[Pair, ...]
    minimum_outcomes: int


def accuracy_dropped(
    window: Callable[[int], Tally], baseline: Baseline, limits: AccuracyLimits, version: str
) -> Condition | None:
    """How fast the error budget is spent, see :mod:`detectors.burn_rate`; ``window`` gives the last so many minutes.

    None if too few outcomes of the baseline's kind are known.
    """
    budget = ErrorBudget.of(baseline, limits.minimum, limits.drop)
    found = burning(window, budget, limits.pairs, limits.minimum_outcomes)
    if found is None:
        return None
    accuracy = budget.metric == "accuracy"
    error, limit = found.error, budget.limit(found.pair.rate)
    value = 1.0 - error if accuracy else error
    evidence: dict[str, Scalar] = {
        "version": version,
        "metric": budget.metric,
        "rule": budget.rule,
        "value": value,
        "baseline": baseline.value,
        "window_minutes": found.pair.long_minutes,
        "short_minutes": found.pair.short_minutes,
        "n": found.long.n,
        "budget": budget.allowed,
        "burn_rate": budget.rate(error),
        "burn_limit": found.pair.rate,
        "period_minutes": limits.pairs[-1].long_minutes,
    }
    if accuracy:
        evidence["errors"] = found.long.errors
        evidence["extra_errors"] = max(0.0, found.long.errors - budget.healthy * found.long.n)
        critical = error - budget.healthy >= CRITICAL_DROP - ROUNDING
    else:
        critical = error >= CRITICAL_MAE_RATIO * baseline.value
    return Condition(
        ACCURACY_DROPPED,
        found.burns,
        "critical" if critical else "warning",
        value,
        1.0 - limit if accuracy else limit,
        evidence,
        cleared=found.cleared,
        at_once=found.burns and found.pair.at_once,
    )


def concept_drift(found: Evidence, version: str) -> Condition:
    """A detection as the policy takes it."""
    if found.metric == "mae":
        critical = found.after >= CRITICAL_MAE_RATIO * found.before
    else:
        critical = found.after - found.before >= CRITICAL_DROP - ROUNDING
    severity: Severity = "critical" if critical else "warning"
    evidence: dict[str, Scalar] = {"version": version, "metric": found.metric}
    return Condition(CONCEPT_DRIFT, True, severity, found.statistic, found.threshold, evidence)


def still_drifted(tally: Tally, first: Evidence, baseline: Baseline) -> tuple[bool, bool] | None:
    """Whether recent errors are nearer to those after the change than to those before, and whether they have gone
    three quarters of the way back, which is what heals; None without outcomes.

    A detector fires once; this is what keeps its alert open while the model stays as bad as it became.
    """
    if baseline.metric == "mae":
        # A detector clips large errors and a window does not, so a healthy window may be above the detector's mean.
        before, recent = max(first.before, baseline.value), tally.mae
    else:
        before, recent = first.before, None if tally.accuracy is None else 1.0 - tally.accuracy
    if recent is None:
        return None
    middle = (before + max(before, first.after)) / 2
    healthy = baseline.value if baseline.metric == "mae" else 1.0 - baseline.value
    # What is healthy may be above what the detector saw before: then it is enough to be as good as that.
    clear = min(middle, max((before + middle) / 2, (healthy + middle) / 2))
    return recent >= middle, recent < middle and recent <= clear


def outcomes_missing(
    minute: int, waiting_since: int, last_prediction: int, limit_minutes: int, version: str
) -> Condition:
    """Predictions go on while no outcome has come since ``waiting_since`` (−1: none is awaited)."""
    waited = minute - waiting_since if waiting_since >= 0 else 0
    active = waiting_since >= 0 and waited >= limit_minutes and minute - last_prediction <= limit_minutes
    evidence: dict[str, Scalar] = {"version": version, "waiting_since_s": max(0, waiting_since) * 60}
    return Condition(OUTCOMES_MISSING, active, "warning", float(waited), float(limit_minutes), evidence)
