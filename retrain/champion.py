"""The version that serves, as the comparison needs it: its answers to rows, by the very model that serves."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import numpy.typing as npt
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from retrain.dataset import Problem
from retrain.run import Answers
from retrain.training import Floats, Refused
from serving.engine import LoadedModel, UnusableModel, UnusableOutput
from serving.manifest import Manifest
from streams.events import milliseconds

BATCH_ROWS = 4_096
FAILURES = (
    UnusableOutput,
    runtime.EPFail,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.NotImplemented,
    runtime.RuntimeException,
)
"""What asking a graph that loaded may still come to: the runtime has a class for each status, without a base."""


def problem_of(manifest: Manifest) -> Problem:
    """What the version of ``manifest`` answers. Raises :class:`Refused` for a task that nobody has declared."""
    if manifest.task == "classification":
        raise Refused("the task is not declared: say binary, multiclass or regression in the manifest")
    return Problem(
        manifest.model,
        manifest.task,
        tuple(manifest.signature.features),
        tuple(manifest.classes),
        manifest.positive,
        manifest.signature.accepts_missing,
    )


def fresh_ms(manifest: Manifest) -> int:
    """From here on, in stream time, no row had a part in making the version. One that was made of a file counts from
    the time at which it was made. Raises :class:`Refused` for one that does not say.
    """
    to_ms = manifest.trained_from.get("to_ms")
    try:
        return int(to_ms) + 1 if to_ms else milliseconds(dt.datetime.fromisoformat(manifest.created_at))
    except (TypeError, ValueError) as error:
        raise Refused(f"version {manifest.version} does not say when it was made: {error}") from None


def answers_of(onnx: bytes, manifest: Manifest) -> Answers:
    """The answers of a version. Raises :class:`Refused` for one that does not load."""
    problem = problem_of(manifest)
    try:
        loaded = LoadedModel(onnx, manifest)
    except UnusableModel as error:
        raise Refused(f"version {manifest.version} does not load: {error}") from None

    def answer(rows: Floats) -> npt.NDArray[np.float64]:
        found: list[float] = []
        for start in range(0, len(rows), BATCH_ROWS):
            try:
                predictions = loaded.predict(rows[start : start + BATCH_ROWS]).predictions
            except FAILURES as error:
                raise Refused(f"version {manifest.version} cannot answer: {str(error).splitlines()[0]}") from None
            encoded = (problem.encode(value) for value in predictions)
            found.extend(math.nan if value is None else value for value in encoded)
        return np.asarray(found, dtype=np.float64)

    return answer
