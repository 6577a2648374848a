"""Values as columns.

A value is a *kind* and a number. Whole numbers, fractions and booleans are the number itself, so that ``true``, ``1``
and ``1.0`` are one class; a text is the number of its place in a list of distinct texts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.events import Value

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Kinds = NDArray[np.uint8]
Floats = NDArray[np.float64]

INT, FLOAT, BOOL, TEXT = range(4)
KINDS: Mapping[type, int] = {int: INT, float: FLOAT, bool: BOOL, str: TEXT}

H = TypeVar("H", bound=Hashable)


class Places(Generic[H]):
    """Distinct items in the order in which they were first seen, and the place of each."""

    def __init__(self, items: Iterable[H] = ()) -> None:
        self.items: list[H] = []
        self._places: dict[H, int] = {}
        for item in items:
            self.add(item)

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: H) -> int:
        """The place of ``item``, made at first sight."""
        place = self._places.get(item)
        if place is None:
            place = self._places[item] = len(self.items)
            self.items.append(item)
        return place

    def find(self, item: H) -> int:
        """The place of ``item``, or -1."""
        return self._places.get(item, -1)


@dataclass(slots=True)
class Values:
    """Values as columns; ``texts`` are what the numbers of kind TEXT stand for."""

    kinds: Kinds
    numbers: Floats
    texts: Sequence[str] = ()


def as_values(values: Sequence[Value]) -> Values:
    """Python values as columns."""
    types = set(map(type, values))
    if types <= {int}:
        return Values(np.zeros(len(values), dtype=np.uint8), np.array(values, dtype=np.float64))
    kinds = np.fromiter((KINDS[type(value)] for value in values), dtype=np.uint8, count=len(values))
    if str not in types:
        return Values(kinds, np.array(values, dtype=np.float64))
    places: Places[str] = Places()
    numbers = np.fromiter(
        (places.add(value) if isinstance(value, str) else float(value) for value in values),
        dtype=np.float64,
        count=len(values),
    )
    return Values(kinds, numbers, places.items)


def as_value(kind: int, number: float, texts: Sequence[str]) -> Value:
    """The Python value that a kind and a number stand for."""
    if kind == TEXT:
        return texts[int(number)]
    if kind == FLOAT:
        return float(number)
    return bool(number) if kind == BOOL else int(number)


def localised(kinds: Kinds, numbers: Floats, texts: Sequence[str]) -> tuple[Floats, list[str]]:
    """(the same numbers with places in a list of only the texts that occur, that list)."""
    rows = kinds == TEXT
    if not rows.any():
        return numbers, []
    places, own = np.unique(numbers[rows], return_inverse=True)
    numbers = numbers.copy()
    numbers[rows] = own
    return numbers, [texts[place] for place in places.astype(np.int64).tolist()]
