"""A recall that falls where positives are rare: what the monitor finds with the four rates, and with accuracy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.detection_measure import PER, FalseAlarms
from bench.detection_peers import RUN_LENGTH
from detectors.budget import WEEK_S
from detectors.four_rates import ACTUAL, PREDICTED, Codes
from streams.alerts import Evidence
from streams.order import Errors
from streams.settings import MonitorSettings
from streams.version_watch import VersionWatch

PREVALENCE = 0.005
RECALL = (0.8, 0.4)
FALSE_POSITIVES = 0.005
LEARNING = 150_000
"""At this prevalence recall has learnt from its 500 positives after some 100,000."""
HORIZON = 100_000
PER_SECOND = 100
BATCH_S = 50
START_S = 1_700_000_000
BUDGETS = {"": WEEK_S * PER_SECOND / RUN_LENGTH, "default": MonitorSettings().false_alarms_per_week}
"""False alarms a week: one in 100,000 outcomes, as in the other tables, and what is shipped."""


def classified(rng: np.random.Generator, n: int, recall: float) -> Codes:
    """Codes of outcomes with a rare positive class."""
    actual = rng.random(n) < PREVALENCE
    predicted = np.where(actual, rng.random(n) < recall, rng.random(n) < FALSE_POSITIVES)
    codes: Codes = (ACTUAL * actual + PREDICTED * predicted).astype(np.uint8)
    return codes


@dataclass(slots=True)
class Monitored:
    """A version as the monitor watches it: a hundred outcomes a second."""

    watch: VersionWatch
    fed: int = 0

    def feed(self, codes: Codes) -> list[Evidence]:
        """The detections; ``outcomes_seen`` counts from the first outcome ever."""
        at = self.fed + np.arange(len(codes))
        wrong = ((codes == ACTUAL) | (codes == PREDICTED)).astype(np.float64)
        errors = Errors(START_S + at // PER_SECOND, np.zeros_like(at), at, wrong, codes)
        self.fed += len(codes)
        step = BATCH_S * PER_SECOND
        return [
            each
            for start in range(0, len(codes), step)
            for each in self.watch.feed(errors.slice(start, min(start + step, len(codes))))
        ]


def recall_drop(streams: int, seed: int) -> dict[str, object]:
    """Recall falls from .8 to .4 at a prevalence of .5 %: how many positives and outcomes until one of the four rates
    says so.

    The budget of the model is one false alarm in 100,000 outcomes; ``default`` is the same with that of the settings.
    ``accuracy``: the error rate's own detector, with the whole budget to itself.
    """
    measured = {name: _measured(streams, seed, budget) for name, budget in BUDGETS.items()}
    return {**measured.pop(""), **measured}


def _measured(streams: int, seed: int, false_alarms_per_week: float) -> dict[str, object]:
    settings = MonitorSettings(false_alarms_per_week=false_alarms_per_week, evidence=[])
    apart = settings.model_copy(update={"rates": []})
    outcomes: list[float] = []
    positives: list[float] = []
    accuracy: list[float] = []
    alarms = 0
    for number in range(streams):
        rng = np.random.default_rng([seed, number])
        known, quiet = classified(rng, LEARNING, RECALL[0]), classified(rng, 2 * HORIZON, RECALL[0])
        fallen = classified(rng, HORIZON, RECALL[1])
        ours, alone = Monitored(VersionWatch("accuracy", settings)), Monitored(VersionWatch("accuracy", apart))
        for each in (ours, alone):
            each.feed(known)
        alarms += len(ours.feed(quiet))
        alone.feed(quiet)
        begun = ours.fed
        delay = next((each.outcomes_seen - begun for each in ours.feed(fallen) if each.of_rate), math.inf)
        outcomes.append(delay)
        positives.append(float((fallen[: int(delay)] & ACTUAL).sum()) if math.isfinite(delay) else math.inf)
        accuracy.append(next((float(each.outcomes_seen - begun) for each in alone.feed(fallen)), math.inf))
    rate = FalseAlarms(alarms, 2 * HORIZON * streams)
    return {
        "found": sum(map(math.isfinite, outcomes)),
        "of": streams,
        "delay_positives": finite(float(np.median(positives))),
        "delay_outcomes": finite(float(np.median(outcomes))),
        "accuracy": {"found": sum(map(math.isfinite, accuracy)), "delay_outcomes": finite(float(np.median(accuracy)))},
        "fa_per_10k": rate.rate,
        "fa_upper": rate.upper,
        "budget": false_alarms_per_week / (WEEK_S * PER_SECOND) * PER,
    }


def finite(value: float) -> float | None:
    """None for what was never reached."""
    return value if math.isfinite(value) else None
