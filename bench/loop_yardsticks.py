"""What the loop is compared with: never retraining, retraining by the clock, and an oracle that knows the drifts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bench.loop_streams import FIRST_ROWS, Case, Errors, RecordedStream, errors_of, fit, fitted_errors
from retrain.training import Recipe, Trained

EVERY_ROWS = 1_000
RECENT_ROWS = 2_000
ORACLE_ROWS = 1_000
"""The oracle waits for so many labelled rows of the new concept, and retrains once."""
LARGE_DRIFT = 10.0
"""Points of accuracy."""


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """0/1 errors of each row after the first 5,000; ``oracle`` is None where no drift is known."""

    static: Errors
    cron_recent: Errors
    cron_all: Errors
    oracle: Errors | None


def yardsticks(stream: RecordedStream, case: Case, recipe: Recipe) -> Yardsticks:
    """Serve the stream once for each of them. A retraining takes no time: it serves from the row it is made at."""
    labelled = stream.labelled(case)
    first = fit(stream, labelled[:FIRST_ROWS], recipe)
    if first is None:
        raise ValueError(f"the first {FIRST_ROWS:,} rows of {stream.name} have one class only")
    start = (FIRST_ROWS, first)
    recent, every = [start], [start]
    for row in range(FIRST_ROWS + EVERY_ROWS, len(stream), EVERY_ROWS):
        known = labelled[labelled < row - case.delay]
        recent += _retrained(stream, row, known[known >= row - case.delay - RECENT_ROWS], recipe)
        every += _retrained(stream, row, known, recipe)
    oracle = None
    if stream.drifts:
        made = [start]
        for drift in stream.drifts:
            rows = labelled[labelled >= drift][:ORACLE_ROWS]
            row = int(rows[-1]) + case.delay + 1 if len(rows) else len(stream)
            if len(rows) == ORACLE_ROWS and row < len(stream):
                made += _retrained(stream, row, rows, recipe)
        oracle = _served(stream, made)
    return Yardsticks(_served(stream, [start]), _served(stream, recent), _served(stream, every), oracle)


def _retrained(stream: RecordedStream, row: int, rows: NDArray[np.int64], recipe: Recipe) -> list[tuple[int, Trained]]:
    """Nothing where the rows show one class only: the model before stays."""
    model = fit(stream, rows, recipe)
    return [] if model is None else [(row, model)]


def _served(stream: RecordedStream, models: list[tuple[int, Trained]]) -> Errors:
    """Errors of models that each serve from their row on."""
    ends = [row for row, _ in models[1:]] + [len(stream)]
    return np.concatenate([errors_of(model, stream, row, end) for (row, model), end in zip(models, ends, strict=True)])


@dataclass(frozen=True, slots=True)
class Concepts:
    """What each drift costs a model that is fitted on the concept before, in points, and the errors that are left to
    one that is fitted on the concept itself (by row, from 5,000 on)."""

    bounds: tuple[int, ...]
    points: tuple[float, ...]
    fitted: Errors


def concepts(stream: RecordedStream, recipe: Recipe) -> Concepts:
    """Fit each concept of the stream."""
    bounds = (0, *stream.drifts, len(stream))
    fitted = [fitted_errors(stream, start, end, recipe) for start, end in pairwise(bounds)]
    points = []
    for (start, drift), end, errors in zip(pairwise(bounds), bounds[2:], fitted[1:], strict=False):
        before = fit(stream, np.arange(start, drift, dtype=np.int64), recipe)
        if before is not None:
            points.append(100.0 * float(errors_of(before, stream, drift, end).mean() - errors.mean()))
    return Concepts(bounds, tuple(points), np.concatenate(fitted)[FIRST_ROWS:])


def excess(found: Concepts, errors: Errors) -> list[float]:
    """Errors after each large drift, until the next drift, above those of a model fitted on the new concept."""
    above = errors - found.fitted
    spans = pairwise(found.bounds[1:])
    return [
        float(above[start - FIRST_ROWS : end - FIRST_ROWS].sum())
        for (start, end), points in zip(spans, found.points, strict=True)
        if points >= LARGE_DRIFT
    ]
