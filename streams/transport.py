"""Faust's transport, changed so that an agent receives all records of one partition from one fetch as one message.

One Faust message costs 150 µs, whatever it carries; a fetch costs that once. The offsets belong to the state in Redis,
not to Kafka: after an assignment ``perform_seek`` asks the owner (:class:`BatchOwner`) where to go on, and what is
committed to Kafka is only what the owner has stored, so that lag tools see it.

Private parts of aiokafka and Faust are touched here and in :mod:`streams.fetched` alone, so both are pinned, and
checked by :func:`require_versions`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Protocol, cast

import faust.streams
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.errors import GroupAuthorizationFailedError, IllegalStateError, TopicAuthorizationFailedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.errors import AccessDenied, StateMismatch, WrongSetting
from streams.fetched import BatchFetchResult, KeptRecords

REFUSALS = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
CHECKED = {"aiokafka": "0.14.0", "faust-streaming": "0.15.3"}
READ_COMMITTED = "read_committed"
FETCH_WAIT_MS = 250
"""How long the broker holds an empty fetch. Faust's 1.5 s would delay the clock of an idle input by as much."""
CATCH_UP_WAIT_MS = 20
"""The same while a partition is behind its end. The client has one fetch at a time with a broker: one that asks only
about partitions without news would keep it from asking for those whose records have just been taken."""


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
        aiokafka_fetcher.MemoryRecords = KeptRecords
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
        self._fetcher = self._consumer._fetcher
        self._fetch, self._next_fetches = self._fetcher._proc_fetch_request, self._fetcher._get_actions_per_node
        self._fetcher._proc_fetch_request = self._proc_fetch_request
        self._fetcher._get_actions_per_node = self._get_actions_per_node

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

    def _get_actions_per_node(self, assignment: Any) -> Any:
        behind = any(_is_behind(assignment.state_value(tp)) for tp in assignment.tps)
        self._fetcher._fetch_max_wait_ms = CATCH_UP_WAIT_MS if behind else FETCH_WAIT_MS
        return self._next_fetches(assignment)

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


def _is_behind(state: Any) -> bool:
    """Whether records of a partition are known to be there that have not been taken."""
    return state.has_valid_position and state.highwater is not None and state.position < state.highwater


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
        except StateMismatch as error:
            self.owner.failed(error)
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
