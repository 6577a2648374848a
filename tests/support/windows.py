"""Feeds a join one run of events at a time: what a worker's batches come down to, without topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streams.catalog import Catalog
from streams.columns import OUTCOMES, PREDICTIONS, Events, fields_of, outcome_columns, prediction_columns
from streams.events import Outcome, Prediction
from streams.join import PartitionJoin
from streams.records import DeadReason
from streams.timeline import Piece, Window
from streams.values import Ints

Undecodable = Mapping[int, tuple[DeadReason, str]]


def _times(at_ms: int | Sequence[int], count: int) -> Ints:
    return np.array([at_ms] * count if isinstance(at_ms, int) else at_ms, dtype=np.int64)


def prediction_events(
    at_ms: int | Sequence[int],
    events: Sequence[Prediction | None],
    offsets: Sequence[int],
    bad: Undecodable | None = None,
) -> Events:
    """Predictions of one record time, or of one each; None is one that could not be decoded, and is in ``bad``."""
    times, places = _times(at_ms, len(events)), np.array(offsets, dtype=np.int64)
    original = dict(zip(offsets, map(msgspec.json.encode, events), strict=True)).get
    return prediction_columns(
        fields_of(PREDICTIONS, events), times, places, original, offsets[-1] + 1 if offsets else 0, dict(bad or {})
    )


def outcome_events(
    at_ms: int | Sequence[int], events: Sequence[Outcome | None], offsets: Sequence[int], bad: Undecodable | None = None
) -> Events:
    """Outcomes, as :func:`prediction_events`."""
    times, places = _times(at_ms, len(events)), np.array(offsets, dtype=np.int64)
    original = dict(zip(offsets, map(msgspec.json.encode, events), strict=True)).get
    return outcome_columns(
        fields_of(OUTCOMES, events), times, places, original, offsets[-1] + 1 if offsets else 0, dict(bad or {})
    )


def whole(events: Events) -> Piece:
    """All of a batch."""
    return Piece(events, 0, len(events))


def take_predictions(
    join: PartitionJoin, catalog: Catalog, at_ms: int, events: Sequence[Prediction], first: int = 0
) -> None:
    """Let a join take in a run of predictions with offsets from ``first`` on."""
    offsets = range(first, first + len(events))
    join.take(Window(([whole(prediction_events(at_ms, events, offsets))], [])), catalog)


def take_outcomes(join: PartitionJoin, catalog: Catalog, at_ms: int, events: Sequence[Outcome], first: int = 0) -> None:
    """Let a join take in a run of outcomes with offsets from ``first`` on."""
    offsets = range(first, first + len(events))
    join.take(Window(([], [whole(outcome_events(at_ms, events, offsets))])), catalog)
