"""The batch transport on a real Kafka: a small Faust app whose owner notes every batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
import pytest
from aiokafka.consumer import fetcher as aiokafka_fetcher
from confluent_kafka import Producer
from faust.types import TP

from streams.fetched import Fetched
from streams.kafka import TopicReader
from streams.partition import Batch
from streams.settings import KafkaSettings
from streams.transport import CATCH_UP_WAIT_MS, FETCH_WAIT_MS, Consumer, Transport, require_versions
from tests.support.kafka import KafkaBroker

BOUND_S = 60.0
REQUEST_TIMEOUT_S = 8.0
STAMPED = {"message.timestamp.type": "LogAppendTime"}


class NotingOwner:
    """Owns every offset by itself, and keeps what it is handed."""

    def __init__(self, start: Mapping[TP, int] | None = None) -> None:
        self.start = dict(start or {})
        self.batches: list[Batch] = []
        self.assignments: list[set[TP]] = []
        self.failure: BaseException | None = None
        self.wanted: set[TP] | None = None
        self.position: dict[TP, int] = {}

    async def take(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        self.assignments.append(assigned)
        self.position = {tp: self.position.get(tp, self.start.get(tp, 0)) for tp in assigned}
        return self.position

    def stored_offset(self, tp: TP) -> int | None:
        return self.position.get(tp)

    def failed(self, error: BaseException) -> None:
        self.failure = error

    def polled(self) -> Iterable[TP] | None:
        return self.wanted

    def note(self, fetched: Fetched) -> None:
        """Take a fetch as the worker does: what lies before the position was prefetched before a seek."""
        tp = TP(fetched.topic, fetched.partition)
        if tp in self.position and fetched.first_offset == self.position[tp]:
            self.position[tp] = fetched.next_offset
            self.batches.append(fetched.unpack())

    def has(self, offset: int) -> bool:
        """Whether the record at ``offset`` has come."""
        return offset in self.offsets

    @property
    def values(self) -> list[bytes | None]:
        return [value for batch in self.batches for value in batch.values]

    @property
    def offsets(self) -> list[int]:
        return [offset for batch in self.batches for offset in batch.offsets]


class SlowOwner(NotingOwner):
    """Takes longer to take its partitions than any request to the broker may, as a rebuild from the log does."""

    async def take(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        await asyncio.sleep(REQUEST_TIMEOUT_S + 2)
        return await super().take(assigned, generation)


class SmallApp(faust.App):
    """As the worker's app, with a short session."""

    def __init__(self, broker: KafkaBroker, group: str, topic: str, partitions: int, owner: NotingOwner, data: Path):
        self.owner = owner
        super().__init__(
            group,
            broker=f"kafka://{broker.bootstrap}",
            store="memory://",
            datadir=str(data),
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=partitions,
            consumer_auto_offset_reset="earliest",
            stream_wait_empty=False,
            broker_max_poll_records=None,
            broker_session_timeout=6.0,
            broker_request_timeout=REQUEST_TIMEOUT_S,
            broker_heartbeat_interval=1.0,
            broker_commit_interval=0.5,
        )
        source = self.topic(topic, key_serializer="raw", value_serializer="raw")

        @self.agent(source, name="note")
        async def note(stream: Any) -> None:
            stream.enable_acks = False
            async for fetched in stream:
                owner.note(fetched)

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self, self.owner, loop=self.loop)


@asynccontextmanager
async def running(app: SmallApp) -> AsyncIterator[Consumer]:
    """The app's consumer, while it runs."""
    await app.start()
    try:
        yield cast(Consumer, app.consumer)
    finally:
        await asyncio.wait_for(app.stop(), BOUND_S)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true")
        await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def stock_fetcher_afterwards() -> Iterator[None]:
    """The transport replaces classes of aiokafka for its process: other tests have them as they were."""
    stock = aiokafka_fetcher.FetchResult, aiokafka_fetcher.MemoryRecords
    yield
    aiokafka_fetcher.FetchResult, aiokafka_fetcher.MemoryRecords = stock


