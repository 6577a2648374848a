"""The detectors of a version that may page, within a budget of false alarms a week."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from detectors.budget import Allotted, Watched, allot
from detectors.contract import Detector, Errors
from detectors.e_detector import EDetector
from detectors.reference import Reference
from detectors.registry import make_detector
from detectors.scaling import ScaledDetector, Scaling
from detectors.verdict import Detection

ALL_OUTCOMES = "errors"


@dataclass(frozen=True, slots=True)
class Page:
    """A detection, and the part of the budget that it was made within."""

    detection: Detection
    allotted: Allotted


class Pagers:
    """The detectors `names` on all errors of a version, sharing its model's budget.

    What is acceptable is the `reference`, of scaled errors if there is a scaling. Thresholds follow the outcomes a
    second through :meth:`recalibrate`; the detectors keep their statistics. `known` are errors that say how such ones
    move, beside the reference. With `by_hour` they are divided by their hours' factors, and the e-detector follows
    :meth:`expect`; others do not know the hour.
    """

    def __init__(
        self,
        names: Sequence[str],
        false_alarms_a_week: float,
        reference: Reference,
        scaling: Scaling | None,
        outcomes_per_s: float,
        known: Reference | None = None,
        by_hour: bool = False,
    ) -> None:
        self._names = tuple(names)
        self.budget = false_alarms_a_week
        self._reference = reference
        self._scaling = scaling
        self._known = known
        self._by_hour = by_hour
        self._expected = (1.0, 0.0)
        self.spread = reference.spread
        """What is normal, in the detectors' unit, from :attr:`reference_outcomes`."""
        if known is not None:
            moves = known.spread
            self.spread = replace(self.spread, dispersion=moves.dispersion, wander=moves.wander)
        self.reference_outcomes = reference.n
        self.allotted = self._allot(outcomes_per_s)
        self._detectors = [self._made(each) for each in self.allotted]

    def _allot(self, outcomes_per_s: float) -> list[Allotted]:
        rate = self._reference.rate
        watched = [Watched(ALL_OUTCOMES, name, 1.0, rate) for name in self._names]
        return allot(self.budget, outcomes_per_s, watched) if watched else []

    def _made(self, allotted: Allotted) -> Detector:
        name = allotted.watched.detector
        normal = {"reference": self._reference, "known": self._known, "by_hour": self._by_hour}
        detector = make_detector(name, **allotted.parameters, **(normal if name == EDetector.name else {}))
        if isinstance(detector, EDetector):
            detector.expect(*self._expected)
        return detector if self._scaling is None else ScaledDetector(detector, self._scaling)

    def recalibrate(self, outcomes_per_s: float, false_alarms_a_week: float | None = None) -> None:
        """Let the budget, or another, hold at this rate of outcomes from the next error on."""
        if false_alarms_a_week is not None:
            self.budget = false_alarms_a_week
        self.allotted = self._allot(outcomes_per_s)
        for place, allotted in enumerate(self.allotted):
            before, self._detectors[place] = self._detectors[place], self._made(allotted)
            self._detectors[place].restore(before.snapshot())

    def expect(self, factor: float, unsure: float = 0.0) -> None:
        """From the next error on, as many times the average error are normal, give or take a standard deviation."""
        if (factor, unsure) != self._expected:
            self._expected = (factor, unsure)
            for each in self._e_detectors:
                each.expect(factor, unsure)

    @property
    def drifted(self) -> bool:
        """Whether a drift that the e-detector found is not over."""
        return any(each.drifted for each in self._e_detectors)

    @property
    def _e_detectors(self) -> list[EDetector]:
        inner = (each.inner if isinstance(each, ScaledDetector) else each for each in self._detectors)
        return [each for each in inner if isinstance(each, EDetector)]

    def update_many(self, errors: Errors) -> list[Page]:
        """Feed errors, oldest first; a detector's pages are in order, one detector's behind the other's.

        Raises InvalidValue for an error out of range.
        """
        return [
            Page(found, allotted)
            for detector, allotted in zip(self._detectors, self.allotted, strict=True)
            for found in detector.update_many(errors)
        ]

    @property
    def level(self) -> float | None:
        """The error that the e-detector accepts on average now, in the errors' unit; None if it is not among the
        detectors.
        """
        for each in self._e_detectors:
            if each.level is not None:
                return each.level * self.scale
        return None

    @property
    def scale(self) -> float:
        """By which errors are divided before a detector sees them."""
        return self._scaling.scale if self._scaling is not None else 1.0

    @property
    def thresholds(self) -> list[float]:
        """The parameter of each detector that the budget decides."""
        return [each.parameters.get("threshold", each.parameters.get("delta", 0.0)) for each in self.allotted]

    def snapshot(self) -> dict[str, bytes]:
        """The state of each detector by its structure."""
        return {detector.structure: detector.snapshot() for detector in self._detectors}

    def restore(self, sealed: Mapping[str, bytes]) -> None:
        """Take over the states; a detector whose structure has none starts afresh.

        Raises SnapshotError if one is damaged or newer.
        """
        for detector in self._detectors:
            if detector.structure in sealed:
                detector.restore(sealed[detector.structure])
