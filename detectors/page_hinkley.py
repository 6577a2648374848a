"""The Page-Hinkley test as River has it, a column of errors at a time.

Page, "Continuous inspection schemes", Biometrika 1954. A sum of (error − mean − δ) falls while nothing
changes; when it has climbed more than λ above its lowest point, the error has risen.

River's own takes half a µs an error, as much as reading and decoding it. Its sum s ← α s + d is a running sum of the
d α⁻ⁱ, times αⁱ: plain accumulations, over blocks that are short enough for these powers to stay near 1. That the
detections are River's is a test.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.change_point import ChangePoint, ChangePointState, Split
from detectors.contract import Errors, checked
from detectors.snapshot import SnapshotError, fields_like, seal
from detectors.verdict import Detection
from native.sums import Climb, Rule, Step, stepping

FORMAT = 2
LONGEST_BLOCK = 1024
LARGEST_POWER = 2.0
"""Of α⁻ⁱ within a block: what is added up keeps its digits."""


@dataclass(slots=True)
class Sums:
    """Since the last reset: `n` errors and their `total`; the sum at the beginning of the block, `grown` by the d α⁻ⁱ
    of the block so far, and its lowest point.
    """

    n: int = 0
    total: float = 0.0
    begun: float = 0.0
    grown: float = 0.0
    lowest: float = math.inf


@dataclass(frozen=True, slots=True)
class PageHinkleyState:
    structure: str
    count: int
    sums: Sums
    change: ChangePointState


class PageHinkley:
    """Page-Hinkley on the error stream, upwards only.

    `threshold` is λ. `delta` is the rise that is tolerated, `alpha` the forgetting of the sum, `min_instances` the
    errors before the first test; these shape the statistic. A detection's statistic is the climb above the lowest
    point.

    >>> page_hinkley = PageHinkley()
    >>> [d.window for d in page_hinkley.update_many([0.0] * 1000 + [1.0] * 60)]
    [52]
    """

    name = "page_hinkley"

    def __init__(
        self,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 1 - 0.0001,
    ) -> None:
        if not (math.isfinite(threshold) and threshold > 0.0):
            raise ValueError(f"page_hinkley's threshold is {threshold}: give a positive number")
        if not (math.isfinite(delta) and delta >= 0.0):
            raise ValueError(f"page_hinkley's delta is {delta}: give the tolerated rise, 0 or more")
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"page_hinkley's alpha is {alpha}: give a forgetting factor above 0, up to 1")
        self.structure = f"page_hinkley min_instances={min_instances} delta={delta!r} alpha={alpha!r}"
        self.count = 0
        self._minimum = min_instances
        self._delta = delta
        self._threshold = threshold
        self._block = _block(alpha)
        self._shrink = alpha ** np.arange(self._block + 1)
        self._grow = 1.0 / self._shrink
        self._rule = Rule(self._shrink.tobytes(), self._grow.tobytes(), delta, threshold, min_instances)
        self._sums = Sums()
        self._change = ChangePoint()

    def update_many(self, errors: Errors) -> list[Detection]:
        values = checked(errors)
        detections: list[Detection] = []
        start = 0
        while start < len(values):
            chunk = values[start : start + self._block - self._sums.n % self._block]
            fired = self._add(chunk)
            used = len(chunk) if fired is None else fired[0] + 1
            self._change.extend(chunk[:used])
            start += used
            if fired is not None:
                detections.append(self._detection(start - 1, fired[1], self._change.split(rising_only=True)))
                self._change.reset()
                self._sums = Sums()
        self.count += len(values)
        return detections

    def _add(self, chunk: NDArray[np.float64]) -> tuple[int, float] | None:
        """Take in errors of one block up to the first that fires; gives its index and the climb, or None.

        Everything is added strictly from left to right, so that batches round alike.
        """
        return self._add_in_numpy(chunk) if (step := stepping()) is None else self._add_compiled(chunk, step)

    def _add_compiled(self, chunk: NDArray[np.float64], step: Step) -> tuple[int, float] | None:
        sums = self._sums
        climb = Climb(sums.total, sums.begun, sums.grown, sums.lowest)
        used = step(chunk, self._rule, sums.n % self._block + 1, sums.n + 1, climb)
        if used < len(chunk):
            return used, climb.up - climb.lowest
        sums.n, sums.total, sums.lowest = sums.n + used, climb.total, climb.lowest
        self._end_of(climb.grown, climb.up)
        return None

    def _add_in_numpy(self, chunk: NDArray[np.float64]) -> tuple[int, float] | None:
        sums = self._sums
        at, end = sums.n % self._block + 1, sums.n % self._block + 1 + len(chunk)
        numbers = np.arange(sums.n + 1, sums.n + 1 + len(chunk))
        totals = np.add.accumulate(np.concatenate(([sums.total], chunk)))[1:]
        rises = chunk - totals / numbers - self._delta
        grown = np.add.accumulate(np.concatenate(([sums.grown], rises * self._grow[at:end])))[1:]
        up = (sums.begun + grown) * self._shrink[at:end]
        lowest = np.minimum.accumulate(np.concatenate(([sums.lowest], up)))[1:]
        climbs = up - lowest
        if climbs.max() > self._threshold:
            fires = (climbs > self._threshold) & (numbers >= self._minimum)
            if fires.any():
                index = int(np.argmax(fires))
                return index, float(climbs[index])
        sums.n, sums.total, sums.lowest = sums.n + len(chunk), float(totals[-1]), float(lowest[-1])
        self._end_of(float(grown[-1]), float(up[-1]))
        return None

    def _end_of(self, grown: float, up: float) -> None:
        """Behind errors: what has grown in the block so far, or in the next one."""
        sums = self._sums
        if sums.n % self._block:
            sums.grown = grown
        else:
            sums.begun, sums.grown = up, 0.0

    def _detection(self, index: int, climb: float, split: Split) -> Detection:
        return Detection(
            detector=self.name,
            index=index,
            statistic=climb,
            threshold=self._threshold,
            before=split.before,
            after=split.after,
            window=split.window,
            least_squares_window=split.least_squares_window,
        )

    def snapshot(self) -> bytes:
        return seal(FORMAT, PageHinkleyState(self.structure, self.count, self._sums, self._change.state()))

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, PageHinkleyState, self.structure)
        try:
            change = ChangePoint.of(state.change)
        except ValueError as error:
            raise SnapshotError(f"the snapshot's change point is not one: {error}") from error
        self._sums, self._change, self.count = state.sums, change, state.count


def _block(alpha: float) -> int:
    """Errors in a block: so many that α⁻ⁱ stays small, one at least."""
    forgetting = -math.log(alpha)
    return max(1, min(LONGEST_BLOCK, int(math.log(LARGEST_POWER) / forgetting))) if forgetting else LONGEST_BLOCK
