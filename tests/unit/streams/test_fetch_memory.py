"""A fetch that has been handed over, or dropped, is gone: nothing of it waits for the cyclic collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from faust.types import TP

from streams.fetched import BatchFetchResult
from tests.support.fetches import TP0, chunk, records_of


class Position:
    """Where a partition is read on, as aiokafka's subscription state keeps it."""

    def __init__(self, fetchable: bool) -> None:
        self.position = 0
        self.paused = not fetchable
        self.active = True

    def state_value(self, _: TP) -> Position:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


@pytest.fixture(autouse=True)
def only_counting() -> Iterator[None]:
    """The cyclic collector stands still."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def fetched(position: Position) -> tuple[Any, weakref.ref[Any]]:
    """A fetch of three records, and whether its bytes are still held."""
    values = [b"value %d" % number for number in range(3)]
    records = records_of(chunk(0, values, append_ms=None), 0, crcs=True)
    result = BatchFetchResult(TP0, assignment=position, partition_records=records, backoff=0)
    return result, weakref.ref(records)


@pytest.mark.parametrize("fetchable", [True, False], ids=["handed over", "dropped"])
def test_a_fetch_leaves_nothing_behind(fetchable: bool) -> None:
    """Whether its partition is still read or not."""
    position = Position(fetchable)
    result, held = fetched(position)
    assert held() is not None
    taken = result.getall()
    assert len(taken) == fetchable
    assert [each.unpack().values for each in taken] == [[b"value 0", b"value 1", b"value 2"]] * fetchable
    del taken
    assert held() is None
