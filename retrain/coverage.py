"""Which predictions have got outcomes: labelled ones beside other predictions from the same stretches of the log.

A feed that hardly reports a class leaves out what was predicted to be of it. A change of the world does not: which rows
are labelled then depends on the predictions no more than before. Short stretches, because the mix of classes drifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.one_sided import LEAST_Z

ROWS = 20
"""Labelled ones in a stretch, at least."""
STRETCHES = 50
"""Into so many the labelled rows are divided, at most in each partition."""
BESIDE = 3
"""Predictions that are looked at for one of the twenty labelled ones of a stretch: some 3,000 of a run."""

Counts = npt.NDArray[np.int64]
Place = tuple[int, int]
"""A partition and an offset in it; or a partition and the number of a stretch."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Stretches × classes: labelled predictions, and those that were looked at of all, by the class predicted."""

    labelled: Counts
    predicted: Counts

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """By class, its share of all predictions."""
        return np.asarray(self.predicted.sum(axis=0) / max(1, self.predicted.sum()))


class Counting:
    """Chooses offsets beside those of labelled predictions, and counts what was predicted there.

    The same ones are chosen each time. Nothing is without labelled predictions, or without classes.
    """

    def __init__(self, labelled: Sequence[Place], classes: int) -> None:
        self._classes = classes
        self._starts: dict[int, Counts] = {}
        self._offsets: dict[int, frozenset[int]] = {}
        self._looked_at: list[tuple[Place, int]] = []
        rows = max(ROWS, math.ceil(len(labelled) / STRETCHES))
        rng = np.random.default_rng(0)
        found: dict[int, list[int]] = {}
        for partition, offset in sorted(labelled):
            found.setdefault(partition, []).append(offset)
        for partition, offsets in found.items():
            self._divide(partition, np.asarray(offsets, np.int64), rows, rng)

    def _divide(self, partition: int, offsets: Counts, rows: int, rng: np.random.Generator) -> None:
        parts = np.array_split(offsets, max(1, len(offsets) // rows))
        starts = [int(part[0]) for part in parts]
        ends = [*starts[1:], int(offsets[-1]) + 1]
        chosen = [
            rng.integers(start, end, BESIDE * min(len(part), ROWS))
            for part, start, end in zip(parts, starts, ends, strict=True)
        ]
        self._starts[partition] = np.asarray(starts)
        self._offsets[partition] = frozenset(np.concatenate(chosen).tolist())

    def offsets(self, partition: int) -> frozenset[int]:
        """Those to look at."""
        return self._offsets.get(partition, frozenset())

    def look(self, partition: int, offset: int, predicted: float | None) -> None:
        """Count one of them, unless it was no prediction of a class."""
        if predicted is not None:
            self._looked_at.append((self._stretch((partition, offset)), int(predicted)))

    def coverage(self, labelled: Iterable[tuple[Place, float]]) -> Coverage | None:
        """What was looked at beside the labelled ones, with what those were predicted to be, NaN if to be no class."""
        if not self._starts:
            return None
        known = [(self._stretch(place), int(said)) for place, said in labelled if not math.isnan(said)]
        numbers = {stretch: i for i, stretch in enumerate(sorted({at for at, _ in [*known, *self._looked_at]}))}
        counts = np.zeros((2, len(numbers), self._classes), np.int64)
        for which, found in enumerate((known, self._looked_at)):
            for stretch, predicted in found:
                counts[which, numbers[stretch], predicted] += 1
        return Coverage(counts[0], counts[1])

    def _stretch(self, place: Place) -> Place:
        partition, offset = place
        return partition, int(np.searchsorted(self._starts[partition], offset, side="right"))


@dataclass(frozen=True, slots=True)
class Lacking:
    """A predicted class whose outcomes do not come as the others' do: its ``share`` of the labelled rows and of all
    predictions (``expected``), and its labelled share as a ``ratio`` to that of the others.
    """

    index: int
    share: float
    expected: float
    ratio: float


def lacking(coverage: Coverage, least: float) -> Lacking | None:
    """The class of which by ``least`` (0 to 1, of the others' labelled share) or more less is labelled; else None.

    Mantel and Haenszel's test (1959) over the stretches, by four standard errors. Of several the one that is surest.
    Where neighbours are labelled together and were predicted alike, stretches differ by more than rows of their own
    would: then the error is that of the stretches.
    """
    n, m = coverage.labelled.sum(axis=1), coverage.predicted.sum(axis=1)
    told = (n > 0) & (m > 0)
    n, m, labelled, predicted = n[told], m[told], coverage.labelled[told], coverage.predicted[told]
    weights = n * m / (n + m)
    worst: tuple[float, Lacking] | None = None
    for index in range(labelled.shape[1]):
        own, both = labelled[:, index], labelled[:, index] + predicted[:, index]
        missing = n * both / (n + m) - own
        variance = float(np.sum(n * m * both * (n + m - both) / ((n + m) ** 2 * np.maximum(1, n + m - 1))))
        if len(missing) > 1:
            variance = max(variance, len(missing) * float(np.var(missing, ddof=1)))
        if variance <= 0.0:
            continue
        z = float(np.sum(missing)) / math.sqrt(variance)
        share = float(np.sum(weights * own / n) / np.sum(weights))
        expected = float(np.sum(weights * predicted[:, index] / m) / np.sum(weights))
        if z < LEAST_Z or not 0.0 < expected < 1.0:
            continue
        ratio = share * (1.0 - expected) / (expected * (1.0 - share))
        if ratio <= 1.0 - least and (worst is None or z > worst[0]):
            worst = z, Lacking(index, share, expected, ratio)
    return None if worst is None else worst[1]
