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

    def __init__(self, position: int = 0, *, paused: bool = False) -> None:
        self.position = position
        self.paused = paused
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
    result = BatchFetchResult(TP0, assignment=position, partition_records=records, backoff=60)
    return result, weakref.ref(records)


@pytest.mark.parametrize("taken_at", [0, 7], ids=["handed over", "dropped"])
def test_a_fetch_leaves_nothing_behind(taken_at: int) -> None:
    """Whether its partition is still read from there or has been sought elsewhere."""
    result, held = fetched(Position(taken_at))
    assert held() is not None
    taken = result.getall()
    assert [list(each.unpack().values) for each in taken] == [[b"value 0", b"value 1", b"value 2"]] * (taken_at == 0)
    del taken
    assert held() is None


def test_a_fetch_of_a_paused_partition_waits() -> None:
    """It is neither dropped, to be fetched again, nor keeps the broker from being asked for other partitions."""
    position = Position(paused=True)
    result, held = fetched(position)
    assert result.getall() == []
    assert result.has_more()
    assert held() is not None
    assert result.calculate_backoff() == 0
    position.paused = False
    assert result.calculate_backoff() > 0
    assert [each.next_offset for each in result.getall()] == [3]
