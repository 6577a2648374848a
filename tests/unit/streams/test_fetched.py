"""Fetches wait as the bytes that the broker sent; what is unpacked is what was written."""

from __future__ import annotations

import pytest

from streams.errors import RestartMe, StateMismatch
from streams.fetched import Fetched
from tests.support.fetches import TP0, chunk, records_of


def fetched(data: bytes, position: int, *, crcs: bool = False) -> Fetched:
    """What a fetch from ``position`` on gives."""
    return Fetched(TP0, position, records_of(data, position, crcs=crcs))


def test_what_was_written_is_unpacked() -> None:
    """Values (empty ones and none at all are two things), offsets, record times, a key to look at."""
    found = fetched(chunk(7, [b"a", None, b""]) + chunk(10, [b"d"], append_ms=6_000), 7)
    assert (found.first_offset, found.next_offset) == (7, 11)
    batch = found.unpack()
    assert (batch.topic, batch.partition, batch.first_offset, batch.next_offset) == ("predictions", 0, 7, 11)
    assert list(batch.values) == [b"a", None, b"", b"d"]
    assert list(batch.offsets) == [7, 8, 9, 10]
    assert batch.runs == [(5_000, 3), (6_000, 1)]
    assert batch.sample_key == b"k7"


def test_values_are_found_again_by_their_offsets() -> None:
    """Of any chunk, in any order, a tombstone too; an offset of another fetch is an error."""
    found = fetched(chunk(7, [b"a", None, b"c"]) + chunk(10, [b"d", b"e"]), 7)
    original = found.unpack().original
    assert original is not None
    assert [original(offset) for offset in (11, 7, 8, 10, 9)] == [b"e", b"a", None, b"d", b"c"]
    with pytest.raises(LookupError, match=r"predictions-0.*12"):
        original(12)


def test_a_fetch_may_land_inside_a_chunk() -> None:
    """The records before it are another fetch's."""
    found = fetched(chunk(5, [b"a", b"b", b"c", b"d"]) + chunk(9, [b"e"]), 7)
    batch = found.unpack()
    assert (batch.first_offset, batch.next_offset) == (7, 10)
    assert (list(batch.values), list(batch.offsets), batch.runs) == ([b"c", b"d", b"e"], [7, 8, 9], [(5_000, 3)])


def test_holes_stay_holes() -> None:
    """Of a compaction: within a chunk, at its end, between chunks; the position passes them all."""
    data = chunk(0, [b"a"]) + chunk(1, [b"c", b"e"], deltas=[1, 3], last_delta=5) + chunk(9, [b"j", b"k"])
    batch = fetched(data, 0).unpack()
    assert (list(batch.values), list(batch.offsets), batch.next_offset) == (
        [b"a", b"c", b"e", b"j", b"k"],
        [0, 2, 4, 9, 10],
        11,
    )
    assert batch.original is not None
    assert batch.original(4) == b"e"


def test_the_producers_times_differ_within_a_chunk() -> None:
    """Where the topic is not stamped by the broker."""
    batch = fetched(chunk(0, [b"a", b"b"], append_ms=None), 0).unpack()
    assert batch.runs == [(1_000, 1), (1_001, 1)]


@pytest.mark.parametrize("kept", [1, 12, 16, 17, 60, 80])
def test_a_chunk_that_is_cut_off_belongs_to_the_next_fetch(kept: int) -> None:
    """The broker sends as many bytes as it was asked for, not as many chunks."""
    data = chunk(0, [b"a", b"b"]) + chunk(2, [b"c" * 500] * 20)[:kept]
    found = fetched(data, 0)
    assert found.next_offset == 2
    assert list(found.unpack().values) == [b"a", b"b"]


def test_a_damaged_chunk_is_not_used() -> None:
    """The checksum is looked at before anything else; a restart fetches it again."""
    damaged = bytearray(chunk(3, [b"a" * 100], append_ms=None))
    damaged[-1] ^= 1
    with pytest.raises(RestartMe, match=r"predictions-0: the records at offset 3 .* checksum"):
        fetched(bytes(damaged), 3, crcs=True).unpack()


def test_records_of_an_old_format_are_refused() -> None:
    """They have no offset of their last record: the position after them could not be told."""
    old = bytearray(chunk(3, [b"a"]))
    old[16] = 1
    with pytest.raises(StateMismatch, match=r"predictions-0 .*before Kafka 0.11 from offset 3"):
        fetched(bytes(old), 3)
