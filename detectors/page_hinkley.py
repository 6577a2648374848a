"""River's Page-Hinkley test, fed a batch at a time.

Page, "Continuous inspection schemes", Biometrika 1954. A sum of (error − mean − δ) falls while nothing
changes; when it has climbed more than λ above its lowest point, the error has risen.
"""

import math
from dataclasses import dataclass
from typing import Any

from detectors.change_point import ChangePoint, ChangePointState, Split
from detectors.contract import Errors, checked
from detectors.river_drift import drift
from detectors.snapshot import SnapshotError, fields_like, seal
from detectors.verdict import Detection

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PageHinkleyState:
    structure: str
    count: int
    n: float
    mean: float
    sum_increase: float
    sum_decrease: float
    min_increase: float
    max_decrease: float
    fired: bool
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
        self._river: Any = drift.PageHinkley(min_instances, delta, threshold, alpha, mode="up")
        self._change = ChangePoint()

    def update_many(self, errors: Errors) -> list[Detection]:
        values: list[float] = checked(errors).tolist()
        detections: list[Detection] = []
        start = 0
        while start < len(values):
            if self._river.drift_detected:
                self._river._reset()
            rest = values[start:] if start else values
            taken = self._run(rest)
            self._change.extend(rest[:taken])
            start += taken
            if self._river.drift_detected:
                detections.append(self._detection(start - 1, self._change.split(rising_only=True)))
                self._change.reset()
        self.count += len(values)
        return detections

    def _run(self, values: list[float]) -> int:
        """Feed errors up to the first that fires, and tell how many that were.

        River's own update line by line, in the same order of operations (so floats round alike), with the state in
        local names: attribute look-ups and calls are two thirds of what River's costs.
        """
        river = self._river
        delta, alpha, threshold, minimum = river.delta, river.alpha, river.threshold, river.min_instances
        n, mean = river._x_mean.n, river._x_mean._mean
        up, down = river._sum_increase, river._sum_decrease
        lowest, highest = river._min_increase, river._max_decrease
        fired = False
        taken = len(values)
        for index, x in enumerate(values):
            n += 1.0
            mean += (1.0 / n) * (x - mean)
            deviation = x - mean
            up = alpha * up + deviation - delta
            down = alpha * down + deviation + delta
            if up < lowest:
                lowest = up
            if down > highest:
                highest = down
            if up - lowest > threshold and n >= minimum:
                fired, taken = True, index + 1
                break
        river._x_mean.n, river._x_mean._mean = n, mean
        river._sum_increase, river._sum_decrease = up, down
        river._min_increase, river._max_decrease = lowest, highest
        river._drift_detected = fired
        return taken

    def _detection(self, index: int, split: Split) -> Detection:
        river = self._river
        return Detection(
            detector=self.name,
            index=index,
            statistic=river._sum_increase - river._min_increase,
            threshold=river.threshold,
            before=split.before,
            after=split.after,
            window=split.window,
        )

    def snapshot(self) -> bytes:
        river = self._river
        state = PageHinkleyState(
            structure=self.structure,
            count=self.count,
            n=river._x_mean.n,
            mean=river._x_mean._mean,
            sum_increase=river._sum_increase,
            sum_decrease=river._sum_decrease,
            min_increase=river._min_increase,
            max_decrease=float(river._max_decrease),  # River begins with an integer
            fired=river.drift_detected,
            change=self._change.state(),
        )
        return seal(FORMAT, state)

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, PageHinkleyState, self.structure)
        try:
            change = ChangePoint.of(state.change)
        except ValueError as error:
            raise SnapshotError(f"the snapshot's change point is not one: {error}") from error
        river = self._river.clone()
        river._x_mean.n, river._x_mean._mean = state.n, state.mean
        river._sum_increase, river._sum_decrease = state.sum_increase, state.sum_decrease
        river._min_increase, river._max_decrease = state.min_increase, state.max_decrease
        river._drift_detected = state.fired
        self._river, self._change, self.count = river, change, state.count
