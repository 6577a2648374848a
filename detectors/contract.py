"""The contract of every drift detector, and the guard in front of it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from detectors.verdict import Detection

Errors = Sequence[float] | NDArray[np.float64] | NDArray[np.bool_] | NDArray[np.int64]


class InvalidValue(ValueError):
    """A number that would blind a detector for ever. No state was touched; dead-letter the event that carried it."""


@runtime_checkable
class Detector(Protocol):
    """Watches a stream of errors for a change for the worse.

    An error is a number from 0 (right) to 1 (wrong). A detector that also sees improvements keeps them to itself,
    though it may start afresh after one. After a detection its statistic starts afresh with the next error. The
    e-detector keeps its reference, and reports a drift again only if it becomes worse, or after it was over.
    """

    @property
    def name(self) -> str:
        """What the registry calls it, and alerts show."""
        ...

    @property
    def structure(self) -> str:
        """Name and the parameters that shape the statistic. State is keyed by it and fits no other structure.

        Thresholds are left out: recalibrating one keeps the statistic.
        """
        ...

    @property
    def count(self) -> int:
        """Errors seen since the detector was made."""
        ...

    def update_many(self, errors: Errors) -> list[Detection]:
        """Feed errors, oldest first; however a stream is cut into batches, the detections and the state are the same.

        Raises InvalidValue, having touched nothing, if one of them is not a finite number from 0 to 1.
        """
        ...

    def snapshot(self) -> bytes:
        """The whole state; a detector of the same structure that restores it goes on exactly as this one does."""
        ...

    def restore(self, sealed: bytes) -> None:
        """Take over a snapshot's state, keeping one's own thresholds.

        Raises SnapshotError, having changed nothing, if the bytes are damaged, newer, or of another structure.
        """
        ...


def checked(errors: Errors) -> NDArray[np.float64]:
    """The errors as an array, every one finite and from 0 to 1; raises InvalidValue naming the first that is not."""
    values = _as_array(errors)
    # A minimum and a maximum pass over the array without making another; both are NaN if one value is.
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        _require_finite(values)
        index = int(np.argmin((values >= 0.0) & (values <= 1.0)))
        raise InvalidValue(
            f"error {values[index]} at {index} is outside 0..1: scale absolute errors before a detector sees them"
        )
    return values


def finite(errors: Errors) -> NDArray[np.float64]:
    """The errors as a one-dimensional array of finite numbers; raises InvalidValue naming the first that is not."""
    values = _as_array(errors)
    _require_finite(values)
    return values


def _as_array(errors: Errors) -> NDArray[np.float64]:
    try:
        values = np.asarray(errors, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"the errors are not numbers: {error}") from error
    if values.ndim != 1:
        raise InvalidValue(f"the errors have {values.ndim} dimensions, expected a flat sequence")
    return values


def _require_finite(values: NDArray[np.float64]) -> None:
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        index = int(np.argmin(np.isfinite(values)))
        raise InvalidValue(f"error {values[index]} at {index} is not a finite number")
