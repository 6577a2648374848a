"""The recorded streams that the loop is measured on, and how their labels come: late, and not all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.detection_champions import RECORDED
from retrain.training import Floats, Recipe, Trained, TrainedTask, train

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
    """A stream of classes (``target``: int64, from 0) or numbers (float64).

    ``drifts`` are the rows at which its concept changes, as far as that is known.
    """

    name: str
    features: Floats
    target: NDArray[Any]
    drifts: tuple[int, ...]
    task: TrainedTask = "binary"

    def __len__(self) -> int:
        return len(self.target)

    @property
    def classes(self) -> int:
        """How many there are; 0 of a regression."""
        return 0 if self.task == "regression" else int(self.target.max()) + 1

    def labelled(self, case: Case) -> NDArray[np.int64]:
        """The rows that ever get a label, ascending; the same ones whatever their delay."""
        chosen = np.random.default_rng(SEED).random(len(self)) < case.labelled
        chosen[:FIRST_ROWS] = True
        return np.flatnonzero(chosen).astype(np.int64)

    def first(self, rows: int) -> RecordedStream:
        """Only the first rows of it."""
        drifts = tuple(row for row in self.drifts if row < rows)
        return replace(self, features=self.features[:rows], target=self.target[:rows], drifts=drifts)

    def errors(self, said: NDArray[Any], start: int, end: int) -> Errors:
        """Of what was said of the rows from ``start`` up to ``end``: 0/1, of a regression absolute ones."""
        target = self.target[start:end]
        wrong = np.abs(said - target) if self.task == "regression" else said != target
        return np.asarray(wrong, dtype=np.float64)


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
    return train(stream.task, stream.classes, stream.features[rows], stream.target[rows], recipe)


def answers(model: Trained, rows: Floats) -> NDArray[Any]:
    """The class or number of each row."""
    said = model.predict(rows)
    return said.reshape(len(rows)) if model.task == "regression" else np.argmax(said, axis=1)


def errors_of(model: Trained, stream: RecordedStream, start: int, end: int) -> Errors:
    """Of each row from ``start`` up to ``end``."""
    return stream.errors(answers(model, stream.features[start:end]), start, end)


def fitted_errors(stream: RecordedStream, start: int, end: int, recipe: Recipe) -> Errors:
    """Errors of a model that is fitted on a concept, on the rows of the concept: each quarter by the other three."""
    rows = np.arange(start, end, dtype=np.int64)
    fold = np.random.default_rng(SEED).integers(0, FOLDS, len(rows))
    said = stream.target[rows]  # where a fold shows one class only, that is what it would answer
    for number in range(FOLDS):
        model = fit(stream, rows[fold != number], recipe)
        if model is not None:
            held = fold == number
            said[held] = answers(model, stream.features[rows[held]])
    return stream.errors(said, start, end)
