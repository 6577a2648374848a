"""Kafka clients as this project needs them: a producer that cannot lose quietly, readers that read a topic whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streams.codec import Headers
from streams.errors import RestartMe, Unavailable
from streams.settings import KafkaSettings

MAX_RECORD_BYTES = 10_485_760
POLL_S = 0.1
BATCH = 1_000


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client needs to reach the broker. Its log is quiet: what matters comes back as an error, once."""
    return {"bootstrap.servers": settings.bootstrap, "client.id": "driftline", "log_level": 2}


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. ``at_ms`` is the record's time: the broker's on our topics."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class SafeProducer:
    """An idempotent producer with acks=all whose failed delivery is an error, never a log line.

    ``murmur2_random`` partitioning: the same as Java's clients, so that a prediction and its outcome meet. Delivery
    reports are served by a thread of its own. Thread-safe.
    """

    def __init__(self, settings: KafkaSettings, **config: Any) -> None:
        self._producer = Producer(
            {
                **client_config(settings),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "linger.ms": settings.linger_ms,
                "compression.type": "lz4",
                "message.max.bytes": MAX_RECORD_BYTES,
                "queue.buffering.max.messages": 500_000,
                "delivery.timeout.ms": 120_000,
                **config,
            }
        )
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._serve_reports, name="kafka-delivery", daemon=True)
        self._poller.start()

    def _serve_reports(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(POLL_S)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[confluent_kafka.Message], None] | None = None,
    ) -> None:
        """Queue one record; blocks while the queue is full. ``delivered`` runs in another thread.

        Raises :class:`RestartMe` if an earlier delivery failed.
        """
        self.check()

        def report(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if error is not None:
                with self._lock:
                    self._failure = self._failure or f"{topic}: {error.str()}"
            elif delivered is not None:
                delivered(message)

        where = {} if partition is None else {"partition": partition}
        while True:
            try:
                self._producer.produce(
                    topic, value=value, key=key, headers=list(headers) if headers else None, on_delivery=report, **where
                )
                return
            except BufferError:
                time.sleep(0.005)  # the poller frees the queue
                self.check()

    def check(self) -> None:
        """Raise :class:`RestartMe` if a delivery has failed."""
        with self._lock:
            if self._failure:
                raise RestartMe(f"a record could not be delivered: {self._failure}", "is the broker reachable?")

    def waiting(self) -> int:
        """Records queued and not yet acknowledged."""
        return len(self._producer)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything is acknowledged. Raises :class:`RestartMe` on a failure or a timeout."""
        left = self._producer.flush(timeout_s)
        self.check()
        if left:
            raise RestartMe(f"{left} records are not acknowledged after {timeout_s:g} s", "is the broker reachable?")

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush and stop the thread."""
        try:
            self.flush(timeout_s)
        finally:
            self._stop.set()
            self._poller.join()


def reader_config(settings: KafkaSettings) -> dict[str, Any]:
    """A consumer that belongs to no group, reads committed records and never resets silently."""
    return {
        **client_config(settings),
        "group.id": "driftline-reader",  # required by the client, never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 100,
        "fetch.message.max.bytes": MAX_RECORD_BYTES,
        "receive.message.max.bytes": 8 * MAX_RECORD_BYTES,
        "queued.max.messages.kbytes": 32_768,
    }


class TopicReader:
    """Reads whole partitions without a group: history first, then what comes.

    Not thread-safe. ``start`` maps partitions to offsets; a missing one starts at the earliest record. ``partitions``
    limits the reader to some of them.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
    ) -> None:
        self.topic = topic
        self._timeout_s = settings.request_timeout_s
        self._consumer = Consumer(reader_config(settings))
        try:
            self.partitions = [p for p in sorted(self._metadata()) if partitions is None or p in partitions]
            # Asked before the first fetch: on the same connection they would wait for its long poll.
            marks = {p: self._watermarks(p) for p in self.partitions}
            self.first_ends = {p: high for p, (_, high) in marks.items()}
            self.next = {p: start[p] if start and p in start else low for p, (low, _) in marks.items()}
            self.at_end = dict.fromkeys(self.partitions, False)
            self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in self.next.items()])
        except BaseException:
            self._consumer.close()
            raise

    def _metadata(self) -> list[int]:
        try:
            # All of them: some brokers make a topic that is asked for by name.
            topics = self._consumer.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise Unavailable(f"the broker does not answer: {error.args[0].str()}", "check kafka.bootstrap") from None
        if self.topic not in topics:
            raise Unavailable(f"there is no topic {self.topic}", "`driftline topics create` makes the topics")
        return list(topics[self.topic].partitions)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=self._timeout_s, cached=False
            )
        except KafkaException as error:
            raise Unavailable(
                f"the broker does not tell the offsets of {self.topic}-{partition}: {error.args[0].str()}",
                "is it reachable?",
            ) from None
        return int(low), int(high)

    def ends(self) -> dict[int, int]:
        """The offset after the newest record of each partition, asked of the broker now."""
        return {p: self._watermarks(p)[1] for p in self.partitions}

    def poll(self, timeout_s: float = POLL_S) -> list[Record]:
        """The next records of any partition; an empty list after ``timeout_s`` without one.

        Raises :class:`Unavailable` when the partitions cannot be read.
        """
        records: list[Record] = []
        for message in self._consumer.consume(BATCH, timeout_s):
            error = message.error()
            if error is None:
                records.append(_record(message))
                self.next[message.partition()] = message.offset() + 1
                self.at_end[message.partition()] = False
            elif error.code() == KafkaError._PARTITION_EOF:
                self.next[message.partition()] = max(self.next[message.partition()], message.offset())
                self.at_end[message.partition()] = True
            elif not error.retriable() and error.code() not in _PASSING:
                raise Unavailable(f"{self.topic}: {error.str()}", "is the topic complete and the broker reachable?")
        return records

    def read_to_end(self, timeout_s: float = 120.0) -> Iterator[Record]:
        """Every record up to the end of each partition, which a fetch that came back empty tells.

        Not by end offsets: an embedded broker tells too low ones. Raises :class:`Unavailable` if an end is not reached.
        """
        ended: set[int] = set()
        if any(self.at_end.values()):  # an end reached before is not told again while nothing comes after it
            ended = {p for p, end in self.ends().items() if self.at_end[p] and self.next[p] >= end}
        self.at_end = dict.fromkeys(self.partitions, False)
        deadline = time.monotonic() + timeout_s
        while len(ended) < len(self.partitions):
            records = self.poll()
            yield from records
            ended |= {p for p, at_end in self.at_end.items() if at_end}
            if records:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                raise Unavailable(f"{self.topic} could not be read to its end", "is the broker reachable?")
        self.at_end = dict.fromkeys(self.partitions, True)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})


def is_readable(settings: KafkaSettings, topic: str, partition: int, offset: int) -> bool:
    """Whether a partition can be read from ``offset`` on: it is within the log or just at its end."""
    with TopicReader(settings, topic, {partition: offset}, {partition}) as reader:
        try:
            deadline = time.monotonic() + settings.request_timeout_s
            while time.monotonic() < deadline:
                if reader.poll() or reader.at_end[partition]:
                    return True
        except Unavailable:
            return False
    raise Unavailable(f"{topic}-{partition} cannot be read", "is the broker reachable?")


def _record(message: confluent_kafka.Message) -> Record:
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers() or (),
    )
