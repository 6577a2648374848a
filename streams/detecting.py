"""How a version's errors are watched, as the monitor reports it."""

from __future__ import annotations

import msgspec

from detectors.hourly import LEAST_WINDOWS, HourlyProfile
from detectors.reference import WINDOW


class Normal(msgspec.Struct, frozen=True):
    """What is normal, in the errors' unit: mean error, its standard error, dispersion (1: independent errors), and
    wander, the standard deviation of the mean itself between stretches of 500 outcomes.
    """

    outcomes: float
    error: float
    standard_error: float
    dispersion: float
    wander: float


class Paging(msgspec.Struct, frozen=True):
    """A detector that pages, with its part of the budget."""

    stream: str
    detector: str
    share: float
    threshold: float


class RateDetecting(msgspec.Struct, frozen=True):
    """One of the four rates, whose error is 1 − rate. ``outcomes`` of its own have come.

    ``missing`` outcomes of the version and ``missing_own`` of its own are still to be learnt from; ``normal`` is None
    until then. ``acceptable`` and ``threshold`` (a run length in its own outcomes) are None until its first outcome
    after that.
    """

    rate: str
    false_alarms_per_week: float
    outcomes_per_s: float
    outcomes: int
    missing: int
    missing_own: int
    normal: Normal | None = None
    acceptable: float | None = None
    threshold: float | None = None


class SegmentDetecting(msgspec.Struct, frozen=True):
    """A segment that is watched on its own. ``outcomes`` of its own have come.

    ``missing`` outcomes of the version and ``missing_own`` of its own are still to be learnt from; ``normal`` is None
    until then. ``scale`` is that of its regression's errors, else 1. ``acceptable`` (in units of the scale) and
    ``threshold`` (a run length in its own outcomes) are None until its first outcome after that.
    """

    segment: str
    false_alarms_per_week: float
    outcomes_per_s: float = 0.0
    outcomes: int = 0
    missing: int = 0
    missing_own: int = 0
    scale: float = 1.0
    normal: Normal | None = None
    acceptable: float | None = None
    threshold: float | None = None


class HoursDetecting(msgspec.Struct, frozen=True):
    """What is known of the hours of a day or week (``by``), from so many whole ones.

    ``recurs`` is the share of the variance between hours that recurs. The best and the worst hour (of the day, or
    from Thursday 00:00, in UTC) have so many times the usual error, this hour ``now``; all are 1 if no more recurs than
    chance explains. That is believed (``on``) once it has foretold ``least_foretold`` outcomes of whole cycles.
    """

    by: str
    cycles: int
    recurs: float
    on: bool
    foretold: int
    least_foretold: int
    best_hour: int = 0
    best: float = 1.0
    worst_hour: int = 0
    worst: float = 1.0
    now: float = 1.0


class Detecting(msgspec.Struct, frozen=True):
    """How a version is watched now. ``missing`` outcomes are still to be learnt from; ``normal`` is None until then.

    ``scale`` is that of a regression's errors, 1 for a classification; ``acceptable`` is the error up to which nothing
    is wrong. ``rates`` are those of a binary model, ``segments`` those that are watched; ``pagers_per_week`` is what
    they leave of the budget. While it is learnt, ``until_s`` is the second before which detectors do not watch;
    ``at_once``: because outcomes came all at once. ``hours`` are told if they are asked for; once they are known,
    ``normal`` is of errors divided by their hours' factors, and ``acceptable`` is that of an average hour.
    """

    false_alarms_per_week: float
    outcomes_per_s: float
    missing: int
    scale: float = 1.0
    normal: Normal | None = None
    acceptable: float | None = None
    pagers: list[Paging] = []
    rates: list[RateDetecting] = []
    pagers_per_week: float | None = None
    until_s: int = 0
    at_once: bool = False
    segments: list[SegmentDetecting] = []
    hours: HoursDetecting | None = None


def hours_told(profile: HourlyProfile | None) -> HoursDetecting | None:
    """What is known of the hours, if they are asked for."""
    if profile is None:
        return None
    state, factors = profile.state, profile.state.factors
    told = HoursDetecting(
        state.by,
        len(state.cycles),
        state.recurs,
        profile.on,
        state.adjusted.windows * WINDOW,
        LEAST_WINDOWS * WINDOW,
    )
    if not factors:
        return told
    best, worst = factors.index(min(factors)), factors.index(max(factors))
    return msgspec.structs.replace(
        told,
        best_hour=best,
        best=factors[best],
        worst_hour=worst,
        worst=factors[worst],
        now=factors[profile.slot],
    )
