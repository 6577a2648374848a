"""The error stream of one version: its baseline, its detectors, and where in the log each of its outcomes was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import LARGEST, Baseline, BaselineLearner, Metric, keep_before
from detectors.contract import Detector
from detectors.dump import FIRST_DAY_S
from detectors.e_detector import EDetector
from detectors.four_rates import RATES
from detectors.hourly import HOUR_S, HourlyProfile, HourlyState
from detectors.outcome_rate import OutcomeRate, OutcomeRateState
from detectors.pagers import Pagers
from detectors.part_watch import PartDetection
from detectors.reference import LEAST_OUTCOMES, Reference, WindowSums
from detectors.registry import make_detector
from detectors.scaling import ScaledDetector, Scaling
from detectors.snapshot import decode, seal, unseal
from detectors.verdict import Detection
from streams.alerts import Evidence
from streams.binary_rates import BinaryRates, BinaryRatesState
from streams.detecting import Detecting, Normal, Paging, hours_told
from streams.detections import Found, placed
from streams.marks import Mark, Marks
from streams.order import Errors, Floats
from streams.segment_watch import SegmentState, SegmentWatch
from streams.settings import MonitorSettings

FORMAT = 6

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _State:
    """Format 1 had a scale, which follows from the baseline, and no rate of outcomes; format 2 had no four rates, and
    format 3 no segments, format 4 nothing of the first day, format 5 no hours.

    ``last`` is the newest outcome: second, partition, offset. ``day``: the errors of the first day that detectors have
    seen; ``dumps_until_s`` is when a day that is learnt for its dumps is over, 0 if none is.
    """

    metric: Metric
    count: int
    learner: bytes
    detectors: dict[str, bytes]
    detections: dict[str, int]
    marks: list[Mark]
    registered: Baseline | None
    rate: OutcomeRateState = field(default_factory=OutcomeRateState)
    binary: BinaryRatesState = field(default_factory=BinaryRatesState)
    last: tuple[int, int, int] = (0, 0, 0)
    segments: dict[str, SegmentState] = field(default_factory=dict)
    day: WindowSums = field(default_factory=WindowSums)
    dumps_until_s: int = 0
    hours: HourlyState | None = None


class VersionWatch:
    """One version's errors, each seen once and in order.

    A registered version has a baseline from the catalog and is watched from its first outcome. Any other learns one
    from its first ``baseline_outcomes`` outcomes, which rules compare with from then on; detectors watch it when it is
    ``baseline_hours`` old too, and all that came until then is their reference: what they accept begins with it. If
    outcomes come all at once in its first day, the reference is that day, and a registered one learns from it how its
    errors move (:meth:`learn_dumps`).

    With ``by_hour`` the errors of all outcomes are watched by what their hour lets expect, once that is known
    (:mod:`detectors.hourly`); the reference that is learnt covers a whole cycle then.

    The four rates of a binary model page beside them (:mod:`streams.binary_rates`), and so do the segments that are
    watched (:mod:`streams.segment_watch`); both learn what is normal by themselves.
    """

    def __init__(self, metric: Metric, settings: MonitorSettings) -> None:
        self.metric: Metric = metric
        self.count = 0
        self.registered: Baseline | None = None
        self.detections: dict[str, int] = {}
        """Detections so far, by detector."""
        self.changed = True
        self.pagers: Pagers | None = None
        """None while there is no baseline, or nothing was fed since it is there."""
        self._settings = settings
        self._learner = BaselineLearner(settings.baseline_outcomes, metric)
        self._rate = OutcomeRate()
        self._binary = BinaryRates(settings)
        self._segments = SegmentWatch(settings, metric)
        self._last = (0, 0, 0)
        self._day = WindowSums()
        self._dumps_until_s = 0
        self._now_s = 0
        """The second of the newest outcome that detectors of all outcomes have seen, or see."""
        self._hours: HourlyProfile | None = None
        if settings.by_hour and EDetector.name in settings.detectors:
            self._hours = HourlyProfile(settings.by_hour)
        self._beside: list[Detector] = []
        self._marks = Marks()

    @property
    def baseline(self) -> Baseline | None:
        """What the version achieves when nothing is wrong; None while that is being learnt."""
        return self.registered if self.registered is not None else self._learner.baseline

    @property
    def missing(self) -> int:
        """Outcomes still to be learnt from before anything pages."""
        return 0 if self.registered is not None else self._learner.missing

    @property
    def learns_until_s(self) -> int:
        """The second from which on detectors may watch it; 0 if they need not wait for one."""
        begun_s, hours = self._rate.state.begun_s, self._settings.baseline_hours
        if self.registered is not None:
            return 0
        if self._hours is not None:
            hours = max(hours, self._hours.slots)
        return max(begun_s + int(3_600 * hours) if hours and begun_s else 0, self._dumps_until_s)

    def learn_dumps(self, at_s: int) -> None:
        """Outcomes come all at once, up to second ``at_s``: in the first day that is how they come, and learnt.

        What detectors have seen so far tells of a part of a day only. They begin anew when the day is over, and all of
        it is normal. A registered version's begin anew at once, and once more then: a baseline from elsewhere tells
        what is normal, but not how far a dump is from the rest. Does nothing after that day.
        """
        until_s = self._rate.state.begun_s + FIRST_DAY_S
        if self._dumps_until_s or not self._rate.state.begun_s or at_s >= until_s:
            return
        self._dumps_until_s, self.changed = until_s, True
        self._end()
        if self.registered is None:
            self._learner.join(self._day)
            self._day = WindowSums()
        self._binary.learn_until(until_s)
        self._segments.learn_until(until_s)

    @property
    def knows_hours(self) -> bool:
        """Whether it is watched by what its hours let expect."""
        return self._hours is not None and self._hours.on

    @property
    def hour_factor(self) -> float:
        """Times the error of an average hour that the hour of its newest outcome lets expect."""
        return self._hours.factor if self._hours is not None else 1.0

    def take_hours_of(self, other: VersionWatch) -> None:
        """In its first day or week, begin with what is known of another version's hours, at the end of a minute."""
        if self._hours is not None and other._hours is not None and self.metric == other.metric:
            self.changed |= self._hours.take_over(other._hours)

    def drops(self, found: Evidence) -> bool:
        """Drop a detection if it is of outcomes from which is learnt, since they came all at once; tells whether it
        is.
        """
        if found.detected_s > self._dumps_until_s:
            return False
        if not (found.of_rate or found.segment):
            self._end()
        return True

    @property
    def last_s(self) -> int:
        """The second of its newest outcome."""
        return self._marks.marks[-1].second if self._marks.marks else 0

    @property
    def outcomes_per_s(self) -> float:
        """As last measured; 0 before the first outcome."""
        return self._rate.per_s

    @property
    def _budget(self) -> float:
        """False alarms a week of the detectors on all outcomes."""
        return self._settings.false_alarms_per_week * (1.0 - self._binary.share - self._segments.share)

    @property
    def detecting(self) -> Detecting:
        """How it is watched now, for whoever asks why."""
        budget, pagers = self._settings.false_alarms_per_week, self.pagers
        rates, segments = self._binary.detecting, self._segments.detecting(self.count)
        if pagers is None:
            until_s = self.learns_until_s
            at_once = 0 < until_s == self._dumps_until_s
            return Detecting(
                budget,
                self.outcomes_per_s,
                self.missing,
                rates=rates,
                until_s=until_s,
                segments=segments,
                at_once=at_once,
                hours=hours_told(self._hours),
            )
        scale, spread = pagers.scale, pagers.spread
        normal = Normal(
            pagers.reference_outcomes,
            spread.rate * scale,
            spread.standard_error * scale,
            spread.dispersion,
            spread.wander * scale,
        )
        paging = [
            Paging(each.watched.stream, each.watched.detector, each.watched.share, threshold)
            for each, threshold in zip(pagers.allotted, pagers.thresholds, strict=True)
        ]
        return Detecting(
            budget,
            self.outcomes_per_s,
            0,
            scale,
            normal,
            pagers.level,
            paging,
            rates,
            self._budget,
            segments=segments,
            hours=hours_told(self._hours),
        )

    def register(self, baseline: Baseline | None) -> None:
        """What the catalog says of it now; another baseline than before is another reference."""
        if baseline != self.registered:
            self.registered = baseline
            self.start_afresh()

    def name_positive(self, positive: str) -> None:
        """The spelling of the class that is the positive one now, empty without one."""
        if self._binary.name_positive(positive):
            self.changed = True
            self._reallot()

    def _reallot(self) -> None:
        if self.pagers is not None and self.pagers.budget != self._budget:
            self.pagers.recalibrate(self._rate.per_s, self._budget)

    def start_afresh(self) -> None:
        """Forget what the detectors saw, not the baseline: a version that becomes champion again is judged on what
        comes now.
        """
        self.start_afresh_of("")
        self._segments.start_afresh()

    def start_afresh_of(self, segment: str) -> None:
        """The same of the detectors of one segment, or of those of all outcomes ("")."""
        if segment:
            self._segments.start_afresh(segment)
        else:
            self._end()
            self._binary.start_afresh()
        self.changed = True

    def _end(self) -> None:
        """Forget what the detectors of all outcomes saw."""
        if self._hours is not None and self.pagers is not None and self.pagers.drifted:
            self._hours.spoil()
        self.pagers, self._beside = None, []

    def baseline_of(self, segment: str) -> Baseline | None:
        """The baseline of a segment that is watched, or of all outcomes (""); None while it is not known."""
        return self._segments.baseline(segment) if segment else self.baseline

    def feed(self, errors: Errors) -> list[Evidence]:
        """Take in the next errors; gives the detections in the order in which they fired.

        Batches end with a second. How a stream is cut into batches makes no other difference.
        """
        if not len(errors):
            return []
        self.changed = True
        values = np.abs(errors.errors) if self.metric == "mae" else errors.errors
        found: list[Found] = []
        start = 0
        while start < len(errors):
            end = self._binary.begin_or_end(errors, start)
            self._reallot()
            found.extend(self._feed(values[start:end], errors.seconds[start:end], start))
            if errors.codes is not None:
                looks = self._binary.feed(errors.codes[start:end], errors.seconds[start:end])
                found.extend(self._of_rate(each, start + index) for index, each in looks)
            start = end
        of_segments = self._segments.feed(values, errors.seconds, errors.segments, self.count)
        found.extend(self._of_segment(each, place) for place, each in of_segments)
        evidence = list(placed(found, errors, self.metric, self.count, self._marks))
        self.count += len(errors)
        self._last = int(errors.seconds[-1]), int(errors.partitions[-1]), int(errors.offsets[-1])
        self._counted(evidence)
        return evidence

    def look(self, at_s: int) -> list[Evidence]:
        """Look at the outcomes that the four rates have gathered, at the end of a minute of the stream."""
        found = self._binary.look()
        if not found:
            return []
        self.changed = True
        place = at_s, *self._last[1:]
        evidence = [self._of_rate(each, -1).evidence(self.metric, self.count, place, self._marks) for each in found]
        self._counted(evidence)
        return evidence

    def _counted(self, evidence: Sequence[Evidence]) -> None:
        for each in evidence:
            self.detections[each.detector] = self.detections.get(each.detector, 0) + 1

    def _of_rate(self, found: PartDetection, index: int) -> Found:
        rank = 1 + len(self._settings.evidence) + list(RATES).index(found.stream)
        return Found.of_part(found, index, rank, stream=found.stream)

    def _of_segment(self, found: PartDetection, place: int) -> Found:
        rank = 1 + len(self._settings.evidence) + len(RATES) + place
        return Found.of_part(found, found.index, rank, segment=found.stream)

    def _feed(self, values: Floats, seconds: Ints, offset: int) -> list[Found]:
        """Feed errors under one budget, the first of them at an index of the batch."""
        found: list[Found] = []
        start = 0
        while start < len(values):
            taken, moved = self._rate.take(seconds[start:])
            if moved and self.pagers is not None:
                self.pagers.recalibrate(self._rate.per_s)
            while taken:
                within = self._alike(seconds[start : start + taken])
                end = start + within
                found.extend(self._detect(values[start:end], seconds[start:end], offset + start))
                start, taken = end, taken - within
        return found

    def _alike(self, seconds: Ints) -> int:
        """How many at the front are watched like the first one, and begins what begins with it: an hour, or, for a
        registered version, what follows a day that was learnt for its dumps.
        """
        before_s, self._now_s = self._now_s, int(seconds[0])
        alike = len(seconds)
        if self.registered is not None and self._dumps_until_s:
            if before_s < self._dumps_until_s <= self._now_s:
                self._end()
            elif self._now_s < self._dumps_until_s:
                alike = int(np.searchsorted(seconds, self._dumps_until_s))
        if self._hours is None:
            return alike
        pagers = self.pagers
        if self._hours.turn(self._now_s, pagers is not None and pagers.drifted) and pagers is not None:
            self.pagers = self._pagers()
            self.pagers.restore(pagers.snapshot())
        return min(alike, int(np.searchsorted(seconds, (self._now_s // HOUR_S + 1) * HOUR_S)))

    def _detect(self, values: Floats, seconds: Ints, offset: int) -> list[Found]:
        """Feed errors of one rate of outcomes, the first of them at an index of the batch."""
        if self._hours is not None:
            self._hours.add(np.minimum(values, LARGEST))
        learnt = self._learner.update_many(values) if self.missing else 0
        if self.pagers is None and learnt < len(values):
            early = int(np.searchsorted(seconds, self.learns_until_s))
            if early > learnt:
                self._learner.observe(values[learnt:early])
                learnt = early
        if learnt == len(values):
            return []
        pagers = self._prepared()
        if self.registered is not None or not self._dumps_until_s:
            keep_before(self._day, values[learnt:], seconds[learnt:], self._rate.state.begun_s + FIRST_DAY_S)
        rest, offset = values[learnt:], offset + learnt
        if self._hours is not None:
            pagers.expect(self._hours.factor, self._hours.unsure)
        found = [
            Found(offset + each.detection.index, 0, each.detection, each.allotted) for each in pagers.update_many(rest)
        ]
        if self._hours is not None:
            found = [replace(each, by_hour=self._hours.on and _knows_hours(each.detection)) for each in found]
            if any(_knows_hours(each.detection) for each in found):
                self._hours.spoil()  # others find every swing
        for rank, detector in enumerate(self._beside, 1):
            found.extend(Found(offset + each.index, rank, each, None) for each in detector.update_many(rest))
        return found

    @property
    def reference(self) -> Reference | None:
        """What the errors were when nothing was wrong, in the detectors' unit; None while there is no baseline."""
        baseline = self.baseline
        if baseline is None:
            return None
        scaling = self._scaling(baseline)
        scale = scaling.scale if scaling is not None else 1.0
        if self.registered is None and (learnt := self._learner.reference(scale)) is not None:
            return learnt
        rate = (1.0 - baseline.value) if scaling is None else baseline.value / scale
        return Reference.of_rate(max(LEAST_OUTCOMES, baseline.n), rate, baseline.standard_error / scale)

    def _scaling(self, baseline: Baseline) -> Scaling | None:
        """A regression's baseline gives the scale of its errors."""
        return Scaling.from_baseline(baseline.value) if self.metric == "mae" else None

    def _prepared(self) -> Pagers:
        """The detectors that page, made with those beside them once there is a baseline."""
        if self.pagers is None:
            self.pagers, settings = self._pagers(), self._settings
            scaling = None if self.baseline is None else self._scaling(self.baseline)
            beside = [make_detector(name) for name in settings.evidence if name not in settings.detectors]
            self._beside = beside if scaling is None else [ScaledDetector(each, scaling) for each in beside]
        return self.pagers

    @property
    def _knows_day(self) -> bool:
        """Whether the first day of a registered version, which had a dump, is over, and tells how errors move."""
        return 0 < self._dumps_until_s <= self._now_s and self._day.windows > 1

    def _pagers(self) -> Pagers:
        baseline, reference = self.baseline, self.reference
        if baseline is None or reference is None:
            raise RuntimeError("detectors were asked for before there is a baseline")
        scaling = self._scaling(baseline)
        scale = 1.0 if scaling is None else scaling.scale
        known = None if self._hours is None else self._hours.known(scale)
        by_hour = known is not None
        if by_hour and self.registered is None:
            # How far its rate may be off follows from what is left of the swing, not from what it was.
            reference = Reference.of_rate(max(LEAST_OUTCOMES, int(reference.n)), reference.rate)
        if not by_hour and self.registered is not None and self._knows_day:
            known = self._day.reference(scale)
        return Pagers(self._settings.detectors, self._budget, reference, scaling, self._rate.per_s, known, by_hour)

    def snapshot(self) -> bytes:
        """The whole state."""
        pagers = self.pagers.snapshot() if self.pagers is not None else {}
        return seal(
            FORMAT,
            _State(
                self.metric,
                self.count,
                self._learner.snapshot(),
                pagers | {detector.structure: detector.snapshot() for detector in self._beside},
                self.detections,
                self._marks.marks,
                self.registered,
                self._rate.state,
                self._binary.state,
                self._last,
                self._segments.states,
                self._day,
                self._dumps_until_s,
                None if self._hours is None else self._hours.state,
            ),
        )

    @classmethod
    def restored(cls, sealed: bytes, settings: MonitorSettings) -> VersionWatch:
        """The version that a snapshot describes; a detector of a structure that is not in it starts afresh.

        Raises SnapshotError if the bytes are damaged or newer.
        """
        state = decode(unseal(sealed, FORMAT)[1], _State)
        watch = cls(state.metric, settings)
        watch.count, watch.detections, watch.registered = state.count, state.detections, state.registered
        watch._learner.restore(state.learner)
        watch._marks = Marks(state.marks)
        watch._rate = OutcomeRate(state.rate if state.rate.next_s else _rate_of(state.marks))
        watch._binary, watch._last = BinaryRates(settings, state.binary), state.last
        watch._segments = SegmentWatch(settings, state.metric, state.segments)
        watch._day, watch._dumps_until_s = state.day, state.dumps_until_s
        watch._now_s = watch._last[0]
        if watch._hours is not None and state.hours is not None and state.hours.by == settings.by_hour:
            watch._hours = HourlyProfile(state.hours.by, state.hours)
        if state.detectors:
            watch._prepared().restore(state.detectors)
            for detector in watch._beside:
                if detector.structure in state.detectors:
                    detector.restore(state.detectors[detector.structure])
        watch.changed = False
        return watch


def _knows_hours(found: Detection) -> bool:
    """Whether it is of the one detector that does."""
    return found.detector == EDetector.name


def _rate_of(marks: Sequence[Mark]) -> OutcomeRateState:
    """The rate of outcomes as the marks of a state of format 1 have it."""
    if not marks:
        return OutcomeRateState()
    first, last = marks[0], marks[-1]
    per_s = max(1, last.count - first.count) / (last.second - first.second + 1)
    return OutcomeRateState(last.second, last.second, last.second + 1, per_s)
