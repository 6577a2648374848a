"""False alarms on streams that no textbook allows for, against the budget that was stated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bench.detection_hours import SWINGS, Swing, delays_by_hour, false_alarms_by_hour
from bench.detection_measure import PER, Delays, FalseAlarms, delays, false_alarms
from bench.detection_nights import alert_delays, false_alerts
from bench.detection_peers import adwin, e_detector, page_hinkley
from bench.detection_processes import Rates, dumped, overdispersed, steady, swinging
from detectors.reference import Reference

RATES = (0.02, 0.1, 0.3)
BUDGETS = (1.0, 0.1, 0.01)
"""False alarms per 10,000 outcomes."""
EARLY = 20_000
HOURS_EARLY = 50_000
"""The days in which a profile is learnt, foretells, and is new."""
SHIFTS = {"1.5": 0.5, "2": 1.0}
"""By how much more errors a drift has, of which the delay is measured."""
DEFAULT_DELTA = 0.002
DEFAULT_LAMBDA = 50.0


@dataclass(frozen=True, slots=True)
class Case:
    """A process, and how many of its outcomes are the reference. `low`: it says one standard error too little.
    `monitored`: by what is shipped, which learns from so many and from the time at which they come; `catalogued`:
    there, of a version whose baseline is of so many rows of a training set.
    """

    name: str
    rates: Rates
    reference: int
    low: bool = False
    monitored: bool = False
    catalogued: bool = False

    def known(self, rate: float) -> Reference | None:
        """What the detector is told, if it is not what the reference shows."""
        if not self.low:
            return None
        return Reference.of_rate(self.reference, rate - math.sqrt(rate * (1.0 - rate) / self.reference))


CASES = (
    Case("swing", swinging, 10_000),
    Case("overdispersion", overdispersed, 10_000),
    Case("dumps", dumped, 10_000),
    Case("baseline low", steady, 5_000, low=True),
    Case("swing", swinging, 5_000),
    Case("overdispersion", overdispersed, 5_000),
    Case("dumps", dumped, 5_000, monitored=True),
    Case("dumps, registered", dumped, 5_000, monitored=True, catalogued=True),
)
"""A period of the swing and of the dumps is 10,000 outcomes: half of one is a reference that cannot know the other. Of
dumps the detector alone would have to be told: the monitor, which knows when outcomes came, tells it.
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated: streams of one length, by budget; and for delays, peers, and the monitor's delays, of
    dumps and by the hour.
    """

    streams: dict[float, int]
    length: int
    delays: int
    peers: int
    nights: int
    hours: int = 0
    by_hour: dict[float, int] = field(default_factory=dict)


FULL = Size({1.0: 4, 0.1: 12, 0.01: 36}, 500_000, 40, 2, 10, 40, {1.0: 2, 0.1: 6, 0.01: 18})
QUICK = Size({1.0: 2, 0.1: 2, 0.01: 3}, 100_000, 10, 1, 1, 2, {1.0: 1, 0.1: 1, 0.01: 1})


def cells(size: Size, seed: int) -> Iterator[dict[str, object]]:
    """One object for each case, error rate and budget, as they are measured."""
    for case in CASES:
        for rate in RATES:
            rivers = {
                name: false_alarms(run, case.rates, rate, case.reference, size.peers, size.length, seed).rate
                for name, run in (("adwin", adwin(DEFAULT_DELTA)), ("page_hinkley", page_hinkley(DEFAULT_LAMBDA)))
            }
            for budget in BUDGETS:
                alarms, doubled = measured(case, rate, budget, size, seed)
                yield {
                    "case": case.name,
                    "rate": rate,
                    "reference": case.reference,
                    "budget": budget,
                    "realised": alarms.rate,
                    "fa_upper": alarms.upper,
                    "early": alarms.early / alarms.early_outcomes * PER,
                    "outcomes": alarms.outcomes,
                    "delay": doubled.quantile(0.5),
                    "recall": doubled.recall,
                    "river": rivers,
                }


def hourly(size: Size, seed: int) -> Iterator[dict[str, object]]:
    """The same of swings by the hour, with what is known of the hours and without (``plain``), and a smaller drift."""
    for swing in SWINGS:
        for rate in RATES:
            for budget in BUDGETS:
                known, plain = (_hourly(swing, by_hour, rate, budget, size, seed) for by_hour in ("day", ""))
                yield {"case": swing.name, "rate": rate, "budget": budget, **known, "plain": plain}


def _hourly(
    swing: Swing, by_hour: Literal["", "day"], rate: float, budget: float, size: Size, seed: int
) -> dict[str, object]:
    alarms = false_alarms_by_hour(swing, by_hour, budget, rate, size.by_hour[budget], size.length, seed, HOURS_EARLY)
    found = {
        name: delays_by_hour(swing, by_hour, budget, rate, shift, size.hours, seed + 1)
        for name, shift in SHIFTS.items()
    }
    return {
        "realised": alarms.rate,
        "fa_upper": alarms.upper,
        "early": alarms.early / alarms.early_outcomes * PER,
        "outcomes": alarms.outcomes,
        "delay": {name: each.quantile(0.5) for name, each in found.items()},
        "recall": {name: each.recall for name, each in found.items()},
    }


def measured(case: Case, rate: float, budget: float, size: Size, seed: int) -> tuple[FalseAlarms, Delays]:
    """False alarms, and delays to twice the rate."""
    streams = size.streams[budget]
    if case.monitored:
        alarms = false_alerts(budget, rate, streams, size.length, seed, EARLY, catalogued=case.catalogued)
        return alarms, alert_delays(budget, rate, rate, size.nights, seed + 1, catalogued=case.catalogued)
    run = e_detector(PER / budget, case.known(rate))
    alarms = false_alarms(run, case.rates, rate, case.reference, streams, size.length, seed, EARLY)
    return alarms, delays(run, case.rates, rate, rate, case.reference, size.delays, seed + 1, after=10_000)
