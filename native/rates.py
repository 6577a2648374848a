"""The outcomes of one of the four rates among those of a binary model."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from native.library import library
from native.memory import address

Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]


class OfRate(NamedTuple):
    """The outcomes that belong to a rate: their places in the batch, their seconds, and 1 for each that is an error."""

    places: Ints
    seconds: Ints
    errors: NDArray[np.float64]


Choose = Callable[[Codes, Ints, int, bool, int], OfRate]


@cache
def choosing() -> Choose | None:
    """Chooses of outcomes, given their codes and seconds, those whose code has a bit set (or not); a code is that of an
    error. None without the library.

    Raises TypeError for codes that are no bytes or seconds that are no integers of eight, and ValueError if the two
    differ in length.
    """
    loaded = library()
    if loaded is None:
        return None
    compiled = loaded.driftline_rate
    compiled.restype = ctypes.c_size_t
    compiled.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )

    def choose(codes: Codes, seconds: Ints, bit: int, positive: bool, wrong: int) -> OfRate:
        if codes.dtype != np.uint8 or seconds.dtype != np.int64:
            raise TypeError(f"codes are bytes and seconds integers of eight, not {codes.dtype} and {seconds.dtype}")
        if codes.size != seconds.size:
            raise ValueError(f"there are {codes.size} codes and {seconds.size} seconds")
        n = codes.size
        chosen = np.empty((3, n), np.int64)
        at = address(chosen)
        found = compiled(codes.tobytes(), seconds.tobytes(), n, bit, positive, wrong, at, at + 8 * n, at + 16 * n)
        places, their_seconds, errors = chosen[:, :found]
        return OfRate(places, their_seconds, errors.view(np.float64))

    return choose
