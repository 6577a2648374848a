"""Arrays as C functions take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pointer(array: NDArray[Any], dtype: type[np.generic], rows: int) -> int:
    """The address of a contiguous array that has at least ``rows`` items of a type. Raises :class:`ValueError`.

    The array must outlive the call that gets the address.
    """
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < rows:
        raise ValueError(f"an array of {array.size} × {array.dtype} was given for {rows} × {np.dtype(dtype)}")
    return array.ctypes.data
