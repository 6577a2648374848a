"""Rows of one input by their id, as columns: predictions that wait or are remembered, outcomes that wait.

Rows are in the order of their offsets, and so of their times: what is oldest is in front, and a row is found by its
offset as well as by its id. A row that is gone stays until the table is compacted, which happens when it is full.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from native import rows as native
from streams.id_index import IdIndex, Keys, Written
from streams.values import Ints

ROW = np.dtype(
    {
        "names": ["key", "offset", "at_ms", "event_ms", "number", "ref", "kind"],
        "formats": [("<u8", (2,)), "<i8", "<i8", "<i8", "<f8", "<i4", "u1"],
        "itemsize": 56,
    }
)
"""A row as it is in memory and in the store. ``ref`` is a prediction's model, version and segment, or the model that an
outcome claims; ``kind`` and ``number`` are its value."""
WHOLE_ROW = np.dtype((np.void, ROW.itemsize))
"""A row without a look at its fields: it is copied as one."""
Rows = NDArray[np.void]


def with_whole_row(more: Sequence[tuple[str, str]]) -> np.dtype[np.void]:
    """The fields of a row, the row whole as ``row``, and more fields behind it, each on a place of eight bytes."""
    own: Mapping[str, Any] = ROW.fields or {}  # the type is that of any dtype
    return np.dtype(
        {
            "names": [*own, *(name for name, _ in more), "row"],
            "formats": [*(field[0] for field in own.values()), *(format_ for _, format_ in more), WHOLE_ROW],
            "offsets": [*(field[1] for field in own.values()), *(ROW.itemsize + 8 * n for n in range(len(more))), 0],
            "itemsize": ROW.itemsize + 8 * len(more),
        }
    )


States = NDArray[np.uint8]
GONE, WAITING, JOINED, EXPIRED = range(4)
MINIMUM_ROWS = 1_024
GROWN_ROWS = 65_536
"""The least that a table grows to: every growth writes the index anew, and pages that no row is in cost nothing."""


def one_behind_the_other(chunks: Sequence[Rows], dtype: np.dtype[np.void]) -> Rows:
    """Rows of one type as one array. (``np.concatenate`` would make them anew, field by field and without padding.)"""
    if len(chunks) == 1:
        return chunks[0]
    whole = np.dtype((np.void, dtype.itemsize))
    rows: Rows = np.concatenate([np.empty(0, dtype=whole), *(chunk.view(whole) for chunk in chunks)]).view(dtype)
    return rows


def chosen(rows: Rows, at: Ints | NDArray[np.bool_]) -> Rows:
    """Some rows, of any type. (Chosen from the array itself, they would be copied field by field.)"""
    found: Rows = rows.view(np.dtype((np.void, rows.dtype.itemsize)))[at].view(rows.dtype)
    return found


class RowTable:
    """Rows by id, by offset and by age."""

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(MINIMUM_ROWS, dtype=ROW)
        self.states: States = np.zeros(MINIMUM_ROWS, dtype=np.uint8)
        self.end = 0
        """Rows in use, gone ones included."""
        self.stored = 0
        """Rows before it were there at the last checkpoint."""
        self.waiting = 0
        """Rows that wait."""
        self._index = IdIndex()
        self._due = 0
        """No row before it waits."""

    # -------------------------------------------------------------------------------------------------- looking up

    def find(self, keys: Keys) -> Ints:
        """The row of each key, or -1. The row may be gone or expired."""
        if not self.end:
            return np.full(len(keys), -1, dtype=np.int64)
        return self._index.find(keys, self.rows["key"])

    def at(self, offsets: Ints) -> Ints:
        """The row of each offset; all are there."""
        if (loops := native.loops()) is not None:
            return loops.at(self.rows[: self.end], np.ascontiguousarray(offsets))
        return np.searchsorted(self.rows["offset"][: self.end], offsets).astype(np.int64)

    def before(self, limit_ms: int) -> int:
        """How many rows are earlier than a time."""
        # Of a column that is spread over rows np.searchsorted makes a copy first.
        return bisect_left(self.rows["at_ms"], limit_ms, 0, self.end)

    def select(self, state: int, start: int = 0) -> Ints:
        """The rows in a state, from row ``start`` on."""
        return start + np.flatnonzero(self.states[start : self.end] == state)

    # ------------------------------------------------------------------------------------------------ coming, going

    def reserve(self, count: int) -> None:
        """Make room for ``count`` rows. Row numbers change."""
        if self.end + count <= len(self.rows):
            return
        kept = np.flatnonzero(self.states[: self.end])
        self._compact(kept, max(len(self.rows), GROWN_ROWS, 2 * (len(kept) + count)))

    def _compact(self, kept: Ints, capacity: int) -> None:
        rows, states = self.rows, self.states[kept]
        self.stored, self._due = int(np.searchsorted(kept, self.stored)), int(np.searchsorted(kept, self._due))
        self._moved(kept, capacity)
        if capacity != len(rows):
            self.rows, self.states = np.zeros(capacity, dtype=ROW), np.zeros(capacity, dtype=np.uint8)
        self.end = len(kept)
        if (loops := native.loops()) is not None:
            loops.move(self.rows, rows, kept)
        else:
            self.rows.view(WHOLE_ROW)[: self.end] = rows.view(WHOLE_ROW)[kept]
        self.states[: self.end], self.states[self.end :] = states, GONE
        self._index.rebuild(self.rows["key"][: self.end], capacity)

    def _moved(self, kept: Ints, capacity: int) -> None:
        """Rows ``kept`` are 0, 1, … from now on."""

    def append(self, rows: Rows) -> Written:
        """Let rows wait, behind :meth:`reserve`; a row whose id an earlier one of them has is gone at once.

        An id that an older row has belongs to the new one from now on; the older row is not touched.
        """
        start, end = self.end, self.end + len(rows)
        self.rows.view(WHOLE_ROW)[start:end] = rows.view(WHOLE_ROW)
        self.states[start:end] = WAITING
        written = self._index.insert(rows["key"], self.rows["key"], start)
        self.states[start + written.repeated] = GONE
        self.end = end
        self.waiting += len(rows) - len(written.repeated)
        return written

    def undo(self, start: int, written: Written) -> None:
        """Take back the newest :meth:`append`, whose first row was ``start``."""
        self.waiting -= int(np.count_nonzero(self.states[start : self.end] == WAITING))
        self._index.undo(written)
        self.states[start : self.end] = GONE
        self.end = start

    def leave(self, rows: Ints, state: int = GONE) -> None:
        """Rows that wait do so no longer."""
        self.states[rows] = state
        self.waiting -= len(rows)

    def due(self, limit_ms: int) -> Ints:
        """The rows that wait and are earlier than ``limit_ms``."""
        if self._due >= self.end or self.rows["at_ms"][self._due] >= limit_ms:
            return np.empty(0, dtype=np.int64)
        end = self.before(limit_ms)
        found = self._due + np.flatnonzero(self.states[self._due : end] == WAITING)
        self._due = end
        return found

    def oldest(self, count: int) -> Ints:
        """The ``count`` oldest rows that wait."""
        return self.select(WAITING, self._due)[:count]

    def replace(self, rows: Rows, states: States) -> None:
        """Take over rows, sorted by offset; of rows with one id the last one is found."""
        self.rows = np.zeros(max(MINIMUM_ROWS, 2 * len(rows)), dtype=ROW)
        self.states = np.zeros(len(self.rows), dtype=np.uint8)
        self.end = self.stored = len(rows)
        self.rows[: self.end], self.states[: self.end] = rows, states
        self.waiting = int(np.count_nonzero(states == WAITING))
        self._due = 0
        self._index.rebuild(rows["key"], len(self.rows))


class PredictionTable(RowTable):
    """Predictions that wait, pairs that are remembered, and predictions that expired."""

    def __init__(self) -> None:
        super().__init__()
        self.joined_ms = np.zeros(MINIMUM_ROWS, dtype=np.int64)
        self.outcomes = np.zeros(MINIMUM_ROWS, dtype=np.float64)
        self.outcome_kinds = np.zeros(MINIMUM_ROWS, dtype=np.uint8)
        self.expired = 0
        """Rows that have expired and are remembered."""
        self._forgotten = 0
        """No row before it is expired."""
        self._marks = np.zeros(MINIMUM_ROWS, dtype=np.int64)

    def _moved(self, kept: Ints, capacity: int) -> None:
        self._forgotten = int(np.searchsorted(kept, self._forgotten))
        if len(self._marks) != capacity:
            self._marks = np.zeros(capacity, dtype=np.int64)
        joined = np.flatnonzero(self.states[kept] == JOINED)  # the others have no outcome: their pages stay untouched
        for name in ("joined_ms", "outcomes", "outcome_kinds"):
            column = getattr(self, name)
            moved = np.zeros(capacity, dtype=column.dtype)
            moved[joined] = column[kept[joined]]
            setattr(self, name, moved)

    def replace(self, rows: Rows, states: States) -> None:
        """Take over rows; their outcomes are for the caller to set."""
        super().replace(rows, states)
        self._moved(np.empty(0, dtype=np.int64), len(self.rows))
        self.expired = int(np.count_nonzero(states == EXPIRED))
        self._forgotten = 0

    def first_of(self, rows: Ints) -> NDArray[np.bool_]:
        """Of rows that may be named more than once: where each is named first."""
        if (loops := native.loops()) is not None:
            return loops.first(self._marks, rows)
        order = np.arange(len(rows))
        self._marks[rows[::-1]] = order[::-1]
        first: NDArray[np.bool_] = self._marks[rows] == order
        return first

    def pair(self, rows: Ints, pairs: Rows) -> None:
        """Rows that wait have got their outcomes, which are in ``pairs`` (:data:`streams.effects.PAIR`)."""
        if (loops := native.loops()) is not None:
            loops.join(self.states, self.joined_ms, self.outcomes, self.outcome_kinds, rows, pairs)
            self.waiting -= len(rows)
            return
        self.leave(rows, JOINED)
        self.joined_ms[rows], self.outcomes[rows] = pairs["joined_ms"], pairs["outcome"]
        self.outcome_kinds[rows] = pairs["outcome_kind"]

    def expire(self, rows: Ints) -> None:
        """Rows that wait have got none in time."""
        self.leave(rows, EXPIRED)
        self.expired += len(rows)
        if len(rows):
            self._forgotten = min(self._forgotten, int(rows[0]))

    def forget_expired(self, rows: Ints) -> None:
        """Expired rows are remembered no longer."""
        self.states[rows] = GONE
        self.expired -= len(rows)

    def expired_before(self, limit_ms: int) -> Ints:
        """The expired rows that are earlier than ``limit_ms``."""
        if not self.expired or self.rows["at_ms"][self._forgotten] >= limit_ms:
            return np.empty(0, dtype=np.int64)
        end = self.before(limit_ms)
        found = self._forgotten + np.flatnonzero(self.states[self._forgotten : end] == EXPIRED)
        self._forgotten = end
        return found

    def oldest_expired(self, count: int) -> Ints:
        """The ``count`` oldest rows that have expired."""
        return self.select(EXPIRED, self._forgotten)[:count]
