"""Nightly dumps of labels as the monitor sees them: a model with 10,000 outcomes a day, a tenth of them in one dump.

Detectors alone know no time, and half a day without the dump cannot tell them of it. The monitor's own classes, with
what is shipped, know when outcomes came; a false alarm is a drift alert that fires.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.detection_measure import PER, Delays, FalseAlarms
from bench.detection_processes import DUMP_FACTOR, DUMP_SHARE, PERIOD
from detectors.dump import FIRST_DAY_S
from detectors.policy import Transition
from streams.alerts import CONCEPT_DRIFT, Raised
from streams.events import Baseline, ModelState
from streams.order import Errors
from streams.records import Summary, VersionPart
from streams.settings import MonitorSettings
from streams.watch import ModelWatch

DAY_S = 86_400
START_S = 1_700_006_400
"""A midnight."""
DUMP_S = 7_200
LASTS_S = 300
STEP_S = 3_600
DAYS_A_WEEK = 7
CHANGE_DAYS = 3
BASELINE_OUTCOMES = 5_000
VERSION = "1"

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Nights:
    """Seconds of outcomes, rising, and whether each was wrong."""

    seconds: Ints
    wrong: NDArray[np.uint8]


def nights(rng: np.random.Generator, days: int, rate: float, shift: float = 0.0) -> Nights:
    """Outcomes of so many days from a random second of a day on; with a ``shift`` the rate is higher by so much from
    the end of the third day on.
    """
    in_dump = round(DUMP_SHARE * PERIOD)
    begin_s = START_S + int(rng.integers(DAY_S))
    made = []
    for day in range(days + 1):
        dump_s, even_s = rng.integers(LASTS_S, size=in_dump) + DUMP_S, rng.integers(DAY_S, size=PERIOD - in_dump)
        made.append(START_S + day * DAY_S + np.sort(np.concatenate((dump_s, even_s))))
    seconds = np.concatenate(made)
    seconds = seconds[(seconds >= begin_s) & (seconds < begin_s + days * DAY_S)]
    of_day = (seconds - START_S) % DAY_S
    rest = rate * (1.0 - DUMP_SHARE * DUMP_FACTOR) / (1.0 - DUMP_SHARE)
    rates = np.where((of_day >= DUMP_S) & (of_day < DUMP_S + LASTS_S), rate * DUMP_FACTOR, rest)
    rates[seconds >= begin_s + CHANGE_DAYS * DAY_S] += shift
    return Nights(seconds, (rng.random(len(seconds)) < rates).astype(np.uint8))


def registered(rng: np.random.Generator, rate: float) -> ModelState:
    """The catalog of a version whose baseline was measured on rows that know neither days nor nights."""
    measured = float(rng.binomial(BASELINE_OUTCOMES, rate)) / BASELINE_OUTCOMES
    error = math.sqrt(rate * (1.0 - rate) / BASELINE_OUTCOMES)
    baseline = Baseline("accuracy", 1.0 - measured, BASELINE_OUTCOMES, error)
    return ModelState("loan", 1, "binary", aliases={"champion": VERSION}, baselines={VERSION: baseline})


def alarms(found: Nights, settings: MonitorSettings, catalog: ModelState | None) -> list[int]:
    """The outcomes at which a drift alert fires; without a catalog of a model that nobody has registered.

    Only until its first day is over the whole monitor is asked: it takes a millisecond for each minute. What its
    detectors find from then on counts as it is found, though the monitor holds back what it finds in a dump.
    """
    watch = ModelWatch("loan", settings, 0.0)
    begin_s = int(found.seconds[0]) // 60 * 60
    until_s = begin_s + FIRST_DAY_S + STEP_S
    told: list[int] = []
    for number, from_s in enumerate(range(begin_s, until_s, STEP_S), 1):
        watch.take(_summary(found, number, from_s))
        for happened in watch.advance(from_s, from_s + STEP_S, catalog):
            if isinstance(happened.said, Raised) and _begins(happened.said.transition):
                told.append(int(np.searchsorted(found.seconds, happened.at_s)))
    rest = np.searchsorted(found.seconds, until_s)
    if rest == len(found.seconds):
        return told
    at = np.arange(rest, len(found.seconds))
    errors = Errors(found.seconds[at], np.zeros_like(at), at, found.wrong[at].astype(np.float64))
    return told + [each.outcomes_seen - 1 for each in watch.versions[VERSION].feed(errors)]


def _begins(transition: Transition) -> bool:
    return transition.identity.alertname == CONCEPT_DRIFT and transition.reason == "fired"


def _summary(found: Nights, number: int, from_s: int) -> Summary:
    rows = np.arange(*np.searchsorted(found.seconds, (from_s, from_s + STEP_S)))
    minutes = found.seconds[rows] // 60
    cells = Counter(zip(minutes.tolist(), found.wrong[rows].tolist(), strict=True))
    first = from_s // 60
    made = np.diff(np.arange(first, first + STEP_S // 60 + 1) * PERIOD // (DAY_S // 60))
    part = VersionPart.of(
        VERSION,
        "",
        found.seconds[rows],
        rows,
        found.wrong[rows],
        cells=[(minute, minute, 1, 1 - wrong, n) for (minute, wrong), n in sorted(cells.items())],
        predictions={first + at: n for at, n in enumerate(made.tolist()) if n},
    )
    return Summary(0, 1, number, "loan", "binary", [part])


def shipped(budget: float) -> MonitorSettings:
    """What is shipped, with so many false alarms in 10,000 outcomes, all of them for the error rate."""
    return MonitorSettings(
        false_alarms_per_week=budget * DAYS_A_WEEK * PERIOD / PER, evidence=[], rates=[], repeat_minutes=0
    )


def _stream(
    budget: float, rate: float, days: int, seed: list[int], catalogued: bool, shift: float = 0.0
) -> tuple[Nights, list[int]]:
    rng = np.random.default_rng(seed)
    made = nights(rng, days, rate, shift)
    return made, alarms(made, shipped(budget), registered(rng, rate) if catalogued else None)


def false_alerts(
    budget: float, rate: float, streams: int, outcomes: int, seed: int, early: int, *, catalogued: bool
) -> FalseAlarms:
    """Alarms on streams of so many outcomes in which nothing changes but what a night always does."""
    days = max(2, outcomes // PERIOD)
    found = first = total = 0
    for number in range(streams):
        made, each = _stream(budget, rate, days, [seed, number], catalogued)
        total += len(made.seconds)
        found += len(each)
        first += sum(at < early for at in each)
    return FalseAlarms(found, total, first, streams * early)


def alert_delays(budget: float, rate: float, shift: float, streams: int, seed: int, *, catalogued: bool) -> Delays:
    """Outcomes from a change at the end of the third day until an alarm, within a day."""
    each: list[float] = []
    for number in range(streams):
        made, found = _stream(budget, rate, CHANGE_DAYS + 1, [seed, number], catalogued, shift)
        changed = int(np.searchsorted(made.seconds, made.seconds[0] + CHANGE_DAYS * DAY_S))
        if not found or found[0] >= changed:  # a false alarm is counted elsewhere
            each.append(float(found[0] - changed + 1) if found else math.inf)
    return Delays(tuple(each))
