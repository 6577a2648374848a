"""A broker in memory: topics, partitions, the broker's append time, and producers whose records can be cut off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from streams.codec import Headers
from streams.errors import RestartMe, Unavailable
from streams.joining import murmur2_partition
from streams.log import POLL_S, Delivery, Record
from tests.support.memory.wire import Wire

Sending = Literal["at once", "in order", "backwards"]
"""When a queued record reaches the broker: while it is sent; at the flush, in the order sent; or at the flush, the
partition last sent to first. A client keeps only the order within a partition."""


class MemoryBroker:
    """The log itself: what it holds survives every process. ``now_ms`` is the broker's clock; it never steps back."""

    def __init__(self, partitions: Mapping[str, int], now_ms: Callable[[], int]) -> None:
        self.topics: dict[str, list[list[Record]]] = {
            topic: [[] for _ in range(count)] for topic, count in partitions.items()
        }
        self.now_ms = now_ms
        self.appends = 0

    def copy(self, now_ms: Callable[[], int]) -> MemoryBroker:
        """Another broker that holds the same."""
        other = MemoryBroker({}, now_ms)
        other.topics = {topic: [list(records) for records in logs] for topic, logs in self.topics.items()}
        other.appends = self.appends
        return other

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        at_ms: int | None = None,
    ) -> Delivery:
        """Write one record; its time is the broker's unless one is given."""
        log = self._logs(topic)[partition]
        record = Record(
            topic, partition, len(log), self.now_ms() if at_ms is None else at_ms, key, value, tuple(headers)
        )
        log.append(record)
        self.appends += 1
        return Delivery(topic, partition, record.offset, record.at_ms)

    def read(self, topic: str, partition: int, offset: int, limit: int = 1_000) -> list[Record]:
        """The records of a partition from an offset on."""
        return self._logs(topic)[partition][offset : offset + limit]

    def end(self, topic: str, partition: int) -> int:
        """The offset after the newest record."""
        return len(self._logs(topic)[partition])

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises :class:`Unavailable` for an unknown one."""
        return len(self._logs(topic))

    def _logs(self, topic: str) -> list[list[Record]]:
        if topic not in self.topics:
            raise Unavailable(f"there is no topic {topic}", "`driftline topics create` makes the topics")
        return self.topics[topic]


@dataclass(frozen=True, slots=True)
class _Queued:
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    delivered: Callable[[Delivery], None] | None


class MemoryPublisher:
    """A producer. Records queued and not flushed are lost with the process, or late: :meth:`still_in_flight`."""

    def __init__(self, broker: MemoryBroker, wire: Wire, sending: Sending = "in order") -> None:
        self._broker = broker
        self._wire = wire
        self._sending: Sending = sending
        self._queue: list[_Queued] = []
        self._failure: str | None = None

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        """Queue one record."""
        self._check()
        count = self._broker.partitions(topic)
        place = partition if partition is not None else murmur2_partition(key, count) if key is not None else 0
        if place >= count:
            self._failure = f"{topic}: unknown partition {place}"
            return
        self._queue.append(_Queued(topic, place, key, value, headers or (), delivered))
        if self._sending == "at once":
            self._deliver()

    def flush(self, timeout_s: float = 60.0) -> None:
        """Let every queued record reach the broker, one at a time."""
        self._deliver()
        self._check()

    def still_in_flight(self) -> None:
        """Let what is queued reach the broker, although the process that sent it is gone or suspended."""
        for record in self._in_turn():
            self._append(record)
        self._queue = []

    def _deliver(self) -> None:
        for record in self._in_turn():
            place = f"append {record.topic}-{record.partition}"
            self._queue.remove(record)
            delivery = self._wire.call("log", place, lambda record=record: self._append(record))  # type: ignore[misc]  # binds record
            if record.delivered is not None:
                record.delivered(delivery)

    def _append(self, record: _Queued) -> Delivery:
        return self._broker.append(record.topic, record.partition, record.key, record.value, record.headers)

    def _in_turn(self) -> list[_Queued]:
        if self._sending != "backwards":
            return list(self._queue)
        places = list(dict.fromkeys((each.topic, each.partition) for each in self._queue))
        return sorted(self._queue, key=lambda each: -places.index((each.topic, each.partition)))

    def _check(self) -> None:
        if self._failure is not None:
            raise RestartMe(f"a record could not be delivered: {self._failure}", "is the broker reachable?")


class MemoryReader:
    """A reader, see :class:`streams.log.Reader`. It never waits: nobody else runs meanwhile."""

    def __init__(
        self,
        broker: MemoryBroker,
        wire: Wire,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> None:
        self.topic = topic
        self._broker = broker
        self._wire = wire
        count = wire.call("log", f"describe {topic}", lambda: broker.partitions(topic))
        self.partitions = [p for p in range(count) if partitions is None or p in partitions]
        self.first_ends = self.ends()
        self.earliest = dict.fromkeys(self.partitions, 0)
        begin = {p: 0 if tail is None else max(0, end - tail) for p, end in self.first_ends.items()}
        self.next = {p: start[p] if start and p in start else begin[p] for p in self.partitions}
        self.at_end = dict.fromkeys(self.partitions, False)

    def ends(self) -> dict[int, int]:
        """The offset after the newest record of each partition."""
        return self._wire.call(
            "log", f"ends {self.topic}", lambda: {p: self._broker.end(self.topic, p) for p in self.partitions}
        )

    def poll(self, timeout_s: float = POLL_S) -> list[Record]:
        """The next records of every partition."""
        records = self._wire.call("log", f"fetch {self.topic}", self._fetch)
        for p in self.partitions:
            self.at_end[p] = True
        for record in records:
            self.next[record.partition] = record.offset + 1
            self.at_end[record.partition] = False
        return records

    def _fetch(self) -> list[Record]:
        for p, offset in self.next.items():
            if offset > self._broker.end(self.topic, p):
                raise Unavailable(f"{self.topic}: offset {offset} is out of range", "is the topic complete?")
        return [record for p in self.partitions for record in self._broker.read(self.topic, p, self.next[p])]

    def read_to_end(self, timeout_s: float = 120.0) -> Iterator[Record]:
        """Every record up to the end of each partition."""
        while records := self.poll():
            yield from records

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryLog:
    """One process's way to a broker in memory, see :class:`streams.log.Log`."""

    def __init__(self, broker: MemoryBroker, wire: Wire | None = None) -> None:
        self._broker = broker
        self._wire = wire or Wire()

    def reader(
        self,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> MemoryReader:
        """A reader of a topic."""
        return MemoryReader(self._broker, self._wire, topic, start, partitions, tail)

    def publisher(self, sending: Sending = "in order") -> MemoryPublisher:
        """A producer."""
        return MemoryPublisher(self._broker, self._wire, sending)