Play = Callable[[Callable[[NotingOwner, int], SmallApp]], Awaitable[None]]


@pytest.fixture
def play(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path) -> Callable[[Play], None]:
    """Run a scenario; it makes its apps by ``app(owner, partitions)``."""

    def run(scenario: Play) -> None:
        require_versions()
        made: list[int] = []

        def app(owner: NotingOwner, partitions: int = 1) -> SmallApp:
            made.append(len(made))
            return SmallApp(kafka_broker, deployment, deployment, partitions, owner, tmp_path / str(made[-1]))

        asyncio.run(asyncio.wait_for(scenario(app), 4 * BOUND_S))

    return run


def produce(broker: KafkaBroker, topic: str, values: Iterable[bytes | None], **config: str | int) -> None:
    """All values, in order, to partition 0."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, **config})
    for number, value in enumerate(values):
        producer.produce(topic, value, key=f"k{number}", partition=0)
    assert producer.flush(BOUND_S) == 0


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_record_comes_once_and_in_order(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None], codec: str
) -> None:
    """Whole batches whose positions join, for every codec; empty values stay what they are."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    values: list[bytes | None] = [f"value {n}".encode() * 10 for n in range(3_000)]
    values[5], values[6] = None, b""
    produce(kafka_broker, deployment, values, **{"compression.type": codec})

    async def scenario(app: Any) -> None:
        owner = NotingOwner()
        async with running(app(owner)):
            await until(lambda: len(owner.values) >= 3_000)
        assert owner.values == values
        assert owner.offsets == list(range(3_000))
        assert [b.first_offset for b in owner.batches[1:]] == [b.next_offset for b in owner.batches[:-1]]
        assert all(sum(count for _, count in b.runs) == len(b.values) for b in owner.batches)
        assert owner.batches[0].sample_key == b"k0"
        assert len(owner.batches) < 300

    play(scenario)


def test_reading_begins_where_the_owner_says_also_inside_a_batch(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """Kafka's own committed offset does not matter."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    produce(kafka_broker, deployment, [str(n).encode() for n in range(500)], **{"linger.ms": 500})

    async def scenario(app: Any) -> None:
        for start in (250, 100):
            owner = NotingOwner({TP(deployment, 0): start})
            async with running(app(owner)):
                await until(partial(owner.has, 499))
            assert owner.offsets == list(range(start, 500))

    play(scenario)


def test_aborted_records_do_not_count_and_markers_leave_gaps(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """What was committed comes whole; the position passes the markers, the last one too."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "transactional.id": deployment, "linger.ms": 5})
    producer.init_transactions(BOUND_S)
    for number in range(4):
        producer.begin_transaction()
        for n in range(10):
            producer.produce(deployment, f"{number}-{n}".encode(), partition=0)
        producer.flush(BOUND_S)
        if number % 2:
            producer.abort_transaction(BOUND_S)
        else:
            producer.commit_transaction(BOUND_S)
    expected = [f"{number}-{n}".encode() for number in (0, 2) for n in range(10)]

    async def scenario(app: Any) -> None:
        owner = NotingOwner()
        async with running(app(owner)):
            await until(lambda: owner.position.get(TP(deployment, 0)) == 44)
        assert owner.values == expected
        assert owner.offsets == [*range(10), *range(22, 32)]

    play(scenario)


def test_holes_of_a_compaction_are_passed(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """What the cleaner left comes with its own offsets, and positions still join."""
    compacted = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", **STAMPED}
    kafka_broker.create_topic(deployment, 1, compacted)
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "linger.ms": 0})
    sent = 0
    deadline = time.monotonic() + BOUND_S
    kept: list[int] = []
    while not kept or len(kept) == sent:
        assert time.monotonic() < deadline, "the cleaner did not run"
        for n in range(10):
            producer.produce(deployment, str(sent + n).encode(), key=f"k{n % 3}", partition=0)
            assert producer.flush(BOUND_S) == 0
        sent += 10
        time.sleep(0.3)
        kept = offsets_of(kafka_broker, deployment)

    async def scenario(app: Any) -> None:
        owner = NotingOwner()
        async with running(app(owner)):
            await until(partial(owner.has, sent - 1))
        assert len(owner.offsets) < sent
        assert owner.offsets == sorted(owner.offsets)
        assert owner.values == [str(offset).encode() for offset in owner.offsets]
        assert [b.first_offset for b in owner.batches[1:]] == [b.next_offset for b in owner.batches[:-1]]

    play(scenario)


