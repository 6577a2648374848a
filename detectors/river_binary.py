"""River's detectors for binary errors behind our contract: what they share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from detectors.change_point import ChangePoint, ChangePointState
from detectors.contract import Errors, checked
from detectors.snapshot import SnapshotError, fields_like, seal
from detectors.verdict import Detection

FORMAT = 1

Number = float | int | None
Field = Number | list[float]


@dataclass(frozen=True, slots=True)
class RiverState:
    structure: str
    count: int
    fired: bool
    fields: dict[str, Field]
    change: ChangePointState


class RiverBinary:
    """A detector of River's `drift.binary`, fed one error after the other, with our evidence.

    A subclass names the fields of River's object that are its state, and measures the statistic that fired.
    """

    name: ClassVar[str]

    def __init__(self, river: Any, shape: dict[str, Number]) -> None:
        self.structure = " ".join((self.name, *(f"{key}={value!r}" for key, value in shape.items())))
        self.count = 0
        self._river = river
        self._fired = False
        self._change = ChangePoint()

    def update_many(self, errors: Errors) -> list[Detection]:
        values: list[float] = checked(errors).tolist()
        detections = []
        start = 0
        while start < len(values):
            rest = values[start:] if start else values
            fired = self._run(rest)
            taken = len(rest) if fired is None else fired[0] + 1
            self._change.extend(rest[:taken])
            start += taken
            self._fired = fired is not None
            if fired is not None:
                detections.append(self._detection(start - 1, fired[1], fired[2]))
                self._change.reset()
        self.count += len(values)
        return detections

    def _run(self, values: list[float]) -> tuple[int, float, float] | None:
        """Feed errors up to the first that fires; gives its index, statistic and threshold."""
        river = self._river
        for index, error in enumerate(values):
            measure = self._before(error)
            river.update(self._given(error))
            if river.drift_detected:
                return index, *measure()
        return None

    def _given(self, error: float) -> float:
        """What River's detector is given for an error."""
        return error

    def _before(self, error: float) -> Callable[[], tuple[float, float]]:
        """Before an error is fed: how to measure (statistic, threshold) once it has fired."""
        return self._measured

    def _measured(self) -> tuple[float, float]:
        raise NotImplementedError

    def _fields(self) -> dict[str, Field]:
        """The state of River's object."""
        raise NotImplementedError

    def _fresh(self) -> Any:
        """River's object with the same parameters and no state."""
        fresh = self._river.clone()
        fresh._reset()
        return fresh

    def _filled(self, fields: dict[str, Field]) -> Any:
        """River's object with that state; raises KeyError, TypeError or ValueError if it is none."""
        raise NotImplementedError

    def _detection(self, index: int, statistic: float, threshold: float) -> Detection:
        split = self._change.split(rising_only=True)
        return Detection(
            self.name, index, statistic, threshold, split.before, split.after, split.window, split.least_squares_window
        )

    def snapshot(self) -> bytes:
        return seal(FORMAT, RiverState(self.structure, self.count, self._fired, self._fields(), self._change.state()))

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, RiverState, self.structure)
        try:
            river = self._filled(state.fields)
            change = ChangePoint.of(state.change)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"the snapshot's fields are not those of {self.name}: {error!r}") from error
        river._drift_detected = state.fired
        self._river, self._change = river, change
        self.count, self._fired = state.count, state.fired


def between(detector: str, parameter: str, value: float, low: float, high: float) -> None:
    """Raises ValueError, naming the parameter, unless low < value < high."""
    if not (math.isfinite(value) and low < value < high):
        raise ValueError(f"{detector}'s {parameter} is {value}: give a number above {low:g} and below {high:g}")


def mean_fields(name: str, mean: Any) -> dict[str, Field]:
    """A `river.stats.Mean` as fields."""
    return {f"{name}_n": mean.n, f"{name}_mean": mean._mean}


def fill_mean(mean: Any, fields: dict[str, Field], name: str) -> None:
    """The fields into a `river.stats.Mean`."""
    mean.n, mean._mean = number(fields, f"{name}_n"), number(fields, f"{name}_mean")


def number(fields: dict[str, Field], name: str) -> float | int:
    """A field that must be a number; raises TypeError if it is not."""
    value = fields[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}, not a number")
    return value
