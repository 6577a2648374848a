"""Events as columns: what a batch of decoded predictions or outcomes is turned into before anything looks at it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np

from native.events import decode
from native.library import library
from streams.events import MAX_MAGNITUDE, MAX_TIME_MS, MAX_VALUE_BYTES, Outcome, Prediction, milliseconds
from streams.id_index import Keys
from streams.ids import id_keys
from streams.records import DeadReason
from streams.spans import Spans
from streams.values import Codes, H, Ints, Places, Values, as_values

Name = tuple[str, str, str]
"""Model, version, segment."""
Original = Callable[[int], bytes | None]
"""Offset → the bytes of the record there: kept by whoever has them, and asked for only for a dead letter."""
PREDICTIONS, OUTCOMES = 0, 1
"""The sides of a join."""
NOBODY = -1
"""The code of a model that an outcome does not claim."""


@dataclass(slots=True)
class Events:
    """Decoded records of one input in offset order, a row each; a row in ``bad`` could not be decoded.

    ``original`` gives the bytes as they came. ``end_offset`` is the position after the last one (a hole may follow it).
    ``names`` are places in ``named``: of :data:`Name` for predictions, of model names (or :data:`NOBODY`) for outcomes.
    """

    at_ms: Ints
    offsets: Ints
    keys: Keys
    event_ms: Ints
    values: Values
    names: Codes
    named: Sequence[Any]
    original: Original
    end_offset: int
    bad: dict[int, tuple[DeadReason, str]] = field(default_factory=dict)
    scores: Sequence[float | None] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def within_bounds(self) -> bool:
        """Whether every number and time is one that the codec accepts (NaN cannot come from JSON)."""
        numbers, times = self.values.numbers, self.event_ms
        if not len(self):
            return True
        if max(-numbers.min(), numbers.max()) > MAX_MAGNITUDE or times.min() < 0 or times.max() > MAX_TIME_MS:
            return False
        scores = np.array(self.scores, dtype=np.float64)  # None becomes NaN, which is neither
        return not ((scores < 0.0) | (scores > 1.0)).any()


def as_times(times: Sequence[object], at_ms: Ints) -> Ints:
    """The events' own times in epoch milliseconds; the record's time where the event has none."""
    try:
        return np.fromiter(cast(Sequence[int], times), dtype=np.int64, count=len(times))
    except TypeError:  # some have none, or one in words
        if set(map(type, times)) == {type(None)}:
            return at_ms.copy()
        return np.fromiter(
            (
                milliseconds(time) if isinstance(time, int | dt.datetime) else own
                for time, own in zip(times, at_ms.tolist(), strict=True)
            ),
            dtype=np.int64,
            count=len(times),
        )


def _places(items: Sequence[H]) -> tuple[Codes, list[H]]:
    """(the place of each item, the distinct items in the order of their first sight)."""
    distinct = set(items)
    if len(distinct) == 1:
        return np.zeros(len(items), dtype=np.int32), list(distinct)
    places: Places[H] = Places()
    add = places.add
    return np.fromiter(map(add, items), dtype=np.int32, count=len(items)), places.items


_ABSENT = {PREDICTIONS: Prediction("-", "-", "-", 0), OUTCOMES: Outcome("-", 0)}
"""Stand in for what could not be decoded; such rows are never looked at."""


def fields_of(side: int, events: Sequence[Prediction | Outcome | None]) -> list[tuple[Any, ...]]:
    """The fields of events, a tuple a field; None stands for what could not be decoded."""
    rows = [_ABSENT[side] if event is None else event for event in events]
    names = _ABSENT[side].__struct_fields__
    return list(zip(*map(msgspec.structs.astuple, rows), strict=True)) if rows else [()] * len(names)


def prediction_columns(
    fields: Sequence[Sequence[Any]],
    at_ms: Ints,
    offsets: Ints,
    original: Original,
    end_offset: int,
    bad: dict[int, tuple[DeadReason, str]] | None = None,
) -> Events:
    """Predictions as columns, from the fields of :class:`~streams.events.Prediction`, a sequence a field."""
    ids, models, versions, values, times, scores, segments = fields
    parts = [_places(models), _places(versions), _places(segments)]
    if all(len(distinct) == 1 for _, distinct in parts):
        codes, named = parts[0][0], [(models[0], versions[0], segments[0])]
    else:
        codes, named = _places(list(zip(models, versions, segments, strict=True)))
    return Events(
        at_ms,
        offsets,
        id_keys(ids),
        as_times(times, at_ms),
        as_values(values),
        codes,
        [(model, str(version), segment or "") for model, version, segment in named],
        original,
        end_offset,
        bad or {},
        scores,
    )


def plain_columns(
    side: int, values: Sequence[bytes | None], at_ms: Ints, offsets: Ints, original: Original, end_offset: int
) -> Events | None:
    """The columns of plain JSON events, made without an object for any of them; None: they are not, or not all.

    Scores have been checked.
    """
    if library() is None:
        return None
    spans = Spans.of(values)
    if spans.longest > MAX_VALUE_BYTES:
        return None
    found = decode(side == PREDICTIONS, spans.data, spans.starts, spans.stops, at_ms)
    if found is None:
        return None
    if found.ids:
        found.keys[list(found.ids)] = id_keys(list(found.ids.values()))
    named: list[Any] = list(found.named) if side == PREDICTIONS else [name for (name,) in found.named]
    if (found.names == NOBODY).any():
        named.append(None)
    of_value = Values(found.kinds, found.numbers, found.texts)
    return Events(at_ms, offsets, found.keys, found.times, of_value, found.names, named, original, end_offset)


def outcome_columns(
    fields: Sequence[Sequence[Any]],
    at_ms: Ints,
    offsets: Ints,
    original: Original,
    end_offset: int,
    bad: dict[int, tuple[DeadReason, str]] | None = None,
) -> Events:
    """Outcomes as columns, from the fields of :class:`~streams.events.Outcome`, a sequence a field."""
    ids, values, times, models, *_ = fields
    codes, named = _places(models)
    if None in named:
        nobody = named.index(None)
        codes = np.where(codes == nobody, NOBODY, codes).astype(np.int32)
    return Events(
        at_ms,
        offsets,
        id_keys(ids),
        as_times(times, at_ms),
        as_values(values),
        codes,
        named,
        original,
        end_offset,
        bad or {},
    )
