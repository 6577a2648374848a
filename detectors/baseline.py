"""How good a version is when nothing is wrong: learnt once from its first outcomes."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.contract import Errors, InvalidValue, checked, finite
from detectors.reference import WINDOW, Reference, WindowSums
from detectors.snapshot import SnapshotError, decode, seal, unseal

FORMAT = 2
OUTCOMES = 5_000
LARGEST = 1e140  # the square of a sum of larger errors is no number any more

Metric = Literal["accuracy", "mae"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A version's accuracy (higher is better) or mean absolute error (lower is better) over its first `n` outcomes.

    `standard_error` is that of `value` for independent errors; real ones are often overdispersed, which makes it too
    small.
    """

    n: int
    metric: Metric
    value: float
    standard_error: float

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"a baseline over {self.n} outcomes says nothing: give at least 1")
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error) and self.standard_error >= 0.0):
            raise ValueError(f"the baseline {self.value} ± {self.standard_error} is not a pair of finite numbers")
        if self.value < 0.0 or (self.metric == "accuracy" and self.value > 1.0):
            raise ValueError(f"the baseline's {self.metric} is {self.value}, out of its range")


@dataclass(frozen=True, slots=True)
class LearnerState:
    """Format 1 had no windows."""

    metric: Metric
    required: int
    n: int
    total: float
    squares: float
    windows: WindowSums = field(default_factory=WindowSums)


class BaselineLearner:
    """Takes the first `n_required` errors of a version: 0..1 for accuracy, absolute errors for mae."""

    def __init__(self, n_required: int = OUTCOMES, metric: Metric = "accuracy") -> None:
        if n_required < 2:
            raise ValueError(f"a baseline over {n_required} outcomes has no standard error: require at least 2")
        self._metric: Metric = metric
        self._required = n_required
        self._n = 0
        self._total = 0.0
        self._squares = 0.0
        self._windows = WindowSums()

    @property
    def missing(self) -> int:
        """Outcomes still to come before there is a baseline."""
        return self._required - self._n

    @property
    def baseline(self) -> Baseline | None:
        """None until enough outcomes came; the same for ever after."""
        if self.missing:
            return None
        n, mean = self._n, self._total / self._n
        if self._metric == "accuracy":
            # Half an error is added, or a version without any would claim to be known exactly.
            rate = (self._total + 0.5) / (n + 1)
            return Baseline(n, "accuracy", 1.0 - mean, math.sqrt(rate * (1.0 - rate) / n))
        variance = max(0.0, self._squares / n - mean * mean) * n / (n - 1)
        return Baseline(n, "mae", mean, math.sqrt(variance / n))

    def observe(self, errors: NDArray[np.float64]) -> None:
        """Errors behind those of the baseline, of the same kind: only the reference takes notice of them.

        Raises InvalidValue, having touched nothing, if one of them is out of range.
        """
        self._windows.add(self._valid(errors))

    def join(self, observed: WindowSums) -> None:
        """The same for whole windows of errors that were kept elsewhere."""
        self._windows.join(observed)

    def _valid(self, errors: Errors) -> NDArray[np.float64]:
        values = checked(errors) if self._metric == "accuracy" else finite(errors)
        if values.size and not (values.min() >= 0.0 and values.max() <= LARGEST):
            raise InvalidValue(f"absolute errors from {values.min()} to {values.max()} are outside 0..{LARGEST}")
        return values

    def reference(self, scale: float) -> Reference | None:
        """What was learnt as a reference of errors divided by the scale: of whole windows, which are most of it.

        None before there is a baseline, and if it is too short, or was begun by a release that kept no windows.
        """
        if self.missing or 2 * self._windows.windows * WINDOW < self._n:
            return None
        return self._windows.reference(scale)

    def update_many(self, errors: Errors) -> int:
        """Take what is still missing from the front of the errors; returns how many were taken.

        Raises InvalidValue, having touched nothing, if one of all the errors given is out of range.
        """
        taken = self._valid(errors)[: self.missing]
        # Strictly from left to right, so that the way to batch does not matter.
        self._total = float(np.add.accumulate(np.concatenate(([self._total], taken)))[-1])
        self._squares = float(np.add.accumulate(np.concatenate(([self._squares], taken * taken)))[-1])
        self._windows.add(taken)
        self._n += len(taken)
        return len(taken)

    def snapshot(self) -> bytes:
        return seal(
            FORMAT, LearnerState(self._metric, self._required, self._n, self._total, self._squares, self._windows)
        )

    def restore(self, sealed: bytes) -> None:
        """Raises SnapshotError, having changed nothing, for other bytes than those of a learner of this metric.

        A baseline that is being learnt keeps the requirement that it began with.
        """
        state = decode(unseal(sealed, FORMAT)[1], LearnerState)
        if state.metric != self._metric:
            raise SnapshotError(f"the snapshot learns {state.metric} and this version needs {self._metric}")
        if state.required < 2 or not 0 <= state.n <= state.required or not state.windows.filling.consistent:
            raise SnapshotError(f"the snapshot counts {state.n} of {state.required} outcomes, which cannot be")
        self._required = state.required
        self._n, self._total, self._squares, self._windows = state.n, state.total, state.squares, state.windows


def keep_before(kept: WindowSums, errors: NDArray[np.float64], seconds: NDArray[np.int64], until_s: int) -> None:
    """Take in those absolute errors that came before a second; `seconds` are theirs, at least one, and rise."""
    if seconds[0] < until_s:
        kept.add(np.minimum(errors[: int(seconds.searchsorted(until_s))], LARGEST))
