"""The hash table of :mod:`streams.id_index`: its searches and insertions, a key at a time."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from native.arrays import outside, spread
from native.library import library, typed

Keys = NDArray[np.uint64]
Ints = NDArray[np.int64]

_TABLE, _KEYS = "piupii", "pii"


@cache
def loops() -> Loops | None:
    """The loops; None where Python does it."""
    compiled = library()
    return None if compiled is None else Loops(compiled)


class Loops:
    """Over ``slots`` (int64, a power of two of them) and ``rows``, the keys of all rows of the table; a key is a row of
    two uint64. ``mix`` is what the hashes depend on.

    Raises :class:`ValueError` for arrays of another type or shape. What the slots hold may be anything.
    """

    def __init__(self, compiled: ctypes.PyDLL) -> None:
        self._find = typed(compiled.ids_find, _TABLE + _KEYS + "p", None)
        self._insert = typed(compiled.ids_insert, _TABLE + _KEYS + "ipppp")
        self._rebuild = typed(compiled.ids_rebuild, _TABLE)

    def find(self, slots: Ints, mix: int, rows: Keys, keys: Keys) -> Ints:
        """The row of each key, or -1."""
        count = len(keys)
        found = np.empty(count, dtype=np.int64)
        self._find(*_table(slots, mix, rows), *spread(keys, np.uint64, 2), count, outside(found, np.int64, count))
        return found

    def insert(self, slots: Ints, mix: int, rows: Keys, keys: Keys, first: int) -> tuple[Ints, Ints, Ints]:
        """Let keys be found in rows ``first``, … → (slots written, what they held, indexes of repeated keys).

        Raises :class:`OverflowError` if the table is full; some of them are in it then.
        """
        count = len(keys)
        if first < 0 or first + count > len(rows):
            raise ValueError(f"{count} keys from row {first} on are more than the {len(rows)} rows")
        written, before, repeated = (np.empty(count, dtype=np.int64) for _ in range(3))
        counts = np.empty(2, dtype=np.int64)
        outputs = (outside(each, np.int64, len(each)) for each in (written, before, repeated, counts))
        if self._insert(*_table(slots, mix, rows), *spread(keys, np.uint64, 2), count, first, *outputs):
            raise OverflowError(f"{len(slots)} slots are full")
        wrote, again = counts.tolist()
        return written[:wrote], before[:wrote], repeated[:again]

    def rebuild(self, slots: Ints, mix: int, rows: Keys) -> None:
        """Let all rows be found; ``slots`` are empty. Of equal keys the last is found.

        Raises :class:`OverflowError` if there are more rows than slots.
        """
        if self._rebuild(*_table(slots, mix, rows)):
            raise OverflowError(f"{len(slots)} slots are full")


def _table(slots: Ints, mix: int, rows: Keys) -> tuple[int, int, int, int, int, int]:
    count = len(slots)
    if count < 2 or count & (count - 1):
        raise ValueError(f"{count} slots are not a power of two")
    return outside(slots, np.int64, count), count, mix, *spread(rows, np.uint64, 2), len(rows)
