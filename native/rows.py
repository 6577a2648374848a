"""The rows of the join's tables, pairs, and what becomes of outcomes: a row at a time."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from native.arrays import inside, items, outside
from native.library import library, typed

Rows = NDArray[np.void]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Codes = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ROW_BYTES, PAIR_BYTES = 56, 104
"""The types ``ROW`` of :mod:`streams.rows` and ``PAIR`` of :mod:`streams.effects`, as C has them."""


@cache
def loops() -> Loops | None:
    """The loops; None where Python does it."""
    compiled = library()
    return None if compiled is None else Loops(compiled)


class Loops:
    """Over rows, pairs and columns; ``at`` are numbers of rows of columns, all of one length.

    Raises :class:`ValueError` for arrays of another type or shape, :class:`IndexError` for a number that names no row.
    """

    def __init__(self, compiled: ctypes.PyDLL) -> None:
        self._fill = typed(compiled.rows_fill, "ppiippppppp")
        self._move = typed(compiled.rows_move, "ppipi")
        self._at = typed(compiled.rows_at, "pipip", None)
        self._pairs = typed(compiled.rows_pairs, "ppippiippppp")
        self._join = typed(compiled.rows_join, "ppppippi")
        self._first = typed(compiled.rows_first, "pipip")
        self._fates = typed(compiled.rows_fates, "pppipppiipiiipp", ctypes.c_int64)

    def fill(
        self,
        rows: Rows,
        at: Ints,
        keys: NDArray[np.uint64],
        offsets: Ints,
        at_ms: Ints,
        event_ms: Ints,
        numbers: Floats,
        refs: Codes,
        kinds: Bytes,
    ) -> None:
        """Events ``at`` of columns as ``rows``."""
        count, length = len(at), len(offsets)
        if len(rows) != count:
            raise ValueError(f"{len(rows)} rows cannot hold {count} events")
        _found(
            self._fill(
                items(rows, ROW_BYTES),
                inside(at, np.int64, count),
                count,
                length,
                inside(keys, np.uint64, length, 2),
                *(inside(each, np.int64, length) for each in (offsets, at_ms, event_ms)),
                inside(numbers, np.float64, length),
                inside(refs, np.int32, length),
                inside(kinds, np.uint8, length),
            )
        )

    def move(self, to: Rows, rows: Rows, kept: Ints) -> None:
        """Rows ``kept``, which rise, become the first ones of ``to``, which may be ``rows`` itself."""
        count = len(kept)
        if len(to) < count:
            raise ValueError(f"{len(to)} rows cannot hold {count}")
        _found(
            self._move(items(to, ROW_BYTES), items(rows, ROW_BYTES), len(rows), inside(kept, np.int64, count), count)
        )

    def at(self, rows: Rows, offsets: Ints) -> Ints:
        """Where offsets are, or would be, among rows whose offsets rise."""
        found = np.empty(len(offsets), dtype=np.int64)
        count = len(offsets)
        self._at(
            items(rows, ROW_BYTES), len(rows), inside(offsets, np.int64, count), count, outside(found, np.int64, count)
        )
        return found

    def pairs(
        self,
        pairs: Rows,
        rows: Rows,
        partners: Ints,
        at: Ints,
        offsets: Ints,
        at_ms: Ints,
        event_ms: Ints,
        numbers: Floats,
        kinds: Bytes,
    ) -> None:
        """Predictions, the rows ``partners``, with outcomes ``at`` of columns as ``pairs``."""
        count, length = len(at), len(offsets)
        if len(pairs) != count:
            raise ValueError(f"{len(pairs)} pairs cannot hold {count} outcomes")
        _found(
            self._pairs(
                items(pairs, PAIR_BYTES),
                items(rows, ROW_BYTES),
                len(rows),
                inside(partners, np.int64, count),
                inside(at, np.int64, count),
                count,
                length,
                *(inside(each, np.int64, length) for each in (offsets, at_ms, event_ms)),
                inside(numbers, np.float64, length),
                inside(kinds, np.uint8, length),
            )
        )

    def join(
        self, states: Bytes, joined_ms: Ints, outcomes: Floats, outcome_kinds: Bytes, rows: Ints, pairs: Rows
    ) -> None:
        """Rows of a table, of which the first four are columns, have got the outcomes of ``pairs``."""
        count, length = len(rows), len(states)
        if len(pairs) != count:
            raise ValueError(f"{len(pairs)} pairs are not of {count} rows")
        _found(
            self._join(
                outside(states, np.uint8, length),
                outside(joined_ms, np.int64, length),
                outside(outcomes, np.float64, length),
                outside(outcome_kinds, np.uint8, length),
                length,
                inside(rows, np.int64, count),
                items(pairs, PAIR_BYTES),
                count,
            )
        )

    def first(self, marks: Ints, rows: Ints) -> Mask:
        """Of rows that may be named more than once: where each is named first.

        ``marks`` has a place for each row of the table, and what is in it is lost.
        """
        count = len(rows)
        first = np.empty(count, dtype=np.bool_)
        named = inside(rows, np.int64, count)
        _found(
            self._first(outside(marks, np.int64, len(marks)), len(marks), named, count, outside(first, np.bool_, count))
        )
        return first

    def fates(
        self,
        rows: Rows,
        states: Bytes,
        joined_ms: Ints,
        owners: Ints,
        at_ms: Ints,
        bad: Mask,
        start: int,
        meets: Mask,
        horizon_ms: int,
        dedupe_ms: int,
    ) -> tuple[Bytes, Mask, int]:
        """What becomes of outcomes → (as in :mod:`streams.fates`, which come before their predictions, how many do).

        ``owners`` are the outcomes' predictions, or -1. Rows from ``start`` on are new, and ``meets`` tells of them.
        """
        length, count = len(rows), len(owners)
        fates, before = np.empty(count, dtype=np.uint8), np.empty(count, dtype=np.bool_)
        early = self._fates(
            items(rows, ROW_BYTES),
            inside(states, np.uint8, length),
            inside(joined_ms, np.int64, length),
            length,
            inside(owners, np.int64, count),
            inside(at_ms, np.int64, count),
            inside(bad, np.bool_, count),
            count,
            start,
            inside(meets, np.bool_, len(meets)),
            len(meets),
            horizon_ms,
            dedupe_ms,
            outside(fates, np.uint8, count),
            outside(before, np.bool_, count),
        )
        _found(early)
        return fates, before, early


def _found(result: int) -> None:
    if result < 0:
        raise IndexError("a row is named that is not there")
