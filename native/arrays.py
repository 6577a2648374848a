"""Where arrays are in memory, once they are what the C of a function takes them for."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

_begin = (ctypes.c_char * 0).from_buffer


def outside(array: NDArray[Any], dtype: np.dtype[Any] | type[np.generic], *shape: int) -> int:
    """The address of an array that is written. Raises :class:`ValueError` if its type, shape or order are others."""
    if not array.flags.writeable:
        raise ValueError("an array that can only be read cannot be written")
    return inside(array, dtype, *shape)


def inside(array: NDArray[Any], dtype: np.dtype[Any] | type[np.generic], *shape: int) -> int:
    """The address of an array that is only read, as :func:`outside`."""
    flags = array.flags
    if array.dtype != dtype or array.shape != shape or not (flags.c_contiguous and flags.aligned):
        raise ValueError(f"{array.dtype} of shape {array.shape} is not {dtype} of {shape}, one item behind the other")
    # Through the buffer it takes a fifth of the time, and only what can be written lets itself be looked at so.
    return ctypes.addressof(_begin(array.data)) if flags.writeable else array.ctypes.data


def items(array: NDArray[Any], size: int) -> int:
    """The address of records of ``size`` bytes, one behind the other. Raises :class:`ValueError` for anything else."""
    if array.itemsize != size or array.ndim != 1 or not array.flags.carray:
        raise ValueError(f"{array.dtype} of shape {array.shape} is not a writable row of records of {size} bytes")
    return array.ctypes.data


def spread(array: NDArray[Any], dtype: np.dtype[Any] | type[np.generic], width: int) -> tuple[int, int]:
    """(address, bytes from one row to the next) of rows of ``width`` items that are next to each other.

    Raises :class:`ValueError` for anything else.
    """
    if array.dtype != dtype or array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{array.dtype} of shape {array.shape} is not rows of {width} {dtype}")
    if len(array) and array.strides[1] != array.itemsize:
        raise ValueError("the items of a row are not next to each other")
    return array.ctypes.data, array.strides[0]


def floats(values: NDArray[np.float64]) -> bytes:
    """Floats that are only read: a copy, which for a window of errors takes a tenth of asking numpy for an address.

    Raises :class:`TypeError` for anything else.
    """
    if values.dtype != np.float64:
        raise TypeError(f"floats of 8 bytes are needed, not {values.dtype}")
    return values.tobytes()


def made(array: NDArray[Any]) -> int:
    """The address of an array that its caller has just made, to be written.

    Raises :class:`TypeError` or :class:`ValueError` for one that is not writable, or not all of a piece.
    """
    return ctypes.addressof(_begin(array.data))
