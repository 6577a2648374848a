"""What detectors find while nobody knows whether it is true of the model: it is held, and told or dropped later."""

from __future__ import annotations

from collections.abc import Mapping

from streams.alerts import Evidence
from streams.judging import Judge
from streams.label_watch import LabelWatch
from streams.version_watch import VersionWatch
from streams.watch_state import WatchState
from streams.withholding import DUMP, ONE_SIDED, Withheld

MAX_HELD = 8
"""Of all outcomes, and of each segment."""


class HeldBack:
    """The detections of one model that wait; all of its state is in ``at``."""

    def __init__(self, labels: LabelWatch, judge: Judge, versions: Mapping[str, VersionWatch], at: WatchState) -> None:
        self._labels = labels
        self._judge = judge
        self._versions = versions
        self._at = at

    def takes(self, found: Evidence) -> bool:
        """Hold a detection that pages back if it is in doubt; gives whether it is."""
        if found.run_length is None or not self._in_doubt(found):
            return False
        if sum(each.segment == found.segment for each in self._at.held) < MAX_HELD:
            self._at.held.append(found)
        return True

    def _in_doubt(self, found: Evidence) -> bool:
        """Whether the outcomes that a detection is made of may not be all, or be of one class: then it waits until more
        is known.

        Asks only what is the same wherever the records of an unfinished minute have been cut.
        """
        at = self._at
        if at.withheld is not None and at.withheld.whole:
            return True
        if self._labels.arriving.may_be_dump(found.detected_s, found.outcomes_seen - at.counted):
            return True
        return self._labels.may_be_one_sided(found.change_s, found.detected_s, self._judge.positive)

    def release(self, before: Withheld | None, minute: int) -> list[Evidence]:
        """What is to be told now that a minute is judged, as the verdict is given again: what is true of all that has
        come by now. ``before``: whether the verdict of the minute before was withheld.

        What was found on outcomes of one side is dropped, as is what those did to the detectors; and what was found on
        outcomes that are learnt from, as they came all at once in the first day.
        """
        at, now = self._at, self._at.withheld
        if now is not None and now.whole:
            return []
        tainted = before is not None and before.tainted
        if at.held and (before is None or not before.whole) and at.held[-1].detected_s // 60 >= minute:
            return []  # a dump, or one side, may have begun with the last seconds of the minute: the next one tells
        held, at.held = at.held, []
        watch = self._versions.get(at.champion)
        if watch is None or not (held or tainted):
            return []
        if tainted:
            watch.start_afresh()
            return []
        held = [each for each in held if not watch.drops(each)]
        segments = {each.segment for each in held}
        if before is not None and before.reason in (DUMP, ONE_SIDED):
            minutes = minute - before.since_s // 60 + 1
            believed = {each.segment for each in held if self._judge.holds(each, minute, minutes)}
            for segment in segments - believed:
                watch.start_afresh_of(segment)
            segments = believed
        return [each for each in held if each.segment in segments]

    def recount(self) -> None:
        """A minute is judged: what detectors see from here on is of the next one."""
        self._at.counted = self._count()

    def forget(self) -> None:
        """Another version is champion: what was held was about the one before."""
        self._at.withheld, self._at.held = None, []
        self.recount()

    def _count(self) -> int:
        watch = self._versions.get(self._at.champion)
        return watch.count if watch is not None else 0
