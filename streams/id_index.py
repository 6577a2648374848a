"""Where each id is: a hash table over whole columns of 16-byte keys, in C or in numpy.

A dictionary costs a Python object for every id and row, 190 bytes and 150 to 600 ns a look-up; this table costs 16 to
32 bytes a row and, fed a thousand ids at a time, a tenth of the time (in numpy half). Open addressing with linear
probes: a slot holds a row's number and 32 bits of its hash, so that a row is only looked at when it is almost certainly
the right one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from native import ids

Keys = NDArray[np.uint64]
"""Shape (n, 2): ids of 16 bytes."""
Ints = NDArray[np.int64]

MINIMUM_SLOTS = 2_048
SLOTS_PER_ROW = 2
PROBES = 8
"""Slots looked at together once the first look has failed: most of what is left ends within them."""
EMPTY = 0
_ROW_BITS = np.int64(32)
_ROW_MASK = np.int64(0xFFFFFFFF)
_TAG_MASK = ~_ROW_MASK
_MIX = np.uint64(secrets.randbits(64) | 1)
"""Differs between processes, so that nobody can choose ids that fall into one slot; results do not depend on it."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class Written:
    """What an insertion wrote, so that it can be taken back: slots, what they held, and rows whose key was there."""

    slots: list[Ints]
    before: list[Ints]
    repeated: Ints
    """Indexes (of the keys inserted) whose key is that of an earlier one of the same insertion."""


class IdIndex:
    """Key → row of a table whose rows carry their keys. Rows are never removed one by one: see :meth:`rebuild`."""

    def __init__(self) -> None:
        self._loops = ids.loops()
        self._slots = np.empty(0, dtype=np.int64)
        self._resize(MINIMUM_SLOTS)

    def _resize(self, slots: int) -> None:
        if slots == len(self._slots):
            self._slots.fill(EMPTY)  # new pages would cost more
            return
        self._slots = np.zeros(slots, dtype=np.int64)
        self._shift = np.uint64(64 - (slots.bit_length() - 1))
        self._mask = np.int64(slots - 1)

    @property
    def capacity(self) -> int:
        """Rows that fit before the table must grow."""
        return len(self._slots) // SLOTS_PER_ROW

    def rebuild(self, keys: Keys, capacity: int) -> None:
        """Start over with ``keys`` in rows 0, 1, … and room for ``capacity`` rows. Of equal keys the last is found."""
        slots = MINIMUM_SLOTS
        while slots < SLOTS_PER_ROW * capacity:
            slots *= 2
        self._resize(slots)
        if self._loops is not None:
            self._loops.rebuild(self._slots, int(_MIX), keys)
            return
        # From the last one on, since the first of equal keys is found.
        order = np.arange(len(keys) - 1, -1, -1, dtype=np.int64)
        self._insert(keys[order], keys, order, 0)

    def _hash(self, keys: Keys) -> tuple[Ints, Ints]:
        """(home slots, tags) of keys."""
        mixed = (keys[:, 0] ^ (keys[:, 1] * _MIX)) * _GOLDEN
        mixed ^= mixed >> np.uint64(29)
        mixed *= _MIX
        home = (mixed >> self._shift).astype(np.int64)
        return home, (mixed << np.uint64(32)).view(np.int64)

    def find(self, keys: Keys, rows: Keys) -> Ints:
        """The row of each key, or -1. ``rows`` are the keys of all rows of the table."""
        if self._loops is not None:
            return self._loops.find(self._slots, int(_MIX), rows, keys)
        place, tags = self._hash(keys)
        found = np.full(len(keys), -1, dtype=np.int64)
        held = self._slots[place]
        same = ((held ^ tags) & _TAG_MASK) == 0
        same &= held != EMPTY
        at = np.flatnonzero(same)
        if len(at):
            candidates = (held[at] & _ROW_MASK) - 1
            right = _equal(rows, candidates, keys, at)
            found[at[right]] = candidates[right]
            held[at[right]] = EMPTY  # settled
        left = np.flatnonzero(held)
        steps = np.arange(1, PROBES + 1)
        while len(left):
            around = (place[left, None] + steps) & self._mask
            held = self._slots[around]
            empty = held == EMPTY
            reach = np.where(empty.any(axis=1), empty.argmax(axis=1), PROBES)
            hits = (((held ^ tags[left, None]) & _TAG_MASK) == 0) & (steps <= reach[:, None])
            hits &= ~empty
            query, step = np.nonzero(hits)
            candidates = (held[query, step] & _ROW_MASK) - 1
            right = _equal(rows, candidates, keys, left[query])
            found[left[query[right]]] = candidates[right]
            place[left] = around[:, -1]
            left = left[(reach == PROBES) & (found[left] < 0)]
        return found

    def insert(self, keys: Keys, rows: Keys, first: int) -> Written:
        """Let ``keys`` be found in rows ``first``, ``first + 1``, …, whose keys are in ``rows`` already.

        A key that an older row has is found in the new one from now on. Of equal keys the first one is found.
        """
        if self._loops is not None:
            slots, before, repeated = self._loops.insert(self._slots, int(_MIX), rows, keys, first)
            return Written([slots], [before], repeated)
        return self._insert(keys, rows, np.arange(first, first + len(keys), dtype=np.int64), first)

    def _insert(self, keys: Keys, rows: Keys, numbers: Ints, first: int) -> Written:
        place, tags = self._hash(keys)
        entries = (tags & _TAG_MASK) | (numbers + 1)
        written = Written([], [], np.empty(0, dtype=np.int64))
        repeated: list[Ints] = []
        left = np.arange(len(keys), dtype=np.int64)
        while len(left):
            at = place[left]
            held = self._slots[at]
            mine = held == EMPTY
            same = ((held ^ entries[left]) & _TAG_MASK) == 0
            same &= ~mine
            check = np.flatnonzero(same)
            if len(check):
                candidates = (held[check] & _ROW_MASK) - 1
                equal = _equal(rows, candidates, keys, left[check])
                again = check[equal & (candidates >= first)]
                mine[check[equal & (candidates < first)]] = True
                repeated.append(left[again])
                keep = np.ones(len(left), dtype=np.bool_)
                keep[again] = False
            else:
                keep = None
            writers = np.flatnonzero(mine)
            slots = at[writers]
            written.slots.append(slots)
            written.before.append(held[writers])
            # Several may want one slot: numpy keeps the last one written, and the first in order must win.
            self._slots[slots[::-1]] = entries[left[writers]][::-1]
            won = self._slots[at] == entries[left]
            lost = mine & ~won
            if keep is not None:
                left, lost = left[keep & ~won], lost[keep & ~won]
            else:
                left, lost = left[~won], lost[~won]
            # Who lost a slot looks at it once more: the winner may have the same key. The others go on.
            place[left[~lost]] = (place[left[~lost]] + 1) & self._mask
        if repeated:
            written.repeated = np.concatenate(repeated)
        return written

    def undo(self, written: Written) -> None:
        """Take back the newest insertion."""
        for slots, before in zip(reversed(written.slots), reversed(written.before), strict=True):
            self._slots[slots] = before


def _equal(rows: Keys, candidates: Ints, keys: Keys, at: Ints) -> NDArray[np.bool_]:
    ours, theirs = keys[at], rows[candidates]
    same: NDArray[np.bool_] = (ours[:, 0] == theirs[:, 0]) & (ours[:, 1] == theirs[:, 1])
    return same
