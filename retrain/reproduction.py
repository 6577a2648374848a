"""Training a version again from what its manifest says: the same bytes, or what differs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from retrain.champion import problem_of
from retrain.dataset import Dataset, Problem, Reference, References, gather
from retrain.difference import Difference
from retrain.estimators import packages
from retrain.export import export
from retrain.log import Log
from retrain.sources import Source
from retrain.training import LEARNING_RATE, Recipe, Refused, train
from serving.manifest import Manifest
from serving.model_file import sha256
from streams.errors import MissingInput
from streams.records import Labelled

LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxmltools", "scikit-learn", "skl2onnx", "xgboost")
UNSAID = "its release did not say how far it was read"
"""Of `labelled`, by a version of the topics whose manifest is older than that lineage."""


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


def reproduce(manifest: Manifest, dataset: Dataset, file_sha256: str | None = None) -> Reproduction:
    """Train the version again on ``dataset``, which was read from the file of ``file_sha256`` if one is given.

    Raises :class:`Refused` for rows that it cannot have been made of.
    """
    if not manifest.parameters:
        raise Refused(f"the manifest of version {manifest.version} does not say how it was trained: an older release's")
    content = _trained_again(manifest, dataset, problem_of(manifest))
    here, source = versions_here(manifest.parameters.get("estimator", "")), manifest.trained_from
    compared = [
        ("model.onnx sha256", manifest.sha256, sha256(content)),
        ("rows", source.get("rows"), len(dataset)),
        ("data_sha256", source.get("data_sha256"), dataset.sha256),
        ("file_sha256", source.get("file_sha256", file_sha256), file_sha256 or source.get("file_sha256")),
        ("learning_rate", manifest.parameters["learning_rate"], LEARNING_RATE),
        *((name, manifest.libraries.get(name), here[name]) for name in here),
    ]
    differences = [Difference(name, first, second) for name, first, second in compared if first != second]
    same = manifest.sha256 == sha256(content)
    if not same and _unsaid(source):
        differences.append(Difference("labelled", UNSAID, "read by time"))
    return Reproduction(manifest.model, manifest.version, same, differences)


def _trained_again(manifest: Manifest, dataset: Dataset, problem: Problem) -> bytes:
    said = manifest.parameters
    start, end = int(said["first_row"]), int(said["end_row"])
    if not 0 <= start < end <= len(dataset):
        unsaid = f"; of `labelled` {UNSAID}" if _unsaid(manifest.trained_from) else ""
        raise Refused(f"it was trained on rows {start} to {end}, and there are {len(dataset)} now{unsaid}")
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


def _unsaid(source: Mapping[str, Any]) -> bool:
    return "partitions" in source and "labelled" not in source


def rows_from_log(manifest: Manifest, log: Log, check: Callable[[], None] = lambda: None) -> Dataset:
    """The rows that the version was made of, read again: whatever came since does not count.

    Raises :class:`MissingInput` for a version that was made of a file, or of other topics than the log's. What
    retention has deleted makes the rows differ: their hash tells.
    """
    source = manifest.trained_from
    if "partitions" not in source or source.get("from_ms") is None:
        raise MissingInput(
            f"version {manifest.version} was not made of the topics but of {source.get('file', 'rows unknown')}",
            "name the file with --file",
        )
    accepts_missing = bool(source.get("unknown_as_missing"))  # as the champion of then took unknown categories
    problem = replace(problem_of(manifest), accepts_missing=accepts_missing)
    references = _references(manifest, log, check)
    return _newest(gather(references, problem, log.predictions, check), int(source["rows"]))


def _references(manifest: Manifest, log: Log, check: Callable[[], None]) -> list[Reference]:
    """The pairs that the training had read, from the oldest that it used on."""
    source, from_ms = manifest.trained_from, int(manifest.trained_from["from_ms"])
    if (read := source.get("labelled")) is None:
        references = References(manifest.model, from_ms, until_ms=int(source["to_ms"]))
        records = _since(log, from_ms)
    else:
        if read["topic"] != log.labelled_topic:
            raise MissingInput(
                f"version {manifest.version} was made by topic {read['topic']}, not by {log.labelled_topic}",
                "set kafka.topic_prefix as it was then",
            )
        # Not up to to_ms, the newest row that was of use: a later correction that was of none counted, too.
        references = References(manifest.model, from_ms)
        records = log.labelled_within({int(p): (start, end) for p, (start, end) in read["partitions"].items()})
    for record in records:
        check()
        references.add(record)
    return references.newest()


def _since(log: Log, from_ms: int) -> Iterator[Labelled]:
    """What `labelled` has of pairs complete at ``from_ms`` or later, to its end."""
    feed = log.labelled(from_ms)
    try:
        while (records := feed.poll()) or not feed.at_end():
            yield from records
    finally:
        feed.close()


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
