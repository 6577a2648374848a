"""The recorded streams that the loop is measured on, and how their labels come: late, and not all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.detection_champions import RECORDED
from retrain.training import Floats, Indices, Recipe, Trained, train

Errors = NDArray[np.float64]
FIRST_ROWS = 5_000
"""Rows of the first version, all of them labelled; everything is measured on those that follow."""
FOLDS = 4
SEED = 20_261_126


@dataclass(frozen=True, slots=True)
class Case:
    """Row ``i``'s label is known once row ``i + delay`` has been served; a random share of the rows has one at all."""

    delay: int
    labelled: float

    @property
    def name(self) -> str:
        return f"delay {self.delay:,}, {self.labelled:.0%} labelled"


CASES = tuple(Case(delay, labelled) for labelled in (1.0, 0.1) for delay in (0, 500, 2_000))


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream of two classes; ``drifts`` are the rows at which its concept changes, as far as that is known."""

    name: str
    features: Floats
    target: Indices
    drifts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.target)

    def labelled(self, case: Case) -> NDArray[np.int64]:
        """The rows that ever get a label, ascending; the same ones whatever their delay."""
        chosen = np.random.default_rng(SEED).random(len(self)) < case.labelled
        chosen[:FIRST_ROWS] = True
        return np.flatnonzero(chosen).astype(np.int64)

    def first(self, rows: int) -> RecordedStream:
        """Only the first rows of it."""
        return RecordedStream(
            self.name, self.features[:rows], self.target[:rows], tuple(row for row in self.drifts if row < rows)
        )


def streams(folder: Path, only: set[str] | None = None) -> Iterator[RecordedStream]:
    """Every stream in ``folder``, by name; ``only`` names some of them."""
    drifts = {f"harvard_{each.name}": each.drifts for each in RECORDED}
    for file in sorted(folder.glob("*.csv.gz")):
        name = file.name.removesuffix(".csv.gz")
        if only is None or name in only:
            frame = pd.read_csv(file)
            yield RecordedStream(
                name,
                frame.iloc[:, :-1].to_numpy(dtype=np.float32),
                frame.iloc[:, -1].to_numpy().astype(np.int64),
                drifts.get(name, ()),
            )


def fit(stream: RecordedStream, rows: NDArray[np.int64], recipe: Recipe) -> Trained | None:
    """A model of these rows; None where they show one class only."""
    if len(np.unique(stream.target[rows])) < 2:
        return None
    return train("binary", 2, stream.features[rows], stream.target[rows], recipe)


def errors_of(model: Trained, stream: RecordedStream, start: int, end: int) -> Errors:
    """0/1 for each row from ``start`` up to ``end``."""
    said = np.argmax(model.predict(stream.features[start:end]), axis=1)
    return np.asarray(said != stream.target[start:end], dtype=np.float64)


def fitted_errors(stream: RecordedStream, start: int, end: int, recipe: Recipe) -> Errors:
    """Errors of a model that is fitted on a concept, on the rows of the concept: each quarter by the other three."""
    rows = np.arange(start, end, dtype=np.int64)
    fold = np.random.default_rng(SEED).integers(0, FOLDS, len(rows))
    errors = np.zeros(len(rows))
    for number in range(FOLDS):
        model = fit(stream, rows[fold != number], recipe)
        if model is None:
            continue  # one class only, which is what it would answer: no error
        held = fold == number
        said = np.argmax(model.predict(stream.features[rows[held]]), axis=1)
        errors[held] = said != stream.target[rows[held]]
    return errors
