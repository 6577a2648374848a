"""Training a version again from what its manifest says: the same bytes, or what differs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from retrain.champion import problem_of
from retrain.dataset import Dataset, Problem, References, gather
from retrain.difference import Difference
from retrain.estimators import packages
from retrain.export import export
from retrain.log import Log
from retrain.sources import Source
from retrain.training import LEARNING_RATE, Recipe, Refused, train
from serving.manifest import Manifest
from serving.model_file import sha256
from streams.errors import MissingInput

LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxmltools", "scikit-learn", "skl2onnx", "xgboost")
MORE_ROWS = 10
"""Of the rows that a version was made of, at most so many times are read again: others were too old then."""


class Reproduction(msgspec.Struct, frozen=True):
    """What came of it. ``same`` says whether the bytes of the model are the same; ``differences`` may explain why not,
    or name what differs and does no harm: first as the manifest says, second as it is here."""

    model: str
    version: int
    same: bool
    differences: list[Difference]


def versions_here(estimator: str = "") -> dict[str, str]:
    """Python, the libraries that a training's bytes depend on, and ours; with a user's own estimator its package too.

    Raises :class:`Refused` for an estimator that is not installed.
    """
    ours = {name: importlib.metadata.version(name) for name in (*LIBRARIES, "driftline")}
    own = packages(estimator) if estimator else {}
    return {"python": platform.python_version(), **own, **ours}


def parameters_of(recipe: Recipe, start: int, end: int, change: int) -> dict[str, Any]:
    """How a version was trained, as its manifest carries it: on rows ``start`` to ``end`` of the data set, those before
    row ``change`` with less weight."""
    own = {"estimator": recipe.estimator} if recipe.estimator else {}
    return {
        "algorithm": recipe.algorithm,
        **own,
        "trees": recipe.trees,
        "depth": recipe.depth,
        "seed": recipe.seed,
        "learning_rate": LEARNING_RATE,
        "first_row": start,
        "end_row": end,
        "change_row": change,
    }


def reproduce(manifest: Manifest, dataset: Dataset) -> Reproduction:
    """Train the version again on ``dataset``. Raises :class:`Refused` for rows that it cannot have been made of."""
    if not manifest.parameters:
        raise Refused(f"the manifest of version {manifest.version} does not say how it was trained: an older release's")
    content = _trained_again(manifest, dataset, problem_of(manifest))
    here = versions_here(manifest.parameters.get("estimator", ""))
    compared = [
        ("model.onnx sha256", manifest.sha256, sha256(content)),
        ("rows", manifest.trained_from.get("rows"), len(dataset)),
        ("data_sha256", manifest.trained_from.get("data_sha256"), dataset.sha256),
        ("learning_rate", manifest.parameters["learning_rate"], LEARNING_RATE),
        *((name, manifest.libraries.get(name), here[name]) for name in here),
    ]
    differences = [Difference(name, first, second) for name, first, second in compared if first != second]
    same = manifest.sha256 == sha256(content)
    return Reproduction(manifest.model, manifest.version, same, differences)


def _trained_again(manifest: Manifest, dataset: Dataset, problem: Problem) -> bytes:
    said = manifest.parameters
    start, end = int(said["first_row"]), int(said["end_row"])
    if not 0 <= start < end <= len(dataset):
        raise Refused(f"it was trained on rows {start} to {end}, and there are {len(dataset)} now")
    target = dataset.target if problem.task == "regression" else dataset.target.astype(np.int64)
    trained = train(
        problem.task,
        len(problem.classes),
        dataset.features[start:end],
        target[start:end],
        Recipe(said["algorithm"], said["trees"], said["depth"], said["seed"], said.get("estimator", "")),
        Source("", start, int(said["change_row"])).weights(end),
    )
    return export(trained, model=manifest.model, version=manifest.version, data_sha256=dataset.sha256)


def rows_from_log(manifest: Manifest, log: Log, check: Callable[[], None] = lambda: None) -> Dataset:
    """The rows that the version was made of, read again.

    Raises :class:`MissingInput` for a version that was made of a file. Labels that were corrected since, and what
    retention has deleted, make the rows differ: their hash tells.
    """
    source = manifest.trained_from
    if "partitions" not in source or source.get("from_ms") is None:
        raise MissingInput(
            f"version {manifest.version} was not made of the topics but of {source.get('file', 'rows unknown')}",
            "name the file with --file",
        )
    problem, rows = problem_of(manifest), int(source["rows"])
    references = References(manifest.model, int(source["from_ms"]), MORE_ROWS * max(rows, 1_000))
    feed = log.labelled(int(source["from_ms"]))
    try:
        while True:
            check()
            records = feed.poll()
            for record in records:
                references.add(record)
            if not records and feed.at_end():
                break
    finally:
        feed.close()
    wanted = [each for each in references.newest() if each.complete_ms <= int(source["to_ms"])]
    found = gather(wanted, problem, log.predictions, check)
    return _newest(found, rows)


def _newest(dataset: Dataset, rows: int) -> Dataset:
    """Rows of the first moment beyond the number that was used are left out, as they were then."""
    at = max(0, len(dataset) - rows)
    return Dataset(
        dataset.features[at:],
        dataset.target[at:],
        dataset.served[at:],
        dataset.complete_ms[at:],
        dataset.dropped,
        dataset.offsets,
    )
