"""What the stages rely on of a log: the one in memory and the embedded broker here, Kafka in the integration tests."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from stack.broker import EmbeddedBroker
from streams.errors import RestartMe, Unavailable
from streams.joining import murmur2_partition
from streams.kafka import KafkaLog, SafeProducer
from streams.log import Delivery, Log, Publisher, Reader, Record
from streams.settings import KafkaSettings
from tests.support.memory.log import MemoryBroker, MemoryLog

BOUND_S = 30.0
NEVER_S = 3_600.0
PARTITIONS = 2


def polled(reader: Reader, enough: Callable[[list[Record]], bool]) -> list[Record]:
    """Poll until there is enough."""
    found: list[Record] = []
    deadline = time.monotonic() + BOUND_S
    while not enough(found):
        assert time.monotonic() < deadline, f"{len(found)} records came"
        found += reader.poll()
    return found


class LogContract:
    """The suite; a subclass gives ``log``, ``publisher`` and a fresh ``topic`` of two partitions."""

    exact_ends = True
    """Whether the end offsets that the broker tells are right, after a batch too."""

    def test_what_was_published_is_read_back(self, log: Log, publisher: Publisher, topic: str) -> None:
        """Null and empty are different things; offsets are dense; the report tells where each record is, and when."""
        sent = [(b"k", b"v"), (None, b"\x00\xff"), (b"", b""), (b"k", None)]
        told: list[Delivery] = []
        for key, value in sent:
            publisher.send(topic, value, key, [("ce_id", b"1"), ("none", None)], partition=0, delivered=told.append)
        publisher.flush()
        with log.reader(topic) as reader:
            read = list(reader.read_to_end())
        assert [(record.key, record.value) for record in read] == sent
        assert [record.offset for record in read] == [0, 1, 2, 3]
        assert [tuple(record.headers) for record in read] == [(("ce_id", b"1"), ("none", None))] * 4
        assert [Delivery(record.topic, record.partition, record.offset, record.at_ms) for record in read] == sorted(
            told, key=lambda each: each.offset
        )

    def test_a_flush_returns_after_every_report(self, publisher: Publisher, topic: str) -> None:
        """So that whoever flushed knows what is in the log, each record once."""
        told: list[Delivery] = []
        for number in range(300):
            publisher.send(topic, b"v", str(number).encode(), delivered=told.append)
        publisher.flush()
        assert len(told) == 300
        assert {each.topic for each in told} == {topic}
        ends = {p: sum(each.partition == p for each in told) for p in range(PARTITIONS)}
        for p in range(PARTITIONS):
            assert sorted(each.offset for each in told if each.partition == p) == list(range(ends[p]))

    def test_the_order_within_a_partition_is_kept(self, log: Log, publisher: Publisher, topic: str) -> None:
        """A cut goes out before its summaries' next, whatever else is sent in between."""
        for number in range(200):
            publisher.send(topic, str(number).encode(), partition=number % PARTITIONS)
        publisher.flush()
        with log.reader(topic) as reader:
            read = list(reader.read_to_end())
        for p in range(PARTITIONS):
            values = [int(record.value or b"") for record in read if record.partition == p]
            assert values == list(range(p, 200, PARTITIONS))

    def test_a_key_decides_the_partition_as_java_does(self, log: Log, publisher: Publisher, topic: str) -> None:
        """murmur2, unless a partition is given."""
        keys = [f"id-{number}".encode() for number in range(40)]
        for key in keys:
            publisher.send(topic, b"", key)
        publisher.flush()
        with log.reader(topic) as reader:
            found = {record.key: record.partition for record in reader.read_to_end()}
        assert found == {key: murmur2_partition(key, PARTITIONS) for key in keys}

    def test_a_reader_begins_where_it_is_told(self, log: Log, publisher: Publisher, topic: str) -> None:
        """At an offset, at the earliest record of a partition without one, and in no other partition."""
        for number in range(20):
            publisher.send(topic, str(number).encode(), partition=number % PARTITIONS)
        publisher.flush()
        with log.reader(topic, {0: 7}) as reader:
            assert reader.partitions == [0, 1]
            assert reader.next == {0: 7, 1: 0}
            read = list(reader.read_to_end())
            assert reader.next == {0: 10, 1: 10}
        assert sorted((record.partition, record.offset) for record in read) == [
            *((0, offset) for offset in range(7, 10)),
            *((1, offset) for offset in range(10)),
        ]
        with log.reader(topic, {0: 2, 1: 9}, {1}) as reader:
            assert reader.partitions == [1]
            assert [(record.partition, record.offset) for record in reader.read_to_end()] == [(1, 9)]

    def test_a_poll_ends_as_soon_as_something_has_come(self, log: Log, publisher: Publisher, topic: str) -> None:
        """However long it may wait: a take reads what is there several times, and nothing is joined meanwhile."""
        publisher.send(topic, b"only one", partition=0)
        publisher.flush()
        reader = log.reader(topic)
        found: list[Record] = []

        def read() -> None:
            while not found:  # a poll may also end with the end of the other partition
                found.extend(reader.poll(NEVER_S))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(BOUND_S)
        assert [record.value for record in found] == [b"only one"]
        reader.close()

    def test_a_reader_begins_before_the_end(self, log: Log, publisher: Publisher, topic: str) -> None:
        """So many records before it, or at the earliest one of a partition that has fewer; an offset given wins."""
        for number in range(14):
            publisher.send(topic, str(number).encode(), partition=0 if number < 12 else 1)
        publisher.flush()
        with log.reader(topic, None, None, 5) as reader:
            read = sorted((record.partition, record.offset) for record in reader.read_to_end())
            assert reader.earliest == {0: 0, 1: 0}
        if self.exact_ends:
            assert read == [*((0, offset) for offset in range(7, 12)), (1, 0), (1, 1)]
        assert {(0, 11), (1, 0), (1, 1)} <= set(read)
        with log.reader(topic, {0: 2}, {0}, 5) as reader:
            assert [record.offset for record in reader.read_to_end()] == list(range(2, 12))

    def test_what_comes_after_the_end_is_read_too(self, log: Log, publisher: Publisher, topic: str) -> None:
        """By polling, and by reading to the end again, each record once."""
        publisher.send(topic, b"history", partition=0)
        publisher.flush()
        with log.reader(topic) as reader:
            assert [record.value for record in reader.read_to_end()] == [b"history"]
            assert list(reader.read_to_end()) == []
            publisher.send(topic, b"polled", partition=1)
            publisher.flush()
            assert [record.value for record in polled(reader, bool)] == [b"polled"]
            publisher.send(topic, b"to the end", partition=0)
            publisher.flush()
            assert [record.value for record in reader.read_to_end()] == [b"to the end"]

    def test_an_empty_poll_tells_the_end(self, log: Log, publisher: Publisher, topic: str) -> None:
        """Of each partition for itself; a record takes it back."""
        publisher.send(topic, b"v", partition=0)
        publisher.flush()
        with log.reader(topic) as reader:
            assert reader.at_end == {0: False, 1: False}
            polled(reader, lambda found: bool(found) and all(reader.at_end.values()))
            assert reader.poll(0.05) == []

    def test_ends_are_asked_of_the_broker(self, log: Log, publisher: Publisher, topic: str) -> None:
        """When the reader is made, and anew at each call; an embedded broker tells too low ones after a batch."""
        for _ in range(5):
            publisher.send(topic, b"v", partition=1)
        publisher.flush()
        with log.reader(topic) as reader:
            publisher.send(topic, b"v", partition=0)
            publisher.flush()
            first, now = dict(reader.first_ends), reader.ends()
        if self.exact_ends:
            assert (first, now) == ({0: 0, 1: 5}, {0: 1, 1: 5})
        else:
            assert 0 < first[1] <= 5
            assert (first[0], now[0]) == (0, 1)

    def test_an_offset_beyond_the_end_is_an_error(self, log: Log, publisher: Publisher, topic: str) -> None:
        """Never a silent reset to one that exists: the topic was made anew."""
        publisher.send(topic, b"v", partition=0)
        publisher.flush()
        with log.reader(topic, {0: 9}, {0}) as reader, pytest.raises(Unavailable, match=topic):
            polled(reader, lambda found: bool(found) or reader.at_end[0])

    def test_an_unknown_topic_is_named(self, log: Log) -> None:
        """And the command that makes it."""
        with pytest.raises(Unavailable, match=r"no topic nothing-of-ours .*driftline topics create"):
            log.reader("nothing-of-ours")

    def test_a_record_that_cannot_be_delivered_ends_the_process(self, publisher: Publisher, topic: str) -> None:
        """At the flush at the latest, and at whatever is sent after it: never quietly."""
        publisher.send(topic, b"v", partition=0)
        publisher.flush()
        with pytest.raises(RestartMe, match=topic):  # a client may know it at once
            publisher.send(topic, b"v", partition=99)
            publisher.flush()
        with pytest.raises(RestartMe, match=topic):
            publisher.send(topic, b"v", partition=0)


