"""Many values in one stretch of bytes: what a fetch brings, without an object for each record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from streams.values import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Spans(Sequence[bytes | None]):
    """Values that are ``data`` from each of ``starts`` to its stop; a start of -1 is no value at all (a tombstone)."""

    data: bytes
    starts: Ints
    stops: Ints

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Spans:
        """The values one behind the other."""
        if isinstance(values, Spans):
            return values
        sizes = np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))
        stops = np.cumsum(sizes)
        starts = stops - sizes
        if None in values:
            none = [value is None for value in values]
            starts[none] = stops[none] = -1
        return cls(b"".join(value or b"" for value in values), starts, stops)

    @property
    def longest(self) -> int:
        """Bytes of the largest value."""
        return int((self.stops - self.starts).max(initial=0))

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> Spans: ...
    def __getitem__(self, at: int | slice) -> bytes | Spans | None:
        if isinstance(at, slice):
            return Spans(self.data, self.starts[at], self.stops[at])
        start = self.starts[at]
        return None if start < 0 else self.data[start : self.stops[at]]