def offsets_of(broker: KafkaBroker, topic: str) -> list[int]:
    """The offsets that partition 0 has now."""
    with TopicReader(KafkaSettings(bootstrap=broker.bootstrap), topic) as reader:
        return [record.offset for record in reader.read_to_end()]


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
def test_runs_carry_the_record_times(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None], kind: str
) -> None:
    """The broker's, one for a producer's batch, or the producer's, record by record."""
    kafka_broker.create_topic(deployment, 1, {"message.timestamp.type": kind})
    sent_ms = int(time.time() * 1000) - 60_000
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "linger.ms": 500})
    for n in range(6):
        producer.produce(deployment, b"v", partition=0, timestamp=sent_ms + 10 * (n // 2))
    assert producer.flush(BOUND_S) == 0

    async def scenario(app: Any) -> None:
        owner = NotingOwner()
        async with running(app(owner)):
            await until(lambda: len(owner.values) == 6)
        runs = [run for batch in owner.batches for run in batch.runs]
        if kind == "CreateTime":
            assert runs == [(sent_ms, 2), (sent_ms + 10, 2), (sent_ms + 20, 2)]
        else:
            assert sum(count for _, count in runs) == 6
            assert len(runs) == len({at for at, _ in runs})
            assert all(at > sent_ms + 20_000 for at, _ in runs)

    play(scenario)


def test_a_fetch_that_found_nothing_is_known_by_when_it_began(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """The join's clock of an idle input stands on it: never told for a fetch that began before the record."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    produce(kafka_broker, deployment, [b"v"] * 10)

    async def scenario(app: Any) -> None:
        owner, tp = NotingOwner(), TP(deployment, 0)
        async with running(app(owner)) as consumer:
            await until(lambda: (consumer.read_to_end(tp) or (0, 0))[0] == 10)
            began = time.monotonic()
            await until(lambda: (consumer.read_to_end(tp) or (0, 0))[1] > began)
            await asyncio.to_thread(produce, kafka_broker, deployment, [b"w"])
            acknowledged = time.monotonic()
            await until(lambda: owner.position.get(tp) == 11)
            offset, began = consumer.read_to_end(tp) or (0, 0.0)
            assert offset == 11 or began < acknowledged
            await until(lambda: (consumer.read_to_end(tp) or (0, 0))[0] == 11)
            assert consumer.fetch_position(tp) == 11

    play(scenario)


def test_the_brokers_answers_are_noted(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """The watchdog stands on it: fetches and heartbeats that are answered move the times, a silent broker does not."""
    kafka_broker.create_topic(deployment, 1, STAMPED)

    async def scenario(app: Any) -> None:
        owner = NotingOwner()
        async with running(app(owner)) as consumer:
            await until(lambda: owner.assignments and owner.assignments[-1])
            began = time.monotonic()
            await until(lambda: min(consumer.heard_s()) > began)
            kafka_broker.pause()
            try:
                await asyncio.sleep(1)  # what was on its way has come
                silent = consumer.heard_s()
                await asyncio.sleep(2)
                assert consumer.heard_s() == silent
            finally:
                kafka_broker.resume()
            await until(lambda: min(consumer.heard_s()) > max(silent))

    play(scenario)


def test_a_held_partition_waits_and_loses_nothing(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """A pause in the middle of a stream, then all the rest."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    produce(kafka_broker, deployment, [str(n).encode() for n in range(100)])

    async def scenario(app: Any) -> None:
        owner, tp = NotingOwner(), TP(deployment, 0)
        async with running(app(owner)) as consumer:
            await until(lambda: len(owner.values) == 100)
            owner.wanted = {tp}
            await until(lambda: consumer.held == {tp})
            await asyncio.to_thread(produce, kafka_broker, deployment, [b"later"] * 50)
            await asyncio.sleep(1)
            assert len(owner.values) == 100
            owner.wanted = set()
            await until(lambda: len(owner.values) == 150)
        assert owner.offsets == list(range(150))

    play(scenario)


def test_the_broker_is_asked_again_soon_while_records_are_known_to_be_there(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """A fetch of partitions without news must not keep a full one waiting; without any backlog the broker has time."""
    kafka_broker.create_topic(deployment, 2, STAMPED)
    produce(kafka_broker, deployment, [bytes(10_000)] * 300)

    async def scenario(app: Any) -> None:
        owner, tp = NotingOwner(), TP(deployment, 0)
        owner.wanted = {tp}
        async with running(app(owner, 2)) as consumer:
            waits: list[int] = []
            fetcher = cast(Any, consumer)._thread._fetcher
            send = fetcher._proc_fetch_request

            def noting(assignment: Any, node_id: int, request: Any) -> Any:
                waits.append(request._max_wait_ms)
                return send(assignment, node_id, request)

            fetcher._proc_fetch_request = noting
            await until(lambda: consumer.held == {tp} and owner.values)
            waits.clear()
            await until(lambda: len(waits) > 3)
            assert set(waits[1:]) == {CATCH_UP_WAIT_MS}
            owner.wanted = set()
            await until(lambda: len(owner.values) == 300)
            await until(lambda: waits[-3:] == [FETCH_WAIT_MS] * 3)
        assert owner.offsets == list(range(300))

    play(scenario)


def test_two_members_share_the_partitions_and_one_takes_over(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """Each assignment is taken as a whole, and the owner is asked again at every rebalance."""
    kafka_broker.create_topic(deployment, 4, STAMPED)

    async def scenario(app: Any) -> None:
        one, two = NotingOwner(), NotingOwner()
        everything = {TP(deployment, p) for p in range(4)}
        async with running(app(one, 4)):
            await until(lambda: one.assignments and one.assignments[-1] == everything)
            async with running(app(two, 4)):
                await until(
                    lambda: (
                        one.assignments[-1]
                        and two.assignments
                        and two.assignments[-1]
                        and one.assignments[-1] | two.assignments[-1] == everything
                        # Until the first has heard of the second it still holds all of them.
                        and not one.assignments[-1] & two.assignments[-1]
                    )
                )
                assert not one.assignments[-1] & two.assignments[-1]
            await until(lambda: one.assignments[-1] == everything)
            await asyncio.to_thread(produce, kafka_broker, deployment, [b"v"] * 10)
            await until(lambda: len(one.values) == 10)
        assert one.failure is None
        assert two.failure is None

    play(scenario)


def test_partitions_that_take_long_to_take_are_consumed_afterwards(
    kafka_broker: KafkaBroker, deployment: str, play: Callable[[Play], None]
) -> None:
    """Faust bounds that step by the time of one request, and would never consume again; requests keep their bound."""
    kafka_broker.create_topic(deployment, 1, STAMPED)
    produce(kafka_broker, deployment, [b"one", b"two"])

    async def scenario(app: Any) -> None:
        owner = SlowOwner()
        async with running(app(owner)) as consumer:
            await until(lambda: len(owner.values) == 2)
            client: Any = consumer._thread._consumer
            assert client._client._request_timeout_ms == 1_000 * REQUEST_TIMEOUT_S
            assert len(owner.assignments) == 1
            produce(kafka_broker, deployment, [b"three"])
            await until(lambda: len(owner.values) == 3)
        assert owner.failure is None

    play(scenario)
