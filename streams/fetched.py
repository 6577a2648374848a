"""Records of one partition as the broker sent them: they wait compressed, and are unpacked when their turn comes.

The thread that talks to the broker only looks at the headers of the chunks (Kafka's record batches), so it hardly ever
wants the interpreter while records are decoded and joined; what waits takes a third of the memory; and the bytes of an
event can be had again, should it become a dead letter, without keeping an object of every record.

Only the record format that came with Kafka 0.11 (magic 2) is read.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import numpy as np
from aiokafka import codec
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP

from native.library import library
from native.records import split
from streams.errors import RestartMe, StateMismatch
from streams.partition import Batch
from streams.spans import Spans
from streams.values import Ints

LOG_APPEND_TIME = 1
MAGIC = 2
_START = struct.Struct(">qi")
"""Base offset, and the length of what follows these twelve bytes."""
_MAGIC_AT, _LAST_DELTA_AT = 16, 23
_LAST_DELTA = struct.Struct(">i")
_ATTRIBUTES_AT, _CODEC_MASK = 22, 7
_COUNT_AT, _COUNT, _RECORDS_AT = 57, struct.Struct(">i"), 61
_INFLATE: Mapping[int, Callable[[memoryview], bytes | memoryview]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: lambda records: memoryview(cramjam.lz4.decompress(records)),  # aiokafka's copies it, for a third of the time
    4: codec.zstd_decode,
}
"""The compressions of the protocol."""


class KeptRecords(MemoryRecords):  # type: ignore[misc]  # aiokafka's C extension has no types
    """The records of a fetch, which remember their bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class BatchFetchResult(aiokafka_fetcher.FetchResult):  # type: ignore[misc]
    """Gives all records of a fetch as one :class:`Fetched`, unread."""

    _partition_records: Any

    def __init__(self, tp: Any, *, partition_records: Any, **options: Any) -> None:
        # aiokafka's own iterator, which is not used here, and its records hold each other: a fetch and all its bytes
        # would stay until the cyclic collector comes, which knows only their number.
        partition_records._records_iterator = None
        super().__init__(tp, partition_records=partition_records, **options)

    @property
    def _is_paused(self) -> bool:
        """Whether its partition is held back. aiokafka would drop what it fetched, and fetch it again afterwards."""
        return bool(self._assignment.active and self._assignment.state_value(self._topic_partition).paused)

    def calculate_backoff(self) -> float:
        """How long the broker is not asked for anything because this waits to be taken, in seconds."""
        return 0 if self._is_paused else super().calculate_backoff()

    def getall(self, max_records: int | None = None) -> list[Fetched]:
        """At most one; ``max_records`` is ignored (``broker_max_poll_records`` must be None).

        Raises :class:`StateMismatch` for a record format of before Kafka 0.11.
        """
        records = self._partition_records
        if records is None or self._is_paused or not self.check_assignment(self._topic_partition):
            return []
        first = records.next_fetch_offset
        fetched = Fetched(TP(*self._topic_partition), first, records)
        records.next_fetch_offset = fetched.next_offset
        self._update_position()
        self._partition_records = None
        return [] if fetched.next_offset == first else [fetched]


