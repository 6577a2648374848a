"""Absolute errors of a regression, brought to the 0..1 that detectors are designed for."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.contract import Detector, Errors, InvalidValue, finite
from detectors.snapshot import fields_like, seal
from detectors.verdict import Detection

FORMAT = 1

BASELINES_PER_SCALE = 4.0  # an exponential error exceeds four times its mean once in 55: clipping loses little
SMALLEST_SCALE = 1e-12  # a baseline without any error makes every error a full one


@dataclass(frozen=True, slots=True)
class Scaling:
    """|error| / scale, clipped to 1. The scale shapes the statistic, so it is part of a detector's structure."""

    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise ValueError(
                f"the scale of errors is {self.scale}: give a positive number, such as 4 × the baseline's MAE"
            )

    @classmethod
    def from_baseline(cls, mae: float, baselines: float = BASELINES_PER_SCALE) -> "Scaling":
        return cls(max(mae * baselines, SMALLEST_SCALE))

    @property
    def structure(self) -> str:
        return f"scale={self.scale!r}"

    def apply(self, errors: Errors) -> NDArray[np.float64]:
        """Errors of either sign, scaled; raises InvalidValue if one is not finite."""
        # The division may overflow to infinity, which the clip takes for what it is: far beyond the scale.
        with np.errstate(over="ignore"):
            return np.minimum(np.abs(finite(errors)) / self.scale, 1.0)


@dataclass(frozen=True, slots=True)
class ScaledState:
    structure: str
    detector: bytes


class ScaledDetector:
    """A detector that is fed absolute errors in the target's own unit.

    `before` and `after` of its detections are in that unit too: means of the errors clipped at the scale.
    """

    def __init__(self, detector: Detector, scaling: Scaling) -> None:
        self.inner = detector
        self._scaling = scaling

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def structure(self) -> str:
        return f"{self.inner.structure} {self._scaling.structure}"

    @property
    def count(self) -> int:
        return self.inner.count

    def update_many(self, errors: Errors) -> list[Detection]:
        values = finite(errors)
        if values.size and values.min() < 0.0:
            raise InvalidValue(f"the absolute error {values.min()} is negative")
        scale = self._scaling.scale
        detections = self.inner.update_many(self._scaling.apply(values))
        return [replace(found, before=found.before * scale, after=found.after * scale) for found in detections]

    def snapshot(self) -> bytes:
        return seal(FORMAT, ScaledState(self.structure, self.inner.snapshot()))

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, ScaledState, self.structure)
        self.inner.restore(state.detector)
