"""Plain JSON events, decoded into columns: ``events.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from native.arrays import inside, outside
from native.library import library, typed

Ints = NDArray[np.int64]
DISTINCT = 4_096
"""Distinct names, and distinct classes, of one call: a power of two."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row an event.

    ``keys`` has 16 bytes for each id that is a UUID; the others are ``ids``, by row. ``kinds`` and ``numbers`` are
    the values: places in ``texts`` for classes. ``names`` are places in ``named``, or -1 where an outcome claims no
    model. A place is in the order in which its text was first seen.
    """

    keys: NDArray[np.uint64]
    ids: dict[int, str]
    times: Ints
    kinds: NDArray[np.uint8]
    numbers: NDArray[np.float64]
    names: NDArray[np.int32]
    named: list[tuple[str, ...]]
    texts: list[str]


@cache
def _function() -> Callable[..., int] | None:
    compiled = library()
    return None if compiled is None else typed(compiled.events_decode, "wbi" + "p" * 8 + "w" + "p" * 5, ctypes.c_int64)


def decode(prediction: bool, data: bytes, starts: Ints, stops: Ints, at_ms: Ints) -> Decoded | None:
    """Predictions, or outcomes, whose JSON is ``data`` from each start to its stop; ``at_ms`` stands in for a time.

    None if one of them is not plain: not an event, or one that only a real parser may judge. Raises
    :class:`ValueError` if a span lies outside of ``data``.
    """
    function, rows = _function(), len(starts)
    if function is None or not rows:
        return None
    if len(stops) != rows or stops.max() > len(data) or (starts > stops).any():
        raise ValueError(f"values lie outside of the {len(data)} bytes that were given")
    keys, ids = np.empty((rows, 2), dtype=np.uint64), np.empty((rows, 2), dtype=np.int64)
    times, kinds, numbers = at_ms.copy(), np.empty(rows, dtype=np.uint8), np.empty(rows, dtype=np.float64)
    names, width = np.empty(rows, dtype=np.int32), 3 if prediction else 1
    texts, distinct = np.empty((DISTINCT, 1, 2), dtype=np.int64), np.empty((DISTINCT, width, 2), dtype=np.int64)
    slots, counts = np.zeros((2, 2 * DISTINCT), dtype=np.int32), np.empty(2, dtype=np.int32)
    plain = function(
        prediction,
        data,
        rows,
        inside(starts, np.int64, rows),
        inside(stops, np.int64, rows),
        outside(keys, np.uint64, rows, 2),
        outside(ids, np.int64, rows, 2),
        outside(times, np.int64, rows),
        outside(kinds, np.uint8, rows),
        outside(numbers, np.float64, rows),
        outside(names, np.int32, rows),
        DISTINCT,
        outside(texts, np.int64, DISTINCT, 1, 2),
        outside(slots[0], np.int32, 2 * DISTINCT),
        outside(distinct, np.int64, DISTINCT, width, 2),
        outside(slots[1], np.int32, 2 * DISTINCT),
        outside(counts, np.int32, 2),
    )
    if plain < rows:
        return None
    own = {row: _text(data, *ids[row].tolist()) for row in np.flatnonzero(ids[:, 1]).tolist()}
    named = [tuple(_text(data, *span) for span in entry) for entry in distinct[: counts[1]].tolist()]
    classes = [_text(data, *span) for entry in texts[: counts[0]].tolist() for span in entry]
    return Decoded(keys, own, times, kinds, numbers, names, named, classes)


def _text(data: bytes, start: int, length: int) -> str:
    return data[start : start + length].decode("ascii")