class Fetched:
    """What one fetch brought of a partition, from ``first_offset`` to before ``next_offset``."""

    __slots__ = ("_chunks", "_data", "_looked_up", "_records", "first_offset", "generation", "partition", "topic")

    def __init__(self, tp: TP, first_offset: int, records: Any) -> None:
        self.topic = tp.topic
        self.partition = tp.partition
        self.generation = 0
        self.first_offset = first_offset
        self._records = records
        self._data: bytes = records._records.data
        self._chunks = list(self._walk())
        self._looked_up: tuple[_Place, dict[int, bytes | None]] | None = None

    @property
    def next_offset(self) -> int:
        """The position after it."""
        return self._chunks[-1].next_offset if self._chunks else self.first_offset

    def _walk(self) -> Iterator[_Place]:
        """Each chunk that is there to its end."""
        at, size = 0, len(self._data)
        while at + _MAGIC_AT < size:
            base, length = _START.unpack_from(self._data, at)
            end = at + _START.size + length
            if end > size:
                return  # the broker cuts off what does not fit
            if self._data[at + _MAGIC_AT] != MAGIC:
                raise StateMismatch(
                    f"{self.topic}-{self.partition} holds records of before Kafka 0.11 from offset {base} on",
                    "write them anew with a client of today, or let them expire",
                )
            last = base + _LAST_DELTA.unpack_from(self._data, at + _LAST_DELTA_AT)[0]
            yield _Place(last + 1, base, at, end)
            at = end

    def unpack(self) -> Batch:
        """All of it; to be called once. Raises :class:`RestartMe` if its checksum is wrong: it is fetched again."""
        chunks = list(self._data_chunks())
        whole = _split(chunks) if all(chunk.whole for chunk in chunks) else None
        if whole is not None:
            return whole.batch(self)
        content = _Content()
        for chunk in chunks:
            if not chunk.whole or not content.add_whole(chunk.records):
                content.add_each(self._chunk(chunk.place), self.first_offset)
        return content.batch(self)

    def _data_chunks(self) -> Iterator[_Chunk]:
        """The chunks that hold events, each to be read once: neither aborted ones nor the markers of transactions."""
        records = self._records
        for place in self._chunks:
            chunk = self._chunk(place)
            if records._check_crcs and not chunk.validate_crc():
                raise RestartMe(
                    f"{self.topic}-{self.partition}: the records at offset {place.base} came with a wrong checksum",
                    "a restart fetches them again; if it comes back, check the broker's disk and the network",
                )
            if not _aborted(records, chunk) and not chunk.is_control_batch:
                # A fetch may land inside a compressed chunk; producers' timestamps differ within one.
                whole = place.base >= self.first_offset and chunk.timestamp_type == LOG_APPEND_TIME
                yield _Chunk(place, chunk, self._data, whole)

    def value(self, offset: int) -> bytes | None:
        """The bytes of the record at an offset of it. Raises :class:`LookupError` if there is none."""
        at = bisect_right(self._chunks, offset, key=lambda place: place.next_offset)
        if at == len(self._chunks):
            raise LookupError(f"{self.topic}-{self.partition}: offset {offset} was not fetched with these")
        place = self._chunks[at]
        if self._looked_up is None or self._looked_up[0] is not place:
            self._looked_up = place, {record.offset: record.value for record in self._chunk(place)}
        return self._looked_up[1][offset]

    def _chunk(self, place: _Place) -> Any:
        """A chunk whose records can be read once."""
        return MemoryRecords(self._data[place.start : place.end]).next_batch()


