"""Records found in the bytes of a chunk are those that aiokafka finds; nothing is read that is not there."""

from __future__ import annotations

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from native import records
from native.library import library
from streams.fetched import _RECORDS_AT, Fetched
from streams.spans import Spans
from tests.support.fetches import TP0, chunk, records_of

pytestmark = pytest.mark.skipif(library() is None, reason="driftline was installed without a C compiler")
VALUES = st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=70)


def split(*chunks: bytes, counts: list[int]) -> tuple[list[bytes | None], bytes | None] | None:
    found = records.split([each[_RECORDS_AT:] for each in chunks], counts)
    if found is None:
        return None
    data, starts, stops, key = found
    return list(Spans(data, starts, stops)), key


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_values_are_those_that_were_written(batches: list[list[bytes | None]]) -> None:
    """Of several chunks one behind the other, whatever their sizes; and the first key."""
    chunks = [chunk(7, values, codec=0) for values in batches]
    found = split(*chunks, counts=[len(values) for values in batches])
    assert found == ([value for values in batches for value in values], b"k7")


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_every_compression_is_undone(codec: int) -> None:
    """A fetch is unpacked without a look at each record, so its values are one stretch of bytes."""
    values = [b"a" * 40, None, b"", b"d" * 70] * 20
    batch = Fetched(TP0, 7, records_of(chunk(7, values, codec=codec), 7)).unpack()
    assert isinstance(batch.values, Spans)
    assert list(batch.values) == values
    assert (batch.sample_key, list(batch.offsets)) == (b"k7", list(range(7, 87)))


def test_offsets_with_holes_are_left_to_aiokafka() -> None:
    """A compacted chunk says how many records it has, and they say where they are."""
    values: list[bytes | None] = [b"a", b"b"]
    assert split(chunk(0, values, codec=0, deltas=[0, 2]), counts=[2]) is None
    assert split(chunk(0, values, codec=0, deltas=[1, 2]), counts=[2]) is None


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 2**31 - 1])
def test_a_wrong_number_of_records_is_noticed(count: int) -> None:
    """As a damaged header gives it: nothing is made that large, or read behind the end."""
    assert split(chunk(0, [b"a", b"b"], codec=0), counts=[count]) is None


@profile(max_examples=300)
@given(VALUES, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3), st.integers(0, 40))
def test_damaged_chunks_give_no_values_from_elsewhere(
    values: list[bytes | None], damage: list[tuple[int, int]], missing: int
) -> None:
    """Either it is noticed, or what is found lies within the chunk and is what aiokafka finds."""
    damaged = bytearray(chunk(0, values, codec=0))
    for at, byte in damage:
        damaged[_RECORDS_AT + at % (len(damaged) - _RECORDS_AT)] = byte
    del damaged[len(damaged) - min(missing, len(damaged) - _RECORDS_AT) :]
    found = split(bytes(damaged), counts=[len(values)])
    if found is not None:
        length = len(damaged) - 12
        damaged[8:12] = length.to_bytes(4, "big")
        assert found[0] == [record.value for record in MemoryRecords(bytes(damaged)).next_batch()]
