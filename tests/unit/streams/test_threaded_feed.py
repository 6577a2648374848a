"""The monitor's feed of cuts: read in a thread, given out in order, and loud when the reading ends."""

from __future__ import annotations

import time

import pytest

from streams.errors import Unavailable
from streams.log import Record
from streams.monitoring import ThreadedFeed
from tests.support.memory.log import MemoryBroker, MemoryLog

BOUND_S = 30.0


def broker() -> MemoryBroker:
    return MemoryBroker({"checkpoints": 2}, lambda: 0)


def drained(feed: ThreadedFeed, count: int) -> list[Record]:
    """Drain until so many records have come."""
    found: list[Record] = []
    deadline = time.monotonic() + BOUND_S
    while len(found) < count:
        assert time.monotonic() < deadline
        found += feed.drain()
        time.sleep(0.001)
    return found


def test_records_come_once_and_in_the_order_of_their_partition() -> None:
    """Also those that are written while it reads."""
    made = broker()
    made.append("checkpoints", 0, None, b"before")
    feed = ThreadedFeed(MemoryLog(made).reader("checkpoints", {0: 1}))
    try:
        for number in range(1, 100):
            made.append("checkpoints", number % 2, None, str(number).encode())
        found = drained(feed, 99)
    finally:
        feed.close()
    for p in range(2):
        assert [record.offset for record in found if record.partition == p] == list(range(1 - p, 50))
    assert feed.drain() == []


def test_what_ended_the_reading_is_raised_to_whoever_drains() -> None:
    """A monitor that reads no cuts any more must not look idle."""
    feed = ThreadedFeed(MemoryLog(broker()).reader("checkpoints", {0: 9}))
    try:
        with pytest.raises(Unavailable, match="out of range"):
            drained(feed, 1)
    finally:
        feed.close()
