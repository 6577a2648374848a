"""What arrives of the champion's outcomes just now: of which predicted classes, and whether it is a dump."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from detectors.cohorts import HOUR_MINUTES, OTHER, Cohorts, Counts
from detectors.dump import SETTLE_MINUTES, least_dump, suspect
from detectors.one_sided import Arriving, Lacking, of_arrivals
from streams.arrivals import Minute

WINDOWS = (1, 5, 15, HOUR_MINUTES)
"""Minutes that are looked at: those that accuracy rules look at, too."""


class ArrivingState(msgspec.Struct):
    """What is stored of it, by minute; ``dump`` is the last minute that was one, or −1. ``seconds`` are those of the
    newest minute and the one before: outcomes of two classes, and how many of them were predicted to be positive.
    """

    classes: dict[int, dict[str, Arriving]] = {}
    outcomes: dict[int, int] = {}
    predictions: dict[int, int] = {}
    first: int = -1
    dump: int = -1
    seconds: dict[int, tuple[int, int]] = {}


class ArrivingWatch:
    """The last hour of one version's outcomes. ``state`` is all of it."""

    def __init__(self, state: ArrivingState) -> None:
        self.state = state

    def fold(self, arrived: Minute, minute: int, version: str, cohorts: Cohorts) -> None:
        """Let what arrived in a minute count, whose predictions ``cohorts`` have counted."""
        at = self.state
        at.first = minute if at.first < 0 else at.first
        if predictions := arrived.predictions.get(version, 0):
            at.predictions[minute] = at.predictions.get(minute, 0) + predictions
        outcomes = arrived.outcomes_of(version)
        if outcomes:
            at.outcomes[minute] = at.outcomes.get(minute, 0) + outcomes
        classes = at.classes.setdefault(minute, {})
        for (of_version, cohort, label), (n, _) in sorted(arrived.cohorts.items()):
            mix = cohorts.mix(cohort) if of_version == version else None
            if mix is not None:
                _expect(classes, mix, label, n)
        if not classes:
            del at.classes[minute]

    def judge(self, minute: int) -> None:
        """A minute is over: see whether it was a dump, and let go of what is older than an hour before it."""
        at = self.state
        outcomes, before = at.outcomes.get(minute, 0), self._sum(at.outcomes, minute, HOUR_MINUTES)
        if outcomes >= least_dump(max(self._flow(at.predictions, minute), at.predictions.get(minute, 0)), before):
            at.dump = minute
        first = minute - HOUR_MINUTES
        for by_minute in (at.classes, at.outcomes, at.predictions):
            for old in [old for old in by_minute if old <= first]:
                del by_minute[old]

    def may_be_dump(self, second: int, outcomes: int) -> bool:
        """Whether so many outcomes of a minute that is not over, up to a second of it, may be the beginning of a dump.

        Its predictions are not known yet.
        """
        minute = second // 60
        if not self._known(minute):
            return False
        before = self._flow(self.state.outcomes, minute)
        flow = max(self._flow(self.state.predictions, minute), before) if before else 0.0
        return suspect(flow, outcomes, second % 60 + 1)

    def _known(self, minute: int) -> int:
        """Whole minutes of the hour before a minute. The first of all is a part of one: its flow is any."""
        return max(0, min(HOUR_MINUTES, minute - self.state.first - 1)) if self.state.first >= 0 else 0

    def _flow(self, by_minute: Mapping[int, int], minute: int) -> float:
        """What came a minute in the hour before a minute: in the whole minutes of it, or if that is more, in all."""
        known = self._known(minute)
        if not known:
            return 0.0
        return max(self._sum(by_minute, minute, span) / span for span in (known, min(HOUR_MINUTES, known + 1)))

    @staticmethod
    def _sum(by_minute: Mapping[int, int], minute: int, minutes: int) -> int:
        return sum(n for of, n in by_minute.items() if minute - minutes <= of < minute)

    def settling(self, minute: int) -> bool:
        """Whether a dump is going on, or was a few minutes before ``minute``."""
        return self.state.dump >= 0 and minute - self.state.dump < SETTLE_MINUTES

    def lacking(self, minute: int) -> Lacking | None:
        """The predicted class that hardly comes, in any window that ends with ``minute``."""
        for span in WINDOWS:
            total: dict[str, Arriving] = {}
            for of, classes in sorted(self.state.classes.items()):
                if minute - span < of <= minute:
                    for label, each in classes.items():
                        total[label] = total.get(label, Arriving()).plus(each)
            found = of_arrivals(total)
            if found is not None:
                return found
        return None


def _expect(classes: dict[str, Arriving], mix: Counts, label: str, n: int) -> None:
    """Count n outcomes of a class beside what the predictions of their cohort let expect of so many."""
    known = label if label in mix else OTHER
    predictions = sum(count.predictions for count in mix.values())
    if known not in mix or not mix[known].predictions:
        return
    for each, count in mix.items():
        expected = n * count.predictions / predictions
        classes[each] = classes.get(each, Arriving()).plus(Arriving(n if each == known else 0, expected))
