"""Training by rolling origin: what a way of training is worth is told by models that did not see what they are asked.

Rows come in blocks, oldest first, and for each a model is trained on what came before it. The last one serves: it has
seen all but the newest block, and those before it show, on more rows than it could spare itself, what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrain.dataset import Dataset, Problem
from retrain.sources import Source
from retrain.training import Recipe, Trained, train

BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Rolled:
    """The model of the newest block, trained on rows up to ``end``; class indices, or numbers, that were said of the
    rows of all blocks, each by the model of its block.
    """

    model: Trained
    end: int
    answers: npt.NDArray[np.float64]


def rolled(
    dataset: Dataset, problem: Problem, recipe: Recipe, source: Source, tested: Sequence[tuple[int, int]]
) -> Rolled:
    """Train a model for each block (first row, end), at least one, on the rows of ``source`` before it.

    Raises :class:`retrain.training.Refused`.
    """
    task = problem.task
    target = dataset.target if task == "regression" else dataset.target.astype(np.int64)
    said: list[npt.NDArray[np.float64]] = []
    for start, end in tested:
        trained_on = slice(source.start, start)
        model = train(
            task,
            len(problem.classes),
            dataset.features[trained_on],
            target[trained_on],
            recipe,
            source.weights(start),
        )
        found = model.predict(dataset.features[start:end])
        said.append(found.reshape(end - start) if task == "regression" else np.argmax(found, axis=1))
    return Rolled(model, tested[-1][0], np.concatenate(said))
