"""One side of a window in the join's own terms: columns whose names and texts are places in the partition's lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from native import rows as native
from streams.columns import Events
from streams.id_index import Keys
from streams.rows import ROW, Rows
from streams.timeline import Piece
from streams.values import TEXT, Codes, Floats, Ints, Kinds, Places

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Stretch:
    """A row an event, in offset order.

    ``refs`` are the codes of predictions' names, or of the models that outcomes claim. ``bad`` rows could not be
    decoded.
    """

    at_ms: Ints
    offsets: Ints
    keys: Keys
    event_ms: Ints
    numbers: Floats
    kinds: Kinds
    refs: Codes
    bad: Mask

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, end: int) -> Stretch:
        """Rows ``start`` to ``end``, without copying the columns."""
        if start == 0 and end == len(self):
            return self
        at = np.s_[start:end]
        return Stretch(
            self.at_ms[at],
            self.offsets[at],
            self.keys[at],
            self.event_ms[at],
            self.numbers[at],
            self.kinds[at],
            self.refs[at],
            self.bad[at],
        )

    def rows(self, at: Ints) -> Rows:
        """Some of its events as rows of a table."""
        if (loops := native.loops()) is not None:
            rows = np.empty(len(at), dtype=ROW)
            columns = self.offsets, self.at_ms, self.event_ms, self.numbers, self.refs, self.kinds
            loops.fill(rows, at, self.keys, *columns)
            return rows
        rows = np.zeros(len(at), dtype=ROW)
        rows["key"], rows["offset"], rows["at_ms"] = self.keys[at], self.offsets[at], self.at_ms[at]
        rows["event_ms"], rows["number"], rows["kind"] = self.event_ms[at], self.numbers[at], self.kinds[at]
        rows["ref"] = self.refs[at]
        return rows


def gather(pieces: Sequence[Piece], code: Callable[[Any], int], texts: Places[str]) -> Stretch:
    """The events of ``pieces``, one behind the other; ``code`` gives the code of a name."""
    parts = [_one(piece, code, texts) for piece in pieces]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.empty(0, dtype=np.int64)
        keys, floats, bytes_ = np.empty((0, 2), dtype=np.uint64), none.astype(np.float64), none.astype(np.uint8)
        return Stretch(none, none, keys, none, floats, bytes_, none.astype(np.int32), none.astype(np.bool_))
    return Stretch(
        np.concatenate([part.at_ms for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.event_ms for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.refs for part in parts]),
        np.concatenate([part.bad for part in parts]),
    )


def _one(piece: Piece, code: Callable[[Any], int], texts: Places[str]) -> Stretch:
    events = piece.events
    at = np.s_[piece.start : piece.end]
    bad = np.zeros(len(piece), dtype=np.bool_)
    bad[[row - piece.start for row in events.bad if piece.start <= row < piece.end]] = True
    kinds, numbers = events.values.kinds[at], events.values.numbers[at]
    if events.values.texts:
        numbers = _own_texts(kinds, numbers, events.values.texts, texts)
    return Stretch(
        events.at_ms[at],
        events.offsets[at],
        events.keys[at],
        events.event_ms[at],
        numbers,
        kinds,
        _own_names(events, piece, code),
        bad,
    )


def _own_texts(kinds: Kinds, numbers: Floats, texts: Sequence[str], own: Places[str]) -> Floats:
    """Numbers of kind TEXT are places in ``texts``: make them places in ``own``, for those that occur."""
    rows = kinds == TEXT
    places = numbers[rows].astype(np.int64)
    codes = np.zeros(len(texts), dtype=np.float64)
    for place in np.unique(places).tolist():
        codes[place] = own.add(texts[place])
    numbers = numbers.copy()
    numbers[rows] = codes[places]
    return numbers


def _own_names(events: Events, piece: Piece, code: Callable[[Any], int]) -> Codes:
    names = events.names[piece.start : piece.end]
    if len(events.named) == 1 and not events.bad:
        return np.full(len(names), code(events.named[0]) if names[0] >= 0 else names[0], dtype=np.int32)
    # In the order of their first rows, so that who comes first does not depend on where the window begins.
    present, first = np.unique(names, return_index=True)
    undecodable = {row - piece.start for row in events.bad}
    codes = np.full(len(events.named) + 1, -1, dtype=np.int32)  # the last for NOBODY, which is -1
    for place in present[np.argsort(first)].tolist():
        if place < 0:
            continue
        if undecodable and undecodable.issuperset(np.flatnonzero(names == place).tolist()):
            continue  # only rows that stand in for what could not be decoded
        codes[place] = code(events.named[place])
    return codes[names]
