"""River's ADWIN, fed a batch at a time.

Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", SIAM 2007. A window grows until
two parts of it differ by more than chance allows at confidence δ; then its older part is dropped.
"""

import math
import operator
import struct
from dataclasses import dataclass
from typing import Any

from detectors.change_point import ChangePoint, ChangePointState, Split
from detectors.contract import Errors, checked
from detectors.river_drift import drift
from detectors.snapshot import SnapshotError, fields_like, seal
from detectors.verdict import Detection

FORMAT = 1
DELTA = struct.Struct("<d")
DELTA_AT = (0, -28)  # river 0.26 keeps δ at both ends of ADWIN's state: in force now, and for a copy


@dataclass(frozen=True, slots=True)
class AdwinState:
    structure: str
    count: int
    delta: float
    fired: bool
    window: bytes
    change: ChangePointState


class Adwin:
    """ADWIN on the error stream, reporting a rise of the error only.

    `delta` is the threshold: the chance of a false cut at one check. The other parameters are River's and shape the
    window, which is checked every `clock` errors. A detection's statistic is the mean error after the estimated
    change minus that before; its threshold is ADWIN's bound for two windows of these lengths at this δ. As River
    looks at other cuts than the likeliest, a detection on the edge may name a statistic a little below its threshold.

    >>> adwin = Adwin()
    >>> [d.window for d in adwin.update_many([0.0] * 992 + [1.0] * 32)]
    [32]
    """

    name = "adwin"

    def __init__(
        self,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
    ) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"adwin's delta is {delta}: give a chance between 0 and 1")
        for parameter, value in (("clock", clock), ("max_buckets", max_buckets)):
            if value < 1:
                raise ValueError(f"adwin's {parameter} is {value}: give at least 1")
        self.structure = (
            f"adwin clock={clock} max_buckets={max_buckets} min_window_length={min_window_length} "
            f"grace_period={grace_period}"
        )
        self.count = 0
        self._delta = delta
        self._min_window_length = min_window_length
        self._river: Any = drift.ADWIN(  # type: ignore[no-untyped-call]  # River leaves it untyped
            delta, clock, max_buckets, min_window_length, grace_period
        )
        self._change = ChangePoint()

    def update_many(self, errors: Errors) -> list[Detection]:
        values: list[float] = checked(errors).tolist()
        detections = []
        feed = iter(values)
        start = 0
        river = self._river
        while start < len(values):
            if river.drift_detected:
                river._reset()
            # any() over map() runs without a line of Python an error, and stops behind the one that fires.
            river._drift_detected = any(map(river._helper.update, feed))
            end = len(values) - operator.length_hint(feed)
            self._change.extend(values[start:end])
            if river.drift_detected:
                detection = self._detection(end - 1, self._change.split())
                if detection.after > detection.before:
                    detections.append(detection)
                self._change.reset()
            start = end
        self.count += len(values)
        return detections

    def _detection(self, index: int, split: Split) -> Detection:
        return Detection(
            detector=self.name,
            index=index,
            statistic=split.after - split.before,
            threshold=self._bound(split),
            before=split.before,
            after=split.after,
            window=split.window,
            least_squares_window=split.least_squares_window,
        )

    def _bound(self, split: Split) -> float:
        """ε_cut of the paper's section 3.2 with River's correction for the shortest part."""
        shorter = self._min_window_length - 1
        lengths = (max(1, split.window - shorter), max(1, split.n - split.window - shorter))
        m_inverse = 1.0 / lengths[0] + 1.0 / lengths[1]
        confidence = math.log(2.0 * math.log(split.n) / self._delta)
        return math.sqrt(2.0 * m_inverse * split.variance * confidence) + 2.0 / 3.0 * m_inverse * confidence

    def snapshot(self) -> bytes:
        river = self._river
        state = AdwinState(
            structure=self.structure,
            count=self.count,
            delta=self._delta,
            fired=river.drift_detected,
            window=bytes(river._helper.__getstate__()),
            change=self._change.state(),
        )
        return seal(FORMAT, state)

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, AdwinState, self.structure)
        window = _with_delta(state.window, state.delta, self._delta)
        river = self._river.clone()
        try:
            river._helper.__setstate__(window)
            change = ChangePoint.of(state.change)
        except BaseException as error:
            # Rust's PanicException is a BaseException of no module that could be imported.
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise SnapshotError(f"river does not take the window of the snapshot: {error}") from error
            raise
        river._drift_detected = state.fired
        self._river, self._change, self.count = river, change, state.count


def _with_delta(window: bytes, old: float, new: float) -> bytes:
    """River's state with another δ in force, so that a recalibration keeps the window."""
    patched = bytearray(window)
    for at in DELTA_AT:
        start = at % len(window) if len(window) >= -DELTA_AT[1] else len(window)
        if patched[start : start + DELTA.size] != DELTA.pack(old):
            raise SnapshotError("the snapshot's window is not laid out as river 0.26 does: start the detector afresh")
        patched[start : start + DELTA.size] = DELTA.pack(new)
    return bytes(patched)
