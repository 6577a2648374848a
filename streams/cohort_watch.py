"""The champion's predictions by when they were made: coverage by class, delays of outcomes, mature accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from detectors.cohorts import ALL, DAY_MINUTES, Cohorts, Count, Counts, Mature
from detectors.label_delay import DAYS, Delays, bucket, quantile, slowest, together
from detectors.windows import SPAN_MINUTES
from streams.arrivals import Minute, Moved
from streams.catalog import label_text
from streams.withholding import Withheld

QUANTILES = (0.5, 0.9, 0.95, 0.99)
NEWEST_MINUTES = (30, 60, DAY_MINUTES)
AGES_MINUTES = (0, 60, 3 * 60, DAY_MINUTES, 3 * DAY_MINUTES, 7 * DAY_MINUTES, 30 * DAY_MINUTES)
"""Between them lie the cohorts whose labelled share is reported, each from cohorts of a size that are kept so long."""


class CohortState(msgspec.Struct):
    """What is stored of it. ``tiers`` as :class:`~detectors.cohorts.Cohorts` has them; ``delays``: day of arrival →
    predicted class → bucket → outcomes.
    """

    tiers: list[dict[int, Counts]] = []
    since: int = -1
    delays: dict[int, dict[str, dict[int, int]]] = {}


@dataclass(frozen=True, slots=True)
class ClassDelays:
    """How long the outcomes of one predicted class took that came in the last days, by quantile; as upper bounds."""

    outcomes: int
    delays_s: Mapping[float, int]

    @classmethod
    def of(cls, delays: Delays) -> ClassDelays:
        """From counts by bucket."""
        found = {share: quantile(delays, share) for share in QUANTILES}
        known = {share: 60 * (minutes + 1) for share, minutes in found.items() if minutes is not None}
        return cls(sum(delays.values()), known)


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How outcomes come. Delays are upper bounds, from the minute of a prediction to that of its outcome's arrival.

    ``delays_s`` by quantile; ``mature_after_s`` is None while too few outcomes are known, else it is that of the class
    ``slowest``. ``windows`` by name, ``classes`` by predicted class; ``cohorts`` are those of each age, newest first.
    """

    delays_s: Mapping[float, int]
    mature_after_s: int | None
    windows: Mapping[str, Mature]
    withheld: Withheld | None = None
    classes: Mapping[str, ClassDelays] = field(default_factory=dict)
    slowest: str | None = None
    cohorts: Sequence[Mature] = ()


class CohortWatch:
    """The cohorts of one version. ``state`` is brought up to date by :meth:`fold`."""

    def __init__(self, state: CohortState) -> None:
        self.state = state
        self.cohorts = Cohorts(state.tiers or None, state.since)
        state.tiers = self.cohorts.tiers
        self._reported: tuple[int, LabelReport] | None = None
        self._slowest = self._measured()

    def fold(self, arrived: Minute, minute: int, version: str) -> None:
        """Let what arrived in a minute count."""
        cohorts, self._reported = self.cohorts, None
        cohorts.advance(minute)
        self.state.since = cohorts.since
        unclassed = arrived.predictions.get(version, 0)
        for (of_version, label), n in sorted(arrived.classes.items()):
            if of_version == version:
                cohorts.add(minute, minute, label, Count(n))
                unclassed -= n
        if unclassed > 0:
            cohorts.add(minute, minute, ALL, Count(unclassed))
        for cohort, label, count in _labelled(arrived, version):
            cohorts.add(minute, cohort, label, count)
            self._delayed(minute, label, minute - cohort, count.outcomes)
        for move in arrived.corrections:
            if move.version == version and move.cohort >= 0:
                label = label_text(move.prediction) if move.metric == "accuracy" else ALL
                cohorts.add(minute, move.cohort, label, Count(loss=_change(move)))
        self._slowest = self._measured()

    def _delayed(self, minute: int, label: str, delay_minutes: int, outcomes: int) -> None:
        day = minute // DAY_MINUTES
        for old in [old for old in self.state.delays if old < day - DAYS]:
            del self.state.delays[old]
        known = self.state.delays.setdefault(day, {}).setdefault(label, {})
        number = bucket(delay_minutes)
        known[number] = known.get(number, 0) + outcomes

    def mature_minutes(self) -> int | None:
        """After how many minutes a cohort is mature; None while too few outcomes are known."""
        return None if self._slowest is None else self._slowest[1]

    def _measured(self) -> tuple[str, int] | None:
        return slowest(self._delays())

    def _delays(self) -> dict[str, Delays]:
        """Of each predicted class, over the days that are kept."""
        days = self.state.delays.values()
        labels = sorted({label for classes in days for label in classes})
        return {label: together(classes[label] for classes in days if label in classes) for label in labels}

    def mature(self, minute: int, span_minutes: int) -> Mature | None:
        """The newest mature cohorts of a span when a minute is over; None if none is known."""
        delay = self.mature_minutes()
        return None if delay is None else self.cohorts.mature(minute, delay, span_minutes)

    def newest(self, minute: int) -> Mature | None:
        """The newest mature cohorts of half an hour, or of the least that is known, when a minute is over."""
        found = (self.mature(minute, span) for span in NEWEST_MINUTES)
        return next((each for each in found if each is not None), None)

    def report(self, minute: int) -> LabelReport:
        """How outcomes come when a minute is over; worked out once for each, as it is asked for every second."""
        if self._reported is None or self._reported[0] != minute:
            self._reported = minute, self._report(minute)
        return self._reported[1]

    def _report(self, minute: int) -> LabelReport:
        delays, delay = self._delays(), self.mature_minutes()
        windows = {name: self.mature(minute, span) for name, span in SPAN_MINUTES.items()}
        ages = [self.cohorts.mature(minute, young, old - young) for young, old in pairwise(AGES_MINUTES)]
        return LabelReport(
            ClassDelays.of(together(delays.values())).delays_s,
            None if delay is None else 60 * (delay + 1),
            {name: each for name, each in windows.items() if each is not None},
            classes={label: ClassDelays.of(each) for label, each in delays.items()},
            slowest=None if self._slowest is None else self._slowest[0],
            cohorts=[each for each in ages if each is not None and each.total.predictions],
        )


def _labelled(arrived: Minute, version: str) -> Iterator[tuple[int, str, Count]]:
    """(cohort, predicted class, count) of outcomes that arrived, always in the same order."""
    for (of_version, cohort, label), (n, wrong) in sorted(arrived.cohorts.items()):
        if of_version == version:
            yield cohort, label, Count(0, n, float(wrong))
    for each in arrived.moments:
        if each.version == version and each.cohort >= 0:
            yield each.cohort, ALL, Count(0, each.n, each.sum_abs)


def _change(move: Moved) -> float:
    """What a correction adds to the loss."""
    if move.metric == "accuracy":
        predicted = label_text(move.prediction)
        return float(predicted != label_text(move.now)) - float(predicted != label_text(move.was))
    return abs(float(move.prediction) - float(move.now)) - abs(float(move.prediction) - float(move.was))
