"""What a window of outcomes amounts to: counts, and the measures of quality that follow from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes of one model and version over a window.

    `confusion` counts (predicted label, outcome), all of them positive; a regression has the sums instead. A measure
    without a denominator is None, never NaN: no outcomes, or for a precision no prediction of the label. In a macro
    mean such a label counts as 0, as scikit-learn has it.
    """

    n: int
    confusion: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sum_abs: float = 0.0
    sum_sq: float = 0.0
    sum_err: float = 0.0

    @property
    def errors(self) -> int:
        """Predictions that were not the outcome."""
        return sum(count for (predicted, outcome), count in self.confusion.items() if predicted != outcome)

    @property
    def accuracy(self) -> float | None:
        counted = sum(self.confusion.values())
        return (counted - self.errors) / counted if counted else None

    def precision(self, positive: str | None = None) -> float | None:
        """Of the label `positive`; without one the plain mean over all labels seen (macro)."""
        if positive is not None:
            hit, predicted, _ = self._of(positive)
            return hit / predicted if predicted else None
        return self._macro(lambda hit, predicted, actual: hit / predicted if predicted else 0.0)

    def recall(self, positive: str | None = None) -> float | None:
        """Of the label `positive`; without one the plain mean over all labels seen (macro)."""
        if positive is not None:
            hit, _, actual = self._of(positive)
            return hit / actual if actual else None
        return self._macro(lambda hit, predicted, actual: hit / actual if actual else 0.0)

    def f1(self, positive: str | None = None) -> float | None:
        """Of the label `positive`; without one the plain mean over all labels seen (macro)."""
        if positive is not None:
            hit, predicted, actual = self._of(positive)
            return 2 * hit / (predicted + actual) if predicted + actual else None
        return self._macro(lambda hit, predicted, actual: 2 * hit / (predicted + actual))

    @property
    def mae(self) -> float | None:
        """Mean absolute error, in the target's unit."""
        return None if self.confusion or not self.n else max(0.0, self.sum_abs) / self.n

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error, in the target's unit."""
        return None if self.confusion or not self.n else math.sqrt(max(0.0, self.sum_sq) / self.n)

    @property
    def mean_error(self) -> float | None:
        """Mean of prediction − outcome: positive if the model predicts too much."""
        return None if self.confusion or not self.n else self.sum_err / self.n

    def _of(self, label: str) -> tuple[int, int, int]:
        """(rightly predicted, predicted, actual) outcomes of a label."""
        predicted = sum(count for (p, _), count in self.confusion.items() if p == label)
        actual = sum(count for (_, o), count in self.confusion.items() if o == label)
        return self.confusion.get((label, label), 0), predicted, actual

    def _macro(self, measure: Callable[[int, int, int], float]) -> float | None:
        """The mean over the labels that were predicted or came true; one that never did either has no say."""
        labels = sorted({label for cell in self.confusion for label in cell})
        return sum(measure(*self._of(label)) for label in labels) / len(labels) if labels else None
