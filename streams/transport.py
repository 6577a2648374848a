"""Faust's transport, changed so that an agent receives whole batches: all records of one partition from one fetch.

One Faust message costs 150 µs, whatever it carries; a batch costs that once. The offsets belong to the state in Redis,
not to Kafka: after an assignment ``perform_seek`` asks the owner (:class:`BatchOwner`) where to go on, and what is
committed to Kafka is only what the owner has stored, so that lag tools see it.

Private parts of aiokafka and Faust are touched here and nowhere else, so both are pinned and checked at import time of
:func:`require_versions`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Protocol, cast

import faust.streams
import numpy as np
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.errors import GroupAuthorizationFailedError, IllegalStateError, TopicAuthorizationFailedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.errors import AccessDenied, WrongSetting
from streams.partition import Batch
from streams.values import Ints

LOG_APPEND_TIME = 1
REFUSALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
CHECKED = {"aiokafka": "0.14.0", "faust-streaming": "0.15.3"}
READ_COMMITTED = "read_committed"
FETCH_WAIT_MS = 250
"""How long the broker holds an empty fetch. Faust's 1.5 s would delay the clock of an idle input by as much."""


def require_versions() -> None:
    """Refuse to run on releases whose internals were not checked. Raises :class:`WrongSetting`."""
    for package, wanted in CHECKED.items():
        found = version(package)
        if found != wanted:
            raise WrongSetting(
                f"{package} {found} is installed, the transport needs {wanted}", f"pip install {package}=={wanted}"
            )
    if getattr(faust.streams, "_CStreamIterator", None) is None:
        raise WrongSetting(
            "Faust's C extension is missing; without it events of an old assignment are acknowledged unprocessed",
            "install faust-streaming from a wheel",
        )


