"""What makes a model's numbers an alert: the conditions that the policy judges, as functions of measured values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from detectors.baseline import Baseline
from detectors.burn_rate import ErrorBudget, Pair, burning
from detectors.cohorts import HOUR_MINUTES
from detectors.effect import Effect, Prices
from detectors.episode import SEVERITIES
from detectors.four_rates import counted
from detectors.labels import Labelling
from detectors.one_sided import Lacking
from detectors.policy import Condition, Scalar
from detectors.tally import Tally
from streams.alerts import (
    ACCURACY_DROPPED,
    CONCEPT_DRIFT,
    OUTCOMES_MISSING,
    OUTCOMES_ONE_SIDED,
    OUTCOMES_SLOW,
    Evidence,
)

NO_PRICES = Prices()
LEAST_OUTCOMES, LEAST_ERRORS = 50, 20
"""Of a rate's own, before a window tells whether it is still low."""


@dataclass(frozen=True, slots=True)
class AccuracyLimits:
    """What a version may do: the minimum accuracy, the drop below its baseline, the windows that are asked."""

    minimum: float
    drop: float
    pairs: tuple[Pair, ...]
    minimum_outcomes: int
    prices: Prices = NO_PRICES


@dataclass(frozen=True, slots=True)
class Recently:
    """The outcomes of the champion: ``window`` gives the last so many minutes, ``a_minute`` how many there are lately.

    A window that is asked for is cut to what the windows keep.
    """

    window: Callable[[int], Tally]
    a_minute: float


def accuracy_dropped(
    recently: Recently, baseline: Baseline, limits: AccuracyLimits, version: str, since_minutes: int | None = None
) -> Condition | None:
    """How fast the error budget is spent, see :mod:`detectors.burn_rate`, and what it costs since so many minutes.

    Without ``since_minutes`` the costs are those of the window. None if too few outcomes of the baseline's kind are
    known.
    """
    budget = ErrorBudget.of(baseline, limits.minimum, limits.drop)
    found = burning(recently.window, budget, limits.pairs, limits.minimum_outcomes)
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
    since = found.long if since_minutes is None else recently.window(max(since_minutes, found.pair.long_minutes))
    effect = _effect(budget.metric, budget.healthy, error, since, recently.a_minute)
    return Condition(
        ACCURACY_DROPPED,
        found.burns,
        effect.severity(limits.prices),
        value,
        1.0 - limit if accuracy else limit,
        evidence | effect.evidence(limits.prices),
        cleared=found.cleared,
        at_once=found.burns and found.pair.at_once,
    )


def _effect(metric: str, healthy: float, recent: float, since: Tally, a_minute: float) -> Effect:
    errors = since.sum_abs if metric == "mae" else float(since.errors)
    return Effect.measured(metric, healthy, recent, errors, since.n, a_minute)


def of_stream(found: Evidence, recently: Recently, positive: str) -> Recently:
    """Of the outcomes that a detection is about: all, or those that one of the four rates counts.

    A rate's window is a tally of right and wrong ones among its own.
    """
    if not found.of_rate:
        return recently

    def window(minutes: int) -> Tally:
        errors, n = counted(found.stream, recently.window(minutes), positive)
        cells = {("right", "right"): n - errors, ("wrong", "right"): errors}
        return Tally(n, {cell: count for cell, count in cells.items() if count})

    lately = recently.window(HOUR_MINUTES).n
    share = window(HOUR_MINUTES).n / lately if lately else 0.0
    return Recently(window, share * recently.a_minute)


def baseline_before(found: Evidence) -> Baseline:
    """What was normal before a detection, as it says itself."""
    value = found.before if found.metric == "mae" else 1.0 - found.before
    return Baseline(max(1, found.outcomes_since_change), "mae" if found.metric == "mae" else "accuracy", value, 0.0)


def of_hour(found: Evidence, baseline: Baseline, factor: float) -> tuple[Evidence, Baseline]:
    """What a detection by the hour, and the baseline, say of an hour that has so many times the average error."""
    if not found.by_hour:
        return found, baseline
    if baseline.metric == "mae":
        before, after, value = factor * found.before, factor * found.after, factor * baseline.value
    else:
        before, after = min(1.0, factor * found.before), min(1.0, factor * found.after)
        value = max(0.0, 1.0 - factor * (1.0 - baseline.value))
    return msgspec.structs.replace(found, before=before, after=after), replace(baseline, value=value)


def enough_minutes(recently: Recently, minutes: int, since_minutes: int, error: float) -> int:
    """How far back a window must reach to tell an error from another, but not behind the change: what is rare comes
    slowly.
    """
    least = max(LEAST_OUTCOMES, LEAST_ERRORS / max(error, 1e-6))
    span = minutes
    while span < since_minutes and recently.window(span).n < least:
        span *= 2
    return max(minutes, min(span, since_minutes))


