"""What makes a model's numbers an alert: the conditions that the policy judges, as functions of measured values."""

from __future__ import annotations

from detectors.baseline import Baseline
from detectors.policy import Condition, Scalar, Severity
from detectors.tally import Tally
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, OUTCOMES_MISSING, Evidence

CRITICAL_DROP = 0.10
"""Accuracy lost that makes an alert critical."""
MAE_RATIO = 1.25
CRITICAL_MAE_RATIO = 1.5
"""A mean absolute error of so many times the baseline pages, and is critical."""
ROUNDING = 1e-9
"""0.95 − 0.90 is a little less than 0.05: a limit that is met to the last digit counts as met."""


def accuracy_dropped(
    tally: Tally, baseline: Baseline, minimum: float, drop: float, version: str, window_minutes: int
) -> Condition | None:
    """A window against the minimum and the baseline, or its mean absolute error against the baseline.

    A minimum above the baseline is left out: the version never achieved it, and the drop watches. None if the window
    has no outcome of the baseline's kind.
    """
    value = tally.mae if baseline.metric == "mae" else tally.accuracy
    if value is None:
        return None
    severity: Severity
    rule = "baseline"
    if baseline.metric == "mae":
        limit = MAE_RATIO * baseline.value
        active = value >= limit and value > 0.0
        severity = "critical" if value >= CRITICAL_MAE_RATIO * baseline.value else "warning"
    else:
        limit = baseline.value - drop
        active = value <= limit + ROUNDING
        if value < minimum <= baseline.value:
            active, limit, rule = True, minimum, "minimum"
        severity = "critical" if baseline.value - value >= CRITICAL_DROP - ROUNDING else "warning"
    evidence: dict[str, Scalar] = {
        "version": version,
        "metric": baseline.metric,
        "rule": rule,
        "value": value,
        "baseline": baseline.value,
        "window_minutes": window_minutes,
        "n": tally.n,
    }
    return Condition(ACCURACY_DROPPED, active, severity, value, limit, evidence)


def concept_drift(found: Evidence, version: str) -> Condition:
    """A detection as the policy takes it."""
    if found.metric == "mae":
        critical = found.after >= CRITICAL_MAE_RATIO * found.before
    else:
        critical = found.after - found.before >= CRITICAL_DROP - ROUNDING
    severity: Severity = "critical" if critical else "warning"
    evidence: dict[str, Scalar] = {"version": version, "metric": found.metric}
    return Condition(CONCEPT_DRIFT, True, severity, found.statistic, found.threshold, evidence)


def still_drifted(tally: Tally, first: Evidence, baseline: Baseline) -> bool | None:
    """Whether recent errors are nearer to those after the change than to those before; None without outcomes.

    A detector fires once; this is what keeps its alert open while the model stays as bad as it became.
    """
    if baseline.metric == "mae":
        # A detector clips large errors and a window does not, so a healthy window may be above the detector's mean.
        before = max(first.before, baseline.value)
        return None if tally.mae is None else tally.mae >= (before + max(before, first.after)) / 2
    return None if tally.accuracy is None else 1.0 - tally.accuracy >= (first.before + first.after) / 2


def outcomes_missing(
    minute: int, waiting_since: int, last_prediction: int, limit_minutes: int, version: str
) -> Condition:
    """Predictions go on while no outcome has come since ``waiting_since`` (−1: none is awaited)."""
    waited = minute - waiting_since if waiting_since >= 0 else 0
    active = waiting_since >= 0 and waited >= limit_minutes and minute - last_prediction <= limit_minutes
    evidence: dict[str, Scalar] = {"version": version, "waiting_since_s": max(0, waiting_since) * 60}
    return Condition(OUTCOMES_MISSING, active, "warning", float(waited), float(limit_minutes), evidence)
