"""The heavy core of a run: rows and a champion in, a verified challenger and a verdict out. No Kafka, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrain.comparison import Comparison, MetricName, baseline
from retrain.data_checks import suspected_share
from retrain.dataset import Dataset, Problem
from retrain.export import export, outputs
from retrain.parity import Parity
from retrain.parity import check as check_parity
from retrain.profile import reference_profile
from retrain.rolling import BLOCKS, Rolled, rolled
from retrain.sources import Source, blocks
from retrain.training import Algorithm, Floats, Recipe, Refused, Trained
from serving.manifest import ReferenceProfile, Slice
from streams.events import Baseline
from streams.settings import RetrainSettings

Answers = Callable[[Floats], npt.NDArray[np.float64]]
"""Rows → a class index or a number a row; NaN where an answer is not one of the classes."""
Stage = Literal["training", "exporting", "verifying"]


@dataclass(frozen=True, slots=True)
class Challenger:
    """A model that passed the parity gate.

    ``comparison`` is None for a first version, which has nobody to beat; ``outputs`` name what the graph answers.
    """

    onnx: bytes
    recipe: Recipe
    parity: Parity
    baseline: Baseline
    comparison: Comparison | None
    train_rows: int
    test_rows: int
    accepts_missing: bool
    outputs: tuple[str, ...]
    profile: ReferenceProfile
    data_sha256: str
    source: str
    """Which rows it was trained on, of several choices, and by what where there are several algorithms."""
    first_row: int = 0
    change_row: int = 0
    """It was trained on ``train_rows`` rows from ``first_row`` on, those before ``change_row`` with less weight."""
    suspected: float | None = None
    """Of its rows, the share of labels that are probably wrong; None where that is not told."""
    segments: Mapping[str, Slice] = field(default_factory=dict)
    groups: Mapping[str, Slice] = field(default_factory=dict)
    """How it did on parts of the test rows, beside the champion."""


def recipes(settings: RetrainSettings) -> list[Recipe]:
    """How the settings want versions trained: all are tried on the same rows."""
    algorithms: list[Algorithm] = ["estimator"] if settings.estimator else list(dict.fromkeys(settings.algorithms))
    return [Recipe(each, settings.trees, settings.depth, settings.seed, settings.estimator) for each in algorithms]


def challenge(
    dataset: Dataset,
    problem: Problem,
    *,
    version: int,
    settings: RetrainSettings,
    stage: Callable[[Stage], None] = lambda _: None,
) -> Challenger:
    """A first version, which has nobody to beat: by rolling origin, and of all ways of training the one that errs
    least. It is the best of few, so its baseline is a little too good, by less than its standard error.

    Raises :class:`Refused` when no challenger comes of it. What is returned was not fitted again: what was verified
    is what is promoted.
    """
    tested = blocks(0, len(dataset), settings.test_share, BLOCKS)
    if not tested:
        raise Refused(f"{len(dataset)} rows cannot be split into training and test rows")
    stage("training")
    source = Source("all", 0, 0)
    trained: list[tuple[Recipe, Rolled, npt.NDArray[np.float64]]] = []
    refused: dict[Recipe, str] = {}
    for recipe in recipes(settings):
        try:
            found = rolled(dataset, problem, recipe, source, tested)
        except Refused as refusal:
            refused[recipe] = str(refusal)
        else:
            errors = absolute_errors(metric_of(problem), found.answers, dataset.target[tested[0][0] :])
            trained.append((recipe, found, errors))
    stage("exporting")
    for recipe, found, errors in sorted(trained, key=lambda each: float(np.mean(each[2]))):
        try:
            return finished(
                dataset,
                problem,
                recipe,
                found.model,
                version=version,
                settings=settings,
                start=source.start,
                end=found.end,
                errors=errors,
                stage=stage,
                source=source.name,
            )
        except Refused as refusal:  # by the parity gate: the next best may convert
            refused[recipe] = str(refusal)
    if len(reasons := set(refused.values())) == 1:
        raise Refused(reasons.pop())
    raise Refused("; ".join(f"{recipe}: {reason}" for recipe, reason in refused.items()))


def finished(
    dataset: Dataset,
    problem: Problem,
    recipe: Recipe,
    trained: Trained,
    *,
    version: int,
    settings: RetrainSettings,
    start: int,
    end: int,
    errors: npt.NDArray[np.float64],
    source: str,
    comparison: Comparison | None = None,
    stage: Callable[[Stage], None] = lambda _: None,
    change: int = 0,
) -> Challenger:
    """What was trained by ``recipe`` on rows ``start`` to ``end``, exported and through the parity gate.

    ``errors`` are those of held-out rows, by which it is told what the version achieves. Raises :class:`Refused`.
    """
    onnx = export(trained, model=problem.model, version=version, data_sha256=dataset.sha256)
    stage("verifying")
    parity = check_parity(trained, onnx, dataset.features, minimum_rows=settings.parity_rows, seed=settings.seed)
    if not parity.passed:
        raise Refused(f"the exported model is not the trained one: {parity.describe()}")
    rows = dataset.features[start:end]
    return Challenger(
        onnx=onnx,
        recipe=recipe,
        parity=parity,
        baseline=baseline(metric_of(problem), errors),
        comparison=comparison,
        train_rows=end - start,
        test_rows=len(errors),
        accepts_missing=trained.takes_nan,
        outputs=outputs(onnx),
        profile=reference_profile(
            rows, problem.features, problem.classes, trained.predict(rows), problem.positive_index
        ),
        data_sha256=dataset.sha256,
        first_row=start,
        change_row=change,
        source=source,
        suspected=_suspected(rows, dataset.target[start:end], problem),
    )


def _suspected(rows: Floats, target: npt.NDArray[np.float64], problem: Problem) -> float | None:
    return None if problem.task == "regression" else suspected_share(rows, target.astype(np.int64))


def metric_of(problem: Problem) -> MetricName:
    """What its errors are measured by."""
    return "mae" if problem.task == "regression" else "accuracy"


def absolute_errors(
    metric: MetricName, answered: npt.NDArray[Any], outcomes: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """0/1 for classes, |outcome − answer| for numbers. An answer that is no class is an error."""
    if metric == "accuracy":
        return np.asarray(answered != outcomes, dtype=np.float64)
    return np.asarray(np.abs(answered - outcomes), dtype=np.float64)