class BrokerContract(LogContract):
    """The suite on a broker that speaks Kafka; a subclass gives ``bootstrap``."""

    @pytest.fixture
    def settings(self, bootstrap: str) -> KafkaSettings:
        return KafkaSettings(bootstrap=bootstrap)

    @pytest.fixture
    def log(self, settings: KafkaSettings) -> Log:
        return KafkaLog(settings)

    @pytest.fixture
    def publisher(self, settings: KafkaSettings) -> Iterator[SafeProducer]:
        made = SafeProducer(settings)
        yield made
        with contextlib.suppress(RestartMe):  # one test makes it fail
            made.close()

    @pytest.fixture
    def topic(self, bootstrap: str) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        made = NewTopic(name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        admin = AdminClient({"bootstrap.servers": bootstrap})  # kept: without it the request is dropped
        admin.create_topics([made])[name].result(BOUND_S)
        return name


@pytest.fixture(scope="module")
def embedded_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.bootstrap


class TestEmbeddedLog(BrokerContract):
    """The embedded broker."""

    exact_ends = False

    def test_an_offset_beyond_the_end_is_an_error(self, log: Log, publisher: Publisher, topic: str) -> None:
        """It is none here, but neither a record nor an end is told: whoever asks for it gives up."""
        publisher.send(topic, b"v", partition=0)
        publisher.flush()
        with log.reader(topic, {0: 9}, {0}) as reader:
            assert [reader.poll(0.5), reader.poll(0.5)] == [[], []]
            assert not reader.at_end[0]

    @pytest.fixture
    def bootstrap(self, embedded_bootstrap: str) -> str:
        return embedded_bootstrap


class TestMemoryLog(LogContract):
    """The broker in memory that the simulation uses, whenever its producer sends."""

    @pytest.fixture
    def broker(self) -> MemoryBroker:
        times = iter(range(1_000, 1_000_000))
        return MemoryBroker({"t": PARTITIONS}, lambda: next(times))

    @pytest.fixture
    def log(self, broker: MemoryBroker) -> Log:
        return MemoryLog(broker)

    @pytest.fixture(params=["at once", "in order", "backwards"])
    def publisher(self, broker: MemoryBroker, request: pytest.FixtureRequest) -> Publisher:
        return MemoryLog(broker).publisher(request.param)

    @pytest.fixture
    def topic(self) -> str:
        return "t"
