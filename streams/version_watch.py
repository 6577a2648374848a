"""The error stream of one version: its baseline, its detectors, and where in the log each of its outcomes was."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detectors.baseline import Baseline, BaselineLearner, Metric
from detectors.contract import Detector
from detectors.registry import make_detector
from detectors.scaling import ScaledDetector, Scaling
from detectors.snapshot import fields_of, seal
from detectors.verdict import Detection
from streams.alerts import Evidence
from streams.order import Errors

FORMAT = 1
MARKS = 512
"""Seconds remembered for placing a change point: the newest half all of them, the older ones ever more sparsely."""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """After a second: how many outcomes the version had, and the highest outcome offset of each input partition."""

    count: int
    second: int
    offsets: dict[int, int]


class Marks:
    """From the number of an outcome to its time and place, for the past that still matters."""

    def __init__(self, marks: list[Mark] | None = None) -> None:
        self.marks = marks or []

    def add(self, errors: Errors, before: int) -> None:
        """Remember the seconds of a batch that follows ``before`` outcomes; batches end with a second."""
        ends_run = (np.diff(errors.seconds) != 0) | (np.diff(errors.partitions) != 0)
        offsets = dict(self.marks[-1].offsets) if self.marks else {}
        seconds, partitions = errors.seconds, errors.partitions
        for index in [*np.flatnonzero(ends_run).tolist(), len(errors) - 1]:
            partition = int(partitions[index])
            offsets[partition] = max(offsets.get(partition, -1), int(errors.offsets[index]))
            if index + 1 == len(errors) or seconds[index + 1] != seconds[index]:
                self.marks.append(Mark(before + index + 1, int(seconds[index]), dict(offsets)))
                if len(self.marks) > MARKS:
                    self.marks = self.marks[: MARKS // 2 : 2] + self.marks[MARKS // 2 :]

    def locate(self, number: int) -> tuple[int, dict[int, int]]:
        """(second, input partition → first outcome offset that may be later) of outcome ``number``, from 1."""
        index = min(bisect.bisect_left(self.marks, number, key=lambda mark: mark.count), len(self.marks) - 1)
        earlier = self.marks[index - 1].offsets if index else {}
        return self.marks[index].second, {partition: offset + 1 for partition, offset in sorted(earlier.items())}


@dataclass(frozen=True, slots=True)
class _State:
    metric: Metric
    count: int
    learner: bytes
    scale: float | None
    detectors: dict[str, bytes]
    detections: dict[str, int]
    marks: list[Mark]
    registered: Baseline | None


class VersionWatch:
    """One version's errors, each seen once and in order.

    A registered version has a baseline from the catalog and is watched from its first outcome. Any other learns one
    from its first ``baseline_outcomes`` outcomes, and is watched from then on.
    """

    def __init__(self, metric: Metric, detectors: Sequence[str], baseline_outcomes: int) -> None:
        self.metric: Metric = metric
        self.count = 0
        self.registered: Baseline | None = None
        self.detections: dict[str, int] = {}
        """Detections so far, by detector."""
        self.changed = True
        self._names = tuple(detectors)
        self._learner = BaselineLearner(baseline_outcomes, metric)
        self._scale: float | None = None
        self._detectors: list[Detector] = []
        self._marks = Marks()

    @property
    def baseline(self) -> Baseline | None:
        """What the version achieves when nothing is wrong; None while that is being learnt."""
        return self.registered if self.registered is not None else self._learner.baseline

    @property
    def last_s(self) -> int:
        """The second of its newest outcome."""
        return self._marks.marks[-1].second if self._marks.marks else 0

    def register(self, baseline: Baseline | None) -> None:
        """What the catalog says of it now."""
        if baseline != self.registered:
            self.registered, self.changed = baseline, True

    def start_afresh(self) -> None:
        """Forget what the detectors saw: a version that becomes champion again is judged on what comes now."""
        self._detectors = []
        self._scale = None
        self.changed = True

    def feed(self, errors: Errors) -> list[Evidence]:
        """Take in the next errors; gives the detections in the order in which they fired.

        Batches end with a second. How a stream is cut into batches makes no other difference.
        """
        if not len(errors):
            return []
        self.changed = True
        values = np.abs(errors.errors) if self.metric == "mae" else errors.errors
        learnt = self._learner.update_many(values) if self.registered is None else 0
        self._marks.add(errors, self.count)
        found: list[tuple[int, int, Detection]] = []
        if learnt < len(errors):
            self._prepare()
            rest = values[learnt:]
            for rank, detector in enumerate(self._detectors):
                found.extend((each.index + learnt, rank, each) for each in detector.update_many(rest))
        evidence = [self._evidence(errors, index, each) for index, _, each in sorted(found, key=lambda at: at[:2])]
        self.count += len(errors)
        for each in evidence:
            self.detections[each.detector] = self.detections.get(each.detector, 0) + 1
        return evidence

    def _evidence(self, errors: Errors, index: int, found: Detection) -> Evidence:
        number = self.count + index + 1
        change_s, change_offsets = self._marks.locate(max(1, number - found.window + 1))
        return Evidence(
            detector=found.detector,
            statistic=found.statistic,
            threshold=found.threshold,
            metric=self.metric,
            before=found.before,
            after=found.after,
            change_s=change_s,
            change_offsets=change_offsets,
            detected_s=int(errors.seconds[index]),
            detected_partition=int(errors.partitions[index]),
            detected_offset=int(errors.offsets[index]),
            outcomes_seen=number,
            outcomes_since_change=found.window,
        )

    def _prepare(self) -> None:
        """Make the detectors once there is a baseline; that of a regression gives the scale of its errors."""
        if self._detectors or self.baseline is None:
            return
        if self.metric == "mae":
            self._scale = Scaling.from_baseline(self.baseline.value).scale
        self._detectors = self._made()

    def _made(self) -> list[Detector]:
        made = [make_detector(name) for name in self._names]
        if self._scale is None:
            return made
        scaling = Scaling(self._scale)
        return [ScaledDetector(detector, scaling) for detector in made]

    def snapshot(self) -> bytes:
        """The whole state."""
        return seal(
            FORMAT,
            _State(
                self.metric,
                self.count,
                self._learner.snapshot(),
                self._scale,
                {detector.structure: detector.snapshot() for detector in self._detectors},
                self.detections,
                self._marks.marks,
                self.registered,
            ),
        )

    @classmethod
    def restored(cls, sealed: bytes, detectors: Sequence[str], baseline_outcomes: int) -> VersionWatch:
        """The version that a snapshot describes; a detector of a structure that is not in it starts afresh.

        Raises SnapshotError if the bytes are damaged or newer.
        """
        state = fields_of(sealed, FORMAT, _State)
        watch = cls(state.metric, detectors, baseline_outcomes)
        watch.count, watch.detections, watch._scale = state.count, state.detections, state.scale
        watch.registered = state.registered
        watch._learner.restore(state.learner)
        watch._marks = Marks(state.marks)
        watch.changed = False
        if state.detectors:
            watch._detectors = watch._made()
            for detector in watch._detectors:
                if detector.structure in state.detectors:
                    detector.restore(state.detectors[detector.structure])
        return watch
