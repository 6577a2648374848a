"""Running sums over errors, strictly from left to right: numpy adds them up in several passes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from native.arrays import floats, made
from native.library import library, typed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FLOAT_BYTES = 8


@cache
def _doubles(count: int) -> type[ctypes.Array[ctypes.c_double]]:
    # ctypes forgets a type of arrays with the last array of it, and takes 20 µs to make it again.
    return ctypes.c_double * count


def _room_for(count: int) -> type[ctypes.Array[ctypes.c_double]]:
    """So many at least; of few sizes, as each is kept."""
    return _doubles(1 << (count - 1).bit_length())


Fill = Callable[[Floats, int, float, int, int], tuple[float, list[float]]]


@cache
def filling() -> Fill | None:
    """Adds errors to the total of a window, of which so many came before: windows of a length follow one another. Gives
    the total of the last one, and the totals at the end of every part, of a length too, of a window. None without the
    library.

    Raises TypeError for errors that are not floats, and ValueError for a window that is not of whole parts, or has more
    errors already.
    """
    loaded = library()
    if loaded is None:
        return None
    compiled = typed(loaded.sums_fill, "bnnnnpn", ctypes.c_size_t)

    def fill(errors: Floats, position: int, total: float, window: int, part: int) -> tuple[float, list[float]]:
        if part < 1 or window % part or not 0 <= position < window:
            raise ValueError(f"{position} errors of a window of {window} in parts of {part}: cannot be")
        n = errors.size
        most = n // part + 1
        totals = _room_for(1 + most)(total)
        ended = compiled(floats(errors), n, position, window, part, totals, most)
        return totals[0], totals[1 : 1 + ended]

    return fill


class Folded(NamedTuple):
    """The positions that are kept and the totals at them; the total and the sum of squares at the last error."""

    positions: Ints
    totals: Floats
    total: float
    squares: float


Fold = Callable[[Floats, int, int, Folded], Folded]


@cache
def folding() -> Fold | None:
    """Adds errors, of which the first has a number, to what was folded before; `fine` positions are kept at every
    distance. None without the library.

    Raises TypeError for errors that are not floats, and ValueError for a `fine` below 2, or positions and totals that
    differ in length.
    """
    loaded = library()
    if loaded is None:
        return None
    compiled = typed(loaded.sums_fold, "bniipppnn", ctypes.c_size_t)

    def fold(errors: Floats, first: int, fine: int, before: Folded) -> Folded:
        held = before.positions.size
        if before.totals.size != held or fine < 2:
            raise ValueError(f"{held} positions and {before.totals.size} totals, {fine} at every distance: cannot be")
        positions, totals = np.empty(held + errors.size, np.int64), np.empty(held + errors.size)
        positions[:held], totals[:held] = before.positions, before.totals
        sums = _doubles(2)(before.total, before.squares)
        kept = compiled(
            floats(errors),
            errors.size,
            first,
            fine,
            sums,
            made(positions),
            made(totals),
            held,
            positions.size,
        )
        return Folded(positions[:kept].copy(), totals[:kept].copy(), sums[0], sums[1])

    return fold


class Climb(ctypes.Structure):
    """As :class:`detectors.page_hinkley.Sums` has them; `up` is the sum behind the last error."""

    _fields_ = (
        ("total", ctypes.c_double),
        ("begun", ctypes.c_double),
        ("grown", ctypes.c_double),
        ("lowest", ctypes.c_double),
        ("up", ctypes.c_double),
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """A Page-Hinkley test: the powers of its forgetting in a block, and their inverses, as C reads them."""

    shrink: bytes
    grow: bytes
    delta: float
    threshold: float
    minimum: int


Step = Callable[[Floats, Rule, int, int, Climb], int]


@cache
def stepping() -> Step | None:
    """Takes in errors from a place in a block on, of which the first has a number, up to the first that fires; gives
    its index, or how many errors there are if none does. None without the library.

    Raises TypeError for errors that are not floats, and ValueError if there are more than powers.
    """
    loaded = library()
    if loaded is None:
        return None
    compiled = typed(loaded.sums_page_hinkley, "bnbbifffp", ctypes.c_size_t)

    def step(errors: Floats, rule: Rule, at: int, number: int, climb: Climb) -> int:
        block = slice(FLOAT_BYTES * at, FLOAT_BYTES * (at + errors.size))
        shrink, grow = rule.shrink[block], rule.grow[block]
        if not len(shrink) == len(grow) == FLOAT_BYTES * errors.size:
            raise ValueError(f"{errors.size} errors from place {at} on do not fit into a block")
        used: int = compiled(
            floats(errors),
            errors.size,
            shrink,
            grow,
            number,
            rule.delta,
            rule.threshold,
            rule.minimum,
            ctypes.byref(climb),
        )
        return used

    return step
