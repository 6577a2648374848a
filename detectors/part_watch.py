"""The errors of a part of a version's outcomes (those of one of the four rates, or of a segment), watched on their own.

A part has what the whole has: a reference that is learnt, a measured rate of outcomes, a share of the model's budget
and an e-detector. Its reference is what it was while the version's own baseline was learnt, and longer if it had fewer
than 500 outcomes by then: what is rare is known late.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import LARGEST, keep_before
from detectors.budget import BY_PROOF, Allotted, Watched, allot
from detectors.dump import FIRST_DAY_S
from detectors.e_detector import EDetector
from detectors.outcome_rate import OutcomeRate, OutcomeRateState
from detectors.reference import WINDOW, Reference, WindowSums
from detectors.scaling import Scaling
from detectors.verdict import Detection

LEAST_OUTCOMES = WINDOW
"""Outcomes of its own that a part learns from at least: at a prevalence of .5 % they are 100,000 of the version."""
MARGIN = 1.5
"""Standard errors of what is known by which the acceptable level is above it: more than for all outcomes, because 500
are a tenth of their reference, and little once the part has learnt more.
"""
MARKS = 128
"""Seconds remembered for placing a change point: the newest half all of them, the older ones ever more sparsely."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class PartState:
    """`marks` are (outcomes so far, second). An empty `detector` has not begun. `day`: the errors of the first day that
    were not learnt from; states of releases before have none.
    """

    count: int = 0
    rate: OutcomeRateState = field(default_factory=OutcomeRateState)
    learner: WindowSums = field(default_factory=WindowSums)
    learnt: bool = False
    detector: bytes = b""
    marks: list[tuple[int, int]] = field(default_factory=list)
    day: WindowSums = field(default_factory=WindowSums)


@dataclass(frozen=True, slots=True)
class PartDetection:
    """A part got worse. `index` is the place in the batch, `change_s` the second of the first outcome after the
    estimated change, `train_from_s` that of the first behind the split of least squares; the detection's own numbers
    count outcomes of the part.
    """

    stream: str
    index: int
    detection: Detection
    change_s: int
    train_from_s: int
    allotted: Allotted


