"""What a checkpoint says of its pairs: the columns of a summary, and counts of equal rows."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from native.arrays import inside, items, outside
from native.library import library, typed
from native.rows import PAIR_BYTES, Floats, Ints, Mask, Rows

COLUMNS = (
    np.dtype(np.int64),
    np.dtype("<u4"),
    np.dtype(np.int64),
    np.dtype(np.uint8),
    np.dtype(np.float64),
    *(np.dtype(np.int64),) * 5,
)
"""The types of what :meth:`Loops.columns` gives."""


@cache
def loops() -> Loops | None:
    """The loops; None where Python does it."""
    compiled = library()
    return None if compiled is None else Loops(compiled)


class Loops:
    """Over pairs (``PAIR`` of :mod:`streams.effects`) and columns of int64, all of one length.

    Raises :class:`ValueError` for arrays of another type or shape.
    """

    def __init__(self, compiled: ctypes.PyDLL) -> None:
        self._rise = typed(compiled.pairs_rise, "pi")
        self._columns = typed(compiled.pairs_columns, "pi" + "p" * len(COLUMNS), None)
        self._codes = typed(compiled.pairs_codes, "pippppip")
        self._bounds = typed(compiled.pairs_bounds, "piipp", None)
        self._count = typed(compiled.pairs_count, "pppiipi")

    def rise(self, pairs: Rows) -> bool:
        """Whether pairs rise by ref, second of completion and outcome offset."""
        return bool(self._rise(items(pairs, PAIR_BYTES), len(pairs)))

    def columns(self, pairs: Rows) -> Sequence[NDArray[Any]]:
        """The columns of :class:`streams.summarise.Columns`; the cohorts are minutes yet."""
        count = len(pairs)
        found = [np.empty(count, dtype=dtype) for dtype in COLUMNS]
        self._columns(items(pairs, PAIR_BYTES), count, *(outside(each, each.dtype, count) for each in found))
        return found

    def codes(self, pairs: Rows, ends: Ints, positive: Floats, is_text: Mask, free: Mask) -> NDArray[np.uint8]:
        """The code of each pair, in runs that end at ``ends``.

        Of each run the number of its positive class, whether that is a text, and whether it is only assumed.

        Raises :class:`IndexError` if the runs are not all the pairs.
        """
        count, runs = len(pairs), len(ends)
        codes = np.empty(count, dtype=np.uint8)
        told = (inside(positive, np.float64, runs), inside(is_text, np.bool_, runs), inside(free, np.bool_, runs))
        written = outside(codes, np.uint8, count)
        if self._codes(items(pairs, PAIR_BYTES), count, inside(ends, np.int64, runs), *told, runs, written):
            raise IndexError(f"the runs are not of {count} pairs")
        return codes

    def counts(self, columns: Sequence[Ints], cells: int) -> tuple[list[int], list[int], Ints] | None:
        """(the least number of each column, how far it reaches, how often each row within that occurs).

        Rows are numbered as if their columns were digits, the first one the highest. There is at least one row. None
        if so many rows could be that there are more than ``cells``.
        """
        width, count = len(columns), len(columns[0])
        if not count:
            raise ValueError("no rows have no bounds")
        pointers = (ctypes.c_void_p * width)(*(inside(column, np.int64, count) for column in columns))
        least, greatest = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.int64)
        bounds = outside(least, np.int64, width), outside(greatest, np.int64, width)
        self._bounds(pointers, width, count, *bounds)
        lows = least.tolist()
        spans = [high - low + 1 for low, high in zip(lows, greatest.tolist(), strict=True)]
        if prod(spans) > cells:
            return None
        counts = np.zeros(prod(spans), dtype=np.int64)
        sizes = np.array(spans, dtype=np.int64)
        written = outside(counts, np.int64, len(counts))
        if self._count(pointers, bounds[0], inside(sizes, np.int64, width), width, count, written, len(counts)):
            raise IndexError("a row is none of those that can be")
        return lows, spans, counts
