"""What detectors found in a batch of a version's outcomes, and the evidence that comes of it, placed in the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.baseline import Metric
from detectors.budget import Allotted
from detectors.four_rates import RATES
from detectors.pagers import ALL_OUTCOMES
from detectors.part_watch import PartDetection
from detectors.verdict import Detection
from streams.alerts import Evidence
from streams.marks import Marks
from streams.order import Errors

Place = tuple[int, int, int]
"""Of an outcome: second, partition, offset."""


@dataclass(frozen=True, slots=True)
class Found:
    """A detection at an index of the batch; evidence has nothing allotted. What has a place of its own, a rate or a
    segment, has dated its change: ``change_s`` and ``train_from_s``. Of one outcome's, the lowest ``rank`` is told
    first.
    """

    index: int
    rank: int
    detection: Detection
    allotted: Allotted | None
    stream: str = ALL_OUTCOMES
    segment: str = ""
    change_s: int = -1
    train_from_s: int = -1
    by_hour: bool = False

    @classmethod
    def of_part(
        cls, found: PartDetection, index: int, rank: int, *, stream: str = ALL_OUTCOMES, segment: str = ""
    ) -> Found:
        """What was found in a part of the outcomes."""
        return cls(index, rank, found.detection, found.allotted, stream, segment, found.change_s, found.train_from_s)

    def evidence(self, metric: Metric, number: int, place: Place, marks: Marks) -> Evidence:
        """What it is of the version's outcome of that number, which came at ``place``; ``marks`` date the change."""
        detection = self.detection
        if self.change_s >= 0:
            change_s, change_offsets = self.change_s, marks.offsets_at(self.change_s)
            train_from_s = self.train_from_s
        else:
            change_s, change_offsets = marks.locate(max(1, number - detection.window + 1))
            train_from_s, _ = marks.locate(max(1, number - detection.least_squares_window + 1))
        second, partition, offset = place
        return Evidence(
            detector=detection.detector,
            statistic=detection.statistic,
            threshold=detection.threshold,
            metric=self.stream if self.stream in RATES else metric,
            before=detection.before,
            after=detection.after,
            change_s=change_s,
            change_offsets=change_offsets,
            detected_s=second,
            detected_partition=partition,
            detected_offset=offset,
            outcomes_seen=number,
            outcomes_since_change=detection.window,
            false_alarms_per_week=None if self.allotted is None else self.allotted.false_alarms_a_week,
            run_length=None if self.allotted is None else self.allotted.run_length,
            stream=self.stream,
            segment=self.segment,
            by_hour=self.by_hour,
            train_from_s=train_from_s,
        )


def placed(found: Sequence[Found], errors: Errors, metric: Metric, before: int, marks: Marks) -> Iterator[Evidence]:
    """The evidence of a batch in the order in which it came; ``before`` outcomes came before the batch.

    Each is dated by what was known in its own second: all of the batch is marked on the way.
    """
    start = 0
    for each in sorted(found, key=lambda each: (each.index, each.rank)):
        at = each.index
        end = int(np.searchsorted(errors.seconds, errors.seconds[at], side="right"))
        if end > start:
            marks.add(errors.slice(start, end), before + start)
            start = end
        place = int(errors.seconds[at]), int(errors.partitions[at]), int(errors.offsets[at])
        yield each.evidence(metric, before + at + 1, place, marks)
    if start < len(errors):
        marks.add(errors.slice(start, len(errors)), before + start)