class BatchOwner(Protocol):
    """Who owns the offsets of the partitions that Faust assigns."""

    async def take(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Become the owner of ``assigned`` → the offset to read next of each. Partitions owned before are given up."""

    def stored_offset(self, tp: TP) -> int | None:
        """The next offset as of the last checkpoint, for Kafka's commit; None if the partition is not ours."""

    def failed(self, error: BaseException) -> None:
        """Taking the partitions, or reading them, failed for good: end the process."""

    def polled(self) -> Iterable[TP] | None:
        """Called after each poll → the partitions that should be paused now, or None for no change."""


class BatchFetchResult(aiokafka_fetcher.FetchResult):  # type: ignore[misc]
    """Gives all records of a fetch as one :class:`Batch` without keeping an object of each record."""

    _partition_records: Any
    holed: ClassVar[set[TP]] = set()
    """Partitions with chunks in which offsets are missing (compaction): every record is asked for its own."""

    def __init__(self, tp: Any, *, partition_records: Any, **options: Any) -> None:
        # aiokafka's own iterator, which is not used here, and its records hold each other: a fetch and all its bytes
        # would stay until the cyclic collector comes, which knows only their number.
        partition_records._records_iterator = None
        super().__init__(tp, partition_records=partition_records, **options)

    def getall(self, max_records: int | None = None) -> list[Any]:
        """At most one :class:`Batch`; ``max_records`` is ignored (``broker_max_poll_records`` must be None)."""
        records = self._partition_records
        if records is None or not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        tp = TP(*self._topic_partition)
        first = position = records.next_fetch_offset
        content = _Content()
        while records._records.has_next():
            chunk = records._records.next_batch()
            if records._check_crcs and not chunk.validate_crc():
                self._partition_records = None  # the position is untouched: fetched again
                raise aiokafka_fetcher.Errors.CorruptRecordException(f"Invalid CRC - {tp}")
            if not _aborted(records, chunk) and not chunk.is_control_batch:
                # A fetch may land inside a compressed chunk; producers' timestamps differ within one.
                whole = chunk.base_offset >= position and chunk.timestamp_type == LOG_APPEND_TIME
                if not whole or tp in self.holed:
                    content.add_each(chunk, position)
                elif not content.add_whole(chunk):
                    self.holed.add(tp)
                    self._partition_records = None  # as above: a chunk can be read only once
                    return []
            position = chunk.next_offset
        records.next_fetch_offset = position
        self._update_position()
        self._partition_records = None
        return [] if position == first else [content.batch(tp, first, position)]


class _Content:
    """What the chunks of one fetch hold."""

    def __init__(self) -> None:
        self._values: list[bytes | None] = []
        self._offsets: list[Ints] = []
        self._runs: list[tuple[int, int]] = []
        self._sample: bytes | None = None

    def add_whole(self, chunk: Any) -> bool:
        """Take in all records of a chunk of one record time → False if offsets are missing in it.

        Neither the records nor their offsets are kept: that would cost as much as the rest of the fetch.
        """
        if self._sample is None:  # the first record is needed; a chunk gives out its iterator only once
            records = iter(chunk)
            head = next(records, None)
            self._sample = None if head is None else head.key
            values = [] if head is None else [head.value, *(record.value for record in iter(records.__next__, None))]
        else:
            values = [record.value for record in chunk]
        if not values:
            return True
        if chunk.base_offset + len(values) != chunk.next_offset:
            return False
        self._values += values
        self._offsets.append(np.arange(chunk.base_offset, chunk.next_offset))
        _extend(self._runs, chunk.max_timestamp, len(values))
        return True

    def add_each(self, chunk: Any, position: int) -> None:
        """Take in the records of a chunk from ``position`` on, whatever their offsets and times."""
        records = [record for record in chunk if record.offset >= position]
        if not records:
            return
        self._sample = self._sample or records[0].key
        self._values += [record.value for record in records]
        self._offsets.append(np.array([record.offset for record in records], dtype=np.int64))
        if chunk.timestamp_type == LOG_APPEND_TIME:
            _extend(self._runs, chunk.max_timestamp, len(records))
            return
        for record in records:
            _extend(self._runs, record.timestamp, 1)

    def batch(self, tp: TP, first: int, following: int) -> Batch:
        """All of it."""
        offsets = np.concatenate(self._offsets) if self._offsets else np.empty(0, dtype=np.int64)
        return Batch(tp.topic, tp.partition, 0, first, following, self._values, offsets, self._runs, self._sample)


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


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the broker. Notes which inputs have been read to their end, and since when."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.empty: dict[TP, tuple[int, float]] = {}
        """Partition → (offset, when the fetch began) of the newest fetch that found nothing after that offset."""
        self.answered_s = self.fetched_s = time.monotonic()
        """When the broker last answered anything, and a fetch."""

    async def on_start(self) -> None:
        """Start the consumer with committed reads and our fetch result."""
        aiokafka_fetcher.FetchResult = BatchFetchResult
        self._consumer = self._create_consumer(loop=self.thread_loop)
        self._consumer._isolation_level = READ_COMMITTED
        self._consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        self._send = self._consumer._client.send
        self._consumer._client.send = self._send_and_note
        self._commit_offsets = self._consumer.commit
        self._consumer.commit = self._commit_or_end
        self.time_started = time.monotonic()
        await self._consumer.start()
        # The client has its own copy by now. Faust takes this one also as the bound of a whole ``perform_seek``, and a
        # slower one, which rebuilds state from the log, would end with a consumer that never consumes again.
        # (The private name: the public one warns that the client has read it already, which is the point.)
        self.app.conf._broker_request_timeout = self.app.conf.broker_max_poll_interval
        fetcher = self._consumer._fetcher
        self._fetch = fetcher._proc_fetch_request
        fetcher._proc_fetch_request = self._proc_fetch_request

    async def _commit_or_end(self, offsets: Any) -> None:
        """A commit may be refused before the next fetch is, and Faust would only log it and crash the consumer."""
        try:
            await self._commit_offsets(offsets)
        except REFUSALS as error:
            cast(Consumer, self.consumer).refused(error)
            raise

    async def _send_and_note(self, node_id: int, request: Any, **options: Any) -> Any:
        answer = await self._send(node_id, request, **options)
        self.answered_s = time.monotonic()
        if isinstance(request, aiokafka_fetcher.FetchRequest):
            self.fetched_s = self.answered_s
        return answer

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> Any:
        began = time.monotonic()
        result = await self._fetch(assignment, node_id, request)
        if not assignment.active:
            return result
        for topic, partitions in request.topics:
            for partition, offset, _ in partitions:
                tp = TP(topic, partition)
                state = assignment.state_value(tp)
                # The response has set the high water mark: at the offset asked for means that nothing came after it.
                if state is not None and state.highwater == offset and (state.timestamp or 0) >= _epoch_ms(began):
                    self.empty[tp] = (offset, began)
        return result


def _epoch_ms(monotonic: float) -> int:
    """The wall clock at a monotonic instant: aiokafka stamps a response with the wall clock (to the millisecond)."""
    return int(1000 * (time.time() - (time.monotonic() - monotonic)))


class Consumer(driver.Consumer):
    """Hands over batches and lets the owner of the state own the offsets."""

    transport: Transport
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owner = self.transport.owner
        self.held: set[TP] = set()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def read_to_end(self, tp: TP) -> tuple[int, float] | None:
        """(offset, monotonic time) of the newest fetch that began then and found nothing at or after the offset."""
        return self._thread.empty.get(tp)

    def heard_s(self) -> tuple[float, float]:
        """When the broker last answered anything, heartbeats too, and when a fetch; monotonic times."""
        return self._thread.answered_s, self._thread.fetched_s

    def fetch_position(self, tp: TP) -> int | None:
        """The end of the partition as of the last fetch, or None when it is not known."""
        try:
            return self.highwater(tp)
        except (AssertionError, IllegalStateError):
            return None  # revoked meanwhile

    def refused(self, error: BaseException) -> None:
        """End the process: Faust would stop its fetching and leave it standing, or take it for a passing failure."""
        self.owner.failed(AccessDenied(f"the broker does not permit to read: {error}", "`driftline doctor` says more"))

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message a fetched batch.

        Not filtered by the set of active partitions: that is the live set, and a pause that came too late would drop
        records which the position has passed. Generation and offsets decide instead.
        """
        try:
            records, _ = await self._wait_next_records(timeout)
        except REFUSALS as error:
            self.refused(error)
            raise
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop or not self.flow_active:
            return  # in a rebalance: a seek follows
        for tp, batches in records.items():
            for batch in batches:
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                ours = TP(tp.topic, tp.partition)
                batch.generation = generation
                last = batch.next_offset - 1
                yield (
                    ours,
                    ConsumerMessage(
                        tp.topic,
                        tp.partition,
                        last,
                        0.0,
                        0,
                        None,
                        None,
                        batch,
                        None,
                        0,
                        0,
                        ours,
                        generation_id=generation,
                    ),
                )
        if self.flow_active and self.app.consumer_generation_id == generation:
            self._hold(self.owner.polled())

    def _hold(self, wanted: Iterable[TP] | None) -> None:
        if wanted is None:
            return
        hold = set(wanted)
        if hold != self.held:
            self.resume_partitions(self.held - hold)
            self.pause_partitions(hold - self.held)
            self.held = hold

    async def perform_seek(self) -> None:
        """Become the owner of what is assigned and go to the offsets that the state has.

        Awaited by Faust before the flow resumes. Any error ends the process: going on would read from a wrong place.
        """
        generation, assigned = self.app.consumer_generation_id, {TP(*tp) for tp in self.assignment()}
        self.held = set()
        self._thread.empty.clear()
        try:
            offsets = await self.owner.take(assigned, generation)
            await self.seek_wait(offsets)
        except (Exception, SystemExit) as error:
            if self.app.consumer_generation_id != generation or assigned != {TP(*tp) for tp in self.assignment()}:
                return  # another rebalance has begun; its own seek follows
            self.owner.failed(error)
            raise
        for tp, offset in offsets.items():
            # Both: with the first alone, Faust's commits stall for ever.
            self._read_offset[tp] = offset or None
            self._committed_offset[tp] = offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([TP(*tp) for tp in self.assignment()])

    def _new_offset(self, tp: TP) -> int | None:
        return self.owner.stored_offset(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: gaps are known from the batches' offsets."""


class Transport(driver.Transport):
    """Faust's Kafka transport with the batch consumer."""

    Consumer = Consumer

    def __init__(self, url: Any, app: Any, owner: BatchOwner, **kwargs: Any) -> None:
        self.owner = owner
        super().__init__(url, app, **kwargs)
