"""A model's windows: buckets of the minutes that are judged, and what has arrived since, by version and segment."""

from __future__ import annotations

from collections.abc import Collection

from detectors.tally import Tally
from detectors.windows import Windows
from streams.arrivals import Arrivals, Minute, Moved, combined
from streams.catalog import label_text

MAX_SEGMENTS = 100
"""Segments with windows, a version; more of them count in the version's own windows only, unless they are watched."""

Series = tuple[str, str]
"""Version and segment; the segment "" is all rows of the version."""


class ModelWindows:
    """The windows of each series; ``arrivals`` are the minutes that are not in them yet. The segments that are
    ``watched`` always have windows.
    """

    def __init__(self, arrivals: Arrivals, watched: Collection[str] = ()) -> None:
        self.series: dict[Series, Windows] = {}
        self._arrivals = arrivals
        self._watched = frozenset(watched)

    def fold(self, arrived: Minute, minute: int) -> None:
        """Let what arrived in a minute count."""
        for (version, segment, predicted, outcome), n in sorted(arrived.cells.items()):
            for windows in self._counting(version, segment):
                windows.add(minute, [(predicted, outcome, n)])
        for each in arrived.moments:
            for windows in self._counting(each.version, each.segment):
                windows.add_regression(minute, each.n, each.sum_abs, each.sum_sq, each.sum_err)
        for move in arrived.corrections:
            for windows in self._counting(move.version, move.segment):
                _move(windows, move)

    def _counting(self, version: str, segment: str) -> list[Windows]:
        found = [self.window(version, "")]
        if segment:
            known = self.series.get((version, segment))
            if known is None and (
                segment in self._watched or sum(series[0] == version for series in self.series) <= MAX_SEGMENTS
            ):
                known = self.window(version, segment)
            if known is not None:
                found.append(known)
        return found

    def window(self, version: str, segment: str) -> Windows:
        """The windows of a series, made at first sight."""
        return self.series.setdefault((version, segment), Windows())

    @property
    def versions(self) -> set[str]:
        """The versions that have windows, or will."""
        return {version for version, _ in self.series} | self._arrivals.versions

    def segments(self, version: str) -> list[str]:
        """The segments of a version that have windows, or will, all rows ("") first."""
        known = {"", *(segment for of_version, segment in self.series if of_version == version)}
        arriving = sorted(self._arrivals.segments(version) - known)
        return sorted(known | set(arriving[: MAX_SEGMENTS + 1 - len(known)]))

    def total(self, version: str, minute: int, span: int, segment: str = "") -> Tally:
        """All rows of a version, or of a segment of it, in the judged minutes of a span that ends with ``minute``."""
        windows = self.series.get((version, segment))
        return windows.total(minute, span) if windows is not None else Tally(0)

    def tally(self, version: str, segment: str, next_minute: int, span: int) -> Tally:
        """A window as it stands: the judged minutes before ``next_minute``, and what has arrived since."""
        windows = self.series.get((version, segment))
        last = max(next_minute - 1, windows.latest if windows is not None else -1)
        held = self._arrivals.tally(version, segment, last - span + 1)
        return combined(windows.total(last, span) if windows is not None and windows.latest >= 0 else Tally(0), held)

    def advance(self, minute: int) -> None:
        """Let go of the buckets that no window ending at ``minute``, or later, needs."""
        for windows in self.series.values():
            windows.advance(minute)


def _move(windows: Windows, move: Moved) -> None:
    """Undo a pair in its own minute and count it anew."""
    if move.metric == "accuracy":
        predicted = label_text(move.prediction)
        cells = [(predicted, label_text(move.was), -1), (predicted, label_text(move.now), 1)]
        windows.add(move.minute, cells)
        return
    was, now = (float(move.prediction) - float(outcome) for outcome in (move.was, move.now))
    windows.add_regression(move.minute, 0, abs(now) - abs(was), now * now - was * was, now - was)