class _Place(NamedTuple):
    """Where a chunk is in the bytes of a fetch, and its offsets."""

    next_offset: int
    base: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk that holds events. ``whole``: all its records are wanted, and have one record time."""

    place: _Place
    records: Any
    data: bytes
    whole: bool

    @property
    def count(self) -> int:
        """Records in it, as its header says; -1 if that leaves holes between their offsets."""
        count: int = _COUNT.unpack_from(self.data, self.place.start + _COUNT_AT)[0]
        return count if self.place.base + count == self.place.next_offset else -1

    def inflated(self) -> bytes | memoryview | None:
        """Its records as bytes; None for a compression that is not known here."""
        codec = self.data[self.place.start + _ATTRIBUTES_AT] & _CODEC_MASK
        records = memoryview(self.data)[self.place.start + _RECORDS_AT : self.place.end]
        if not codec:
            return records
        inflate = _INFLATE.get(codec)
        return inflate(records) if inflate is not None else None


class _Whole(NamedTuple):
    """What chunks hold of which all records are wanted, without an object for any of them."""

    chunks: Sequence[_Chunk]
    counts: list[int]
    values: Spans
    sample_key: bytes | None

    def batch(self, fetched: Fetched) -> Batch:
        """All of it."""
        runs: list[tuple[int, int]] = []
        for chunk, count in zip(self.chunks, self.counts, strict=True):
            _extend(runs, chunk.records.max_timestamp, count)
        counts = np.array(self.counts, dtype=np.int64)
        bases = np.array([chunk.place.base for chunk in self.chunks], dtype=np.int64)
        offsets = np.repeat(bases - (np.cumsum(counts) - counts), counts) + np.arange(len(self.values), dtype=np.int64)
        return _batch(fetched, self.values, offsets, runs, self.sample_key)


def _split(chunks: Sequence[_Chunk]) -> _Whole | None:
    """The values of chunks of which all records are wanted; None if they must be read one by one."""
    counts = [chunk.count for chunk in chunks]
    if not chunks or min(counts) <= 0 or library() is None:
        return None
    inflated = [records for chunk in chunks if (records := chunk.inflated()) is not None]
    found = split(inflated, counts) if len(inflated) == len(chunks) else None
    if found is None:
        return None
    data, starts, stops, key = found
    return _Whole(chunks, counts, Spans(data, starts, stops), key)


class _Content:
    """What the chunks of one fetch hold, read record by record."""

    def __init__(self) -> None:
        self._values: list[bytes | None] = []
        self._offsets: list[Ints] = []
        self._runs: list[tuple[int, int]] = []
        self._begin = self._end = -1
        self._sample: bytes | None = None

    def add_whole(self, chunk: Any) -> bool:
        """Take in all records of a chunk of one record time → False, and nothing taken, if offsets are missing in it.

        Neither the records nor their offsets are kept: that would cost as much as the rest of the fetch.
        """
        records = chunk
        if self._sample is None:  # a chunk can be read only once, and its first record is needed
            records = list(chunk)
            self._sample = records[0].key if records else None
        values = [record.value for record in records]
        if not values:
            return True
        if chunk.base_offset + len(values) != chunk.next_offset:
            return False  # compaction
        self._values += values
        if chunk.base_offset == self._end:
            self._end = chunk.next_offset
        else:
            self._close_range()
            self._begin, self._end = chunk.base_offset, chunk.next_offset
        _extend(self._runs, chunk.max_timestamp, len(values))
        return True

    def _close_range(self) -> None:
        """The offsets of whole chunks that follow each other are made at once."""
        if self._end > self._begin:
            self._offsets.append(np.arange(self._begin, self._end))
        self._begin = self._end = -1

    def add_each(self, chunk: Any, position: int) -> None:
        """Take in the records of a chunk from ``position`` on, whatever their offsets and times."""
        records = [record for record in chunk if record.offset >= position]
        if not records:
            return
        self._close_range()
        self._sample = self._sample or records[0].key
        self._values += [record.value for record in records]
        self._offsets.append(np.array([record.offset for record in records], dtype=np.int64))
        if chunk.timestamp_type == LOG_APPEND_TIME:
            _extend(self._runs, chunk.max_timestamp, len(records))
            return
        for record in records:
            _extend(self._runs, record.timestamp, 1)

    def batch(self, fetched: Fetched) -> Batch:
        """All of it."""
        self._close_range()
        offsets = np.concatenate(self._offsets) if self._offsets else np.empty(0, dtype=np.int64)
        return _batch(fetched, self._values, offsets, self._runs, self._sample)


def _batch(
    fetched: Fetched,
    values: Sequence[bytes | None],
    offsets: Ints,
    runs: list[tuple[int, int]],
    sample_key: bytes | None,
) -> Batch:
    return Batch(
        fetched.topic,
        fetched.partition,
        fetched.generation,
        fetched.first_offset,
        fetched.next_offset,
        values,
        offsets,
        runs,
        sample_key,
        fetched.value,
    )


def _extend(runs: list[tuple[int, int]], at_ms: int, count: int) -> None:
    if runs and runs[-1][0] == at_ms:
        runs[-1] = (at_ms, runs[-1][1] + count)
    else:
        runs.append((at_ms, count))


def _aborted(records: Any, chunk: Any) -> bool:
    """Whether a chunk belongs to an aborted transaction (the rule of aiokafka's own record iterator)."""
    if records._isolation_level != aiokafka_fetcher.READ_COMMITTED or chunk.producer_id is None:
        return False
    records._consume_aborted_up_to(chunk.base_offset)
    if chunk.is_control_batch:
        if records._contains_abort_marker(chunk):
            records._aborted_producers.discard(chunk.producer_id)
        return False
    return bool(chunk.is_transactional and chunk.producer_id in records._aborted_producers)
