"""What is handed to C is what C takes it for, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from native.arrays import inside, items, outside, spread

INTS = np.arange(6, dtype=np.int64)


def test_an_array_of_the_right_type_and_shape_is_taken() -> None:
    """Also one that has no rows, and, to be read, one that nobody may write."""
    fixed = np.frombuffer(INTS.tobytes(), dtype=np.int64)
    assert outside(INTS, np.int64, 6) == inside(INTS, np.int64, 6) == INTS.ctypes.data
    assert inside(fixed, np.int64, 6) == fixed.ctypes.data
    assert inside(INTS.reshape(3, 2), np.int64, 3, 2) == INTS.ctypes.data
    assert inside(INTS[2:], np.int64, 4) == INTS.ctypes.data + 16
    inside(INTS[:0], np.int64, 0)


@pytest.mark.parametrize(
    "array",
    [
        INTS[:5],
        INTS[::-1],
        np.repeat(INTS, 2)[::2],
        INTS.reshape(3, 2),
        INTS.astype(np.int32),
        INTS.astype(np.uint64),
        INTS.astype(">i8"),
        np.frombuffer(b"\0" + INTS.tobytes(), dtype=np.int64, offset=1),
    ],
)
def test_another_length_order_type_or_alignment_is_refused(array: NDArray[np.int64]) -> None:
    """Before C reads beyond its end, or other numbers than there are."""
    with pytest.raises(ValueError, match="int"):
        inside(array, np.int64, 6)


def test_what_nobody_may_write_is_not_written() -> None:
    """The memory may be that of bytes."""
    fixed = np.frombuffer(INTS.tobytes(), dtype=np.int64)
    with pytest.raises(ValueError, match="only be read"):
        outside(fixed, np.int64, 6)
    with pytest.raises(ValueError, match="writable"):
        items(fixed, 8)


def test_records_are_of_one_size_and_behind_each_other() -> None:
    """Rows of a table and parts of it that are not spread out."""
    rows = np.zeros(4, dtype=[("key", "<u8", (2,)), ("offset", "<i8")])
    assert items(rows[1:], 24) == rows.ctypes.data + 24
    for wrong in (rows[::2], rows["offset"], rows.reshape(2, 2)):
        with pytest.raises(ValueError, match="not a writable row"):
            items(wrong, 24)


def test_keys_may_be_spread_over_rows_but_not_over_columns() -> None:
    """The two halves of a key are next to each other."""
    rows = np.zeros(4, dtype=[("number", "<f8"), ("key", "<u8", (2,))])
    assert spread(rows["key"], np.uint64, 2) == (rows.ctypes.data + 8, 24)
    assert spread(np.zeros((3, 2), dtype=np.uint64), np.uint64, 2)[1] == 16
    for wrong in (rows["key"][:, ::-1], rows["key"].T, rows["number"], np.zeros((3, 2), dtype=np.int64)):
        with pytest.raises(ValueError, match="row"):
            spread(wrong, np.uint64, 2)
