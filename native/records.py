"""Records of Kafka's record batches, found in their bytes: ``records.c``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from native.arrays import inside, outside
from native.library import library, typed

Ints = NDArray[np.int64]
LEAST_RECORD_BYTES = 7
"""Of a record without anything in it: no chunk has more records than that many times fewer."""


@cache
def _function() -> Callable[..., int] | None:
    compiled = library()
    return None if compiled is None else typed(compiled.records_split, "bi" + "p" * 6)


def split(chunks: Sequence[bytes | memoryview], counts: Sequence[int]) -> tuple[bytes, Ints, Ints, bytes | None] | None:
    """(all bytes, where each value starts in them, where it stops, the first key) of chunks that hold so many records.

    A start of -1 is a record without a value. ``chunks`` are record batches without their headers, uncompressed. None:
    their offsets have holes, they are damaged, or there is no library; they must be read record by record.
    """
    function = _function()
    if function is None or not all(0 < n <= len(c) // LEAST_RECORD_BYTES for n, c in zip(counts, chunks, strict=True)):
        return None
    data = b"".join(chunks)
    ends = np.cumsum([len(chunk) for chunk in chunks], dtype=np.int64)
    begins = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
    held, rows = np.array(counts, dtype=np.int64), sum(counts)
    starts, stops, key = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64), np.empty(2, dtype=np.int64)
    given = [inside(each, np.int64, len(chunks)) for each in (begins, ends, held)]
    made = [outside(each, np.int64, len(each)) for each in (starts, stops, key)]
    if function(data, len(chunks), *given, *made) != 0:
        return None
    return data, starts, stops, None if key[0] < 0 else data[key[0] : key[1]]