class PartWatch:
    """One part. `learning` is how many outcomes of the version its reference covers at least, all before second
    `until_s` among them.

    With `absolute`, errors are absolute ones of a regression, in the target's unit: the detector sees them divided by
    a scale that its own reference gives, and detections have `before` and `after` in that unit again.
    """

    def __init__(
        self,
        stream: str,
        false_alarms_a_week: float,
        learning: int,
        state: PartState | None = None,
        until_s: int = 0,
        *,
        absolute: bool = False,
    ) -> None:
        self.stream = stream
        self.detector: EDetector | None = None
        """None while the reference is being learnt, or nothing came since."""
        self.allotted: Allotted | None = None
        self.budget = false_alarms_a_week
        self._learning = learning
        self._until_s = until_s
        self._absolute = absolute
        self._state = state if state is not None else PartState()
        self._rate = OutcomeRate(self._state.rate)
        if self._state.detector:
            self._make().restore(self._state.detector)

    @property
    def count(self) -> int:
        """Outcomes that it has seen."""
        return self._state.count

    @property
    def outcomes_per_s(self) -> float:
        """Its own, as last measured; 0 before the first."""
        return self._rate.per_s

    @property
    def missing(self) -> int:
        """Outcomes of its own still to learn from at least; 0 also while the version's baseline is still learnt."""
        return 0 if self._state.learnt else max(0, LEAST_OUTCOMES - self.count)

    @property
    def scale(self) -> float:
        """By which errors are divided before the detector sees them: 1 unless they are absolute ones, and known."""
        learner = self._state.learner
        if not (self._absolute and learner.windows):
            return 1.0
        return Scaling.from_baseline(learner.total / (learner.windows * WINDOW)).scale

    @property
    def reference(self) -> Reference | None:
        """What it was when nothing was wrong, in the detector's unit; None until it is known."""
        return self._state.learner.reference(self.scale) if self._state.learnt else None

    def allow(self, false_alarms_a_week: float) -> None:
        """Another budget from the next outcome on."""
        self.budget = false_alarms_a_week
        self._recalibrate()

    def start_afresh(self) -> None:
        """Forget what the detector saw, not the reference."""
        self.detector = self.allotted = None

    def learn_until(self, second: int) -> None:
        """Learn on: what has come in the first day and what comes before a second is normal too."""
        self._until_s = max(self._until_s, second)
        self._state.learner.join(self._state.day)
        self._state.day, self._state.learnt = WindowSums(), False
        self.start_afresh()

    def update_many(self, seconds: Ints, errors: Floats, numbers: Ints) -> list[PartDetection]:
        """Feed outcomes of the part, oldest first: their seconds, errors from 0 to 1 (or absolute ones), and numbers
        among the version's outcomes, from 1.

        Batches end with a second; how the stream is cut into them makes no other difference.
        """
        if not len(errors):
            return []
        before = self.count
        found: list[tuple[int, Detection, Allotted]] = []
        start = 0
        while start < len(errors):
            taken, moved = self._rate.take(seconds[start:])
            if moved:
                self._recalibrate()
            end = start + taken
            learnt = self._learn(errors[start:end], numbers[start:end], seconds[start:end])
            self._state.count += learnt
            if learnt < taken:
                until_s = self._rate.state.begun_s + FIRST_DAY_S
                keep_before(self._state.day, errors[start + learnt : end], seconds[start + learnt : end], until_s)
                found.extend(self._detect(errors[start + learnt : end], start + learnt))
            start = end
        return self._placed(found, seconds, before)

    def _placed(self, found: list[tuple[int, Detection, Allotted]], seconds: Ints, before: int) -> list[PartDetection]:
        """The detections with their times; each is placed by what was known in its own second."""
        placed: list[PartDetection] = []
        start = 0
        for index, each, allotted in found:
            end = int(np.searchsorted(seconds, seconds[index], side="right"))
            self._remember(seconds[start:end], before + start)
            start = end
            change_s, train_from_s = (
                self._second_of(max(1, before + index + 2 - window))
                for window in (each.window, each.least_squares_window)
            )
            placed.append(PartDetection(self.stream, index, each, change_s, train_from_s, allotted))
        self._remember(seconds[start:], before + start)
        return placed

    def _learn(self, errors: Floats, numbers: Ints, seconds: Ints) -> int:
        """Gives how many errors at the front the reference was learnt from."""
        if self._state.learnt:
            return 0
        covered = int(numbers.searchsorted(self._learning, side="right"))
        early = int(seconds.searchsorted(self._until_s))
        taken = min(len(errors), max(covered, early, LEAST_OUTCOMES - self.count))
        self._state.learner.add(np.minimum(errors[:taken], LARGEST))
        self._state.learnt = taken < len(errors)
        return taken

    def _detect(self, errors: Floats, offset: int) -> list[tuple[int, Detection, Allotted]]:
        detector = self.detector if self.detector is not None else self._make()
        self._state.count += len(errors)
        if self.allotted is None:
            raise RuntimeError(f"{self.stream} has a detector and no budget")
        if not self._absolute:
            return [(offset + each.index, each, self.allotted) for each in detector.update_many(errors)]
        scale = self.scale
        found = [
            replace(each, before=each.before * scale, after=each.after * scale)
            for each in detector.update_many(Scaling(scale).apply(errors))
        ]
        return [(offset + each.index, each, self.allotted) for each in found]

    def _make(self) -> EDetector:
        reference = self._state.learner.reference(self.scale)
        watched = Watched(self.stream, BY_PROOF, 1.0, reference.rate)
        [self.allotted] = allot(self.budget, self._rate.per_s, [watched])
        self.detector = EDetector(threshold=self.allotted.run_length, margin=MARGIN, reference=reference)
        return self.detector

    def _recalibrate(self) -> None:
        before = self.detector
        if before is not None:
            self._make().restore(before.snapshot())

    def _remember(self, seconds: Ints, before: int) -> None:
        """``before`` outcomes came before these."""
        if not len(seconds):
            return
        marks = self._state.marks
        for end in [*((seconds[1:] != seconds[:-1]).nonzero()[0] + 1).tolist(), len(seconds)]:
            marks.append((before + end, int(seconds[end - 1])))
            if len(marks) > MARKS:
                marks[: MARKS // 2] = marks[: MARKS // 2 : 2]

    def _second_of(self, number: int) -> int:
        """The second of one of its outcomes, from 1."""
        marks = self._state.marks
        return marks[min(bisect.bisect_left(marks, number, key=lambda mark: mark[0]), len(marks) - 1)][1]

    @property
    def state(self) -> PartState:
        """The whole state, to be stored."""
        state = self._state
        state.rate = self._rate.state
        state.detector = self.detector.snapshot() if self.detector is not None else b""
        return state


def divided(false_alarms_a_week: float, streams: Sequence[str]) -> dict[str, float]:
    """A budget in equal parts."""
    return {stream: false_alarms_a_week / len(streams) for stream in streams}