def together(found: Iterable[Condition | None]) -> Condition | None:
    """What several detections of one drift say: it lasts while any of them does, and is over when all are."""
    known = [each for each in found if each is not None]
    if not known:
        return None
    worst = max(known, key=lambda each: (each.active, SEVERITIES.index(each.severity)))
    active = any(each.active for each in known)
    return replace(worst, active=active, cleared=not active and all(each.clean for each in known))


def concept_drift(found: Evidence, version: str, prices: Prices = NO_PRICES, a_minute: float = 0.0) -> Condition:
    """A detection as the policy takes it."""
    after, n = found.after, found.outcomes_since_change
    effect = Effect.measured(found.metric, found.before, after, after * n, n, a_minute)
    evidence: dict[str, Scalar] = {"version": version, "metric": found.metric, **effect.evidence(prices)}
    return Condition(CONCEPT_DRIFT, True, effect.severity(prices), found.statistic, found.threshold, evidence)


def still_drifted(
    open_: Condition,
    recently: Recently,
    first: Evidence,
    baseline: Baseline,
    minutes: int,
    since_minutes: int,
    prices: Prices = NO_PRICES,
) -> Condition | None:
    """Whether errors of the last ``minutes`` are nearer to those after the change than to those before; None without
    outcomes. They heal three quarters of the way back. What is lost is counted since so many minutes. For a rate or a
    segment that sees few outcomes the minutes are more. ``baseline`` is of the outcomes that the detection is about.

    A detector fires once; this is what keeps its alert open while the model stays as bad as it became.
    """
    if first.of_rate or first.segment:
        middle = 1.0 if baseline.metric == "mae" else (first.before + max(first.before, first.after)) / 2
        minutes = enough_minutes(recently, minutes, since_minutes, middle)
    tally = recently.window(minutes)
    if baseline.metric == "mae":
        # A detector clips large errors and a window does not, so a healthy window may be above the detector's mean.
        before, recent, healthy = max(first.before, baseline.value), tally.mae, baseline.value
    else:
        before, healthy = first.before, first.before if first.of_rate else 1.0 - baseline.value
        recent = None if tally.accuracy is None else 1.0 - tally.accuracy
    if recent is None:
        return None
    middle = (before + max(before, first.after)) / 2
    # What is healthy may be above what the detector saw before: then it is enough to be as good as that.
    clear = min(middle, max((before + middle) / 2, (healthy + middle) / 2))
    effect = _effect(baseline.metric, before, recent, recently.window(since_minutes), recently.a_minute)
    return replace(
        open_,
        active=recent >= middle,
        cleared=recent < middle and recent <= clear,
        severity=effect.severity(prices),
        evidence={**open_.evidence, **effect.evidence(prices)},
    )


def outcomes_missing(
    minute: int, waiting_since: int, last_prediction: int, limit_minutes: int, version: str
) -> Condition:
    """Predictions go on while no outcome has come since ``waiting_since`` (−1: none is awaited)."""
    waited = minute - waiting_since if waiting_since >= 0 else 0
    active = waiting_since >= 0 and waited >= limit_minutes and minute - last_prediction <= limit_minutes
    evidence: dict[str, Scalar] = {"version": version, "waiting_since_s": max(0, waiting_since) * 60}
    return Condition(OUTCOMES_MISSING, active, "warning", float(waited), float(limit_minutes), evidence)


def outcomes_slow(found: Labelling | None, least: float, version: str) -> Condition | None:
    """Less than ``least`` of the usual share of predictions gets its outcome; None if nobody can tell."""
    if found is None:
        return None
    evidence: dict[str, Scalar] = {
        "version": version,
        "share": found.share,
        "usual": found.usual,
        "hours": found.hours,
        "window_minutes": 60,
    }
    slow, steady = found.slow(least), found.steady(least)
    return Condition(OUTCOMES_SLOW, slow, "warning", found.share, least * found.usual, evidence, steady and not slow)


def outcomes_one_sided(found: Lacking | None, least: float, version: str) -> Condition:
    """Outcomes of a predicted class do not come as those of the others do."""
    if found is None:
        return Condition(OUTCOMES_ONE_SIDED, False, "warning", 1.0, 1.0 - least, {"version": version})
    evidence: dict[str, Scalar] = {
        "version": version,
        "predicted": found.label,
        "share": found.share,
        "others": found.others,
        "n": found.n,
        "mature": found.mature,
    }
    value = found.share / found.others if found.others else 0.0
    return Condition(OUTCOMES_ONE_SIDED, True, "warning", value, 1.0 - least, evidence)
