"""Kafka clients as this project needs them: a producer that cannot lose quietly, readers that read a topic whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.codec import Headers
from streams.credentials import kafka_access
from streams.errors import AccessDenied, DriftlineError, RestartMe, Unavailable
from streams.log import POLL_S, Delivery, Record
from streams.settings import KafkaSettings

MAX_RECORD_BYTES = 10_485_760
BATCH = 1_000
FETCH_WAIT_MS = 100
TAIL_WAIT_MS = 20
FIRST_ANSWER_S = 1.0
T = TypeVar("T")


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client needs to reach the broker. Its log is quiet: what matters comes back as an error, once.

    A refusal (a wrong password, an untrusted certificate) is raised as :class:`AccessDenied` by the client's next
    ``poll``, ``consume`` or ``flush``: librdkafka itself would try again for ever. Raises what
    :func:`streams.credentials.kafka_access` raises.
    """
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "driftline",
        "log_level": 2,
        "error_cb": _raise_refusal,
        **kafka_access(settings).librdkafka(),
    }


def refusal(error: KafkaError) -> AccessDenied | None:
    """What an error says of our rights, in one line with what to do; None if it says nothing of them."""
    code, text = error.code(), _without_place(error.str())
    if code == KafkaError._SSL or "SSL alert number" in text or "certificate verify failed" in text:
        if "alert" in text:
            return AccessDenied(
                f"the broker does not accept our certificate ({text})",
                "set kafka.certificate_file and kafka.key_file to a pair that the broker's authority signed",
            )
        return AccessDenied(
            f"the broker's certificate is not trusted ({text})",
            "set kafka.ca_file to its authority, and name the brokers in kafka.bootstrap as their certificates do",
        )
    # An authentication that broke off is told as one that failed.
    if code == KafkaError._AUTHENTICATION and "Local: " not in text:
        return AccessDenied(
            f"the broker refuses to log us in ({text})",
            "check kafka.username, its password and kafka.sasl_mechanism",
        )
    if code in _UNAUTHORIZED:
        return AccessDenied(
            text.rstrip("."), "`driftline doctor` lists what is missing, `driftline acls` what it takes"
        )
    return None


def _without_place(text: str) -> str:
    """``sasl_ssl://host:9092/bootstrap: SASL … failed (after 3ms in state …)`` without address and state."""
    if text.startswith(("ssl://", "sasl_ssl://", "sasl_plaintext://", "plaintext://")):
        text = text.partition(": ")[2]
    return text.partition(" (after ")[0]


def _raise_refusal(error: KafkaError) -> None:
    """librdkafka's error callback: what is raised in it is raised by the call that serves it."""
    if (denied := refusal(error)) is not None:
        raise denied


def asked(client: Any, question: Callable[[float], T], timeout_s: float) -> T:
    """The broker's answer to ``question``, which is called with a time limit until it is answered.

    Between its attempts the errors of ``client`` are served: :class:`AccessDenied` ends the waiting at once. Raises
    :class:`confluent_kafka.KafkaException` for any other failure, after ``timeout_s``.
    """
    deadline, patience_s = time.monotonic() + timeout_s, FIRST_ANSWER_S
    while True:
        left_s = deadline - time.monotonic()
        try:
            return question(max(0.01, min(patience_s, left_s)))
        except KafkaException as error:
            if (denied := refusal(error.args[0])) is not None:
                raise denied from None
            client.poll(0)
            if left_s <= patience_s or error.args[0].code() not in _PASSING:
                raise
            patience_s *= 2


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
        self._failure: DriftlineError | None = None
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._serve_reports, name="kafka-delivery", daemon=True)
        self._poller.start()

    def _serve_reports(self) -> None:
        while not self._stop.is_set():
            try:
                self._producer.poll(POLL_S)
            except AccessDenied as error:
                self._fail(error)

    def _fail(self, error: DriftlineError) -> None:
        with self._lock:
            self._failure = self._failure or error

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        """Queue one record; blocks while the queue is full. ``delivered`` runs in another thread, or in one that
        flushes.

        Raises what :meth:`check` raises.
        """
        self.check()

        def report(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if error is not None:
                undelivered = f"a record could not be delivered: {topic}: {error.str()}"
                self._fail(
                    failure(topic, error) if refusal(error) else RestartMe(undelivered, "is the broker reachable?")
                )
            elif delivered is not None:
                delivered(Delivery(message.topic(), message.partition(), message.offset(), message.timestamp()[1]))

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
            except KafkaException as error:  # refused before it was queued, such as one that is too large
                undelivered = f"a record could not be delivered: {topic}: {error.args[0].str()}"
                self._fail(RestartMe(undelivered, "is the broker reachable?"))
                self.check()

    def check(self) -> None:
        """Raise :class:`RestartMe` if a delivery has failed, :class:`AccessDenied` if the broker refuses us."""
        with self._lock:
            if self._failure:
                raise self._failure

    def waiting(self) -> int:
        """Records queued and not yet acknowledged."""
        return len(self._producer)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything is acknowledged. Raises what :meth:`check` raises, :class:`RestartMe` on a timeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            left = self._producer.flush(max(0.0, min(left_s, FIRST_ANSWER_S)))
            self.check()  # a refusal may have been told to the other thread
            if not left:
                return
            if left_s > 0:
                continue
            raise RestartMe(f"{left} records are not acknowledged after {timeout_s:g} s", "is the broker reachable?")

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush and stop the thread."""
        try:
            self.flush(timeout_s)
        finally:
            self._stop.set()
            self._poller.join()


def reader_config(settings: KafkaSettings, wait_ms: int = FETCH_WAIT_MS) -> dict[str, Any]:
    """A consumer that belongs to no group, reads committed records and never resets silently.

    ``wait_ms``: how long the broker holds a fetch that finds nothing, and so how long it takes to know an end.
    """
    return {
        **client_config(settings),
        "group.id": "driftline-reader",  # required by the client, never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": wait_ms,
        "fetch.message.max.bytes": MAX_RECORD_BYTES,
        "receive.message.max.bytes": 8 * MAX_RECORD_BYTES,
        "queued.max.messages.kbytes": 32_768,
    }


def next_messages(consumer: Consumer, timeout_s: float) -> list[Message]:
    """What has come, as soon as something has; an empty list after ``timeout_s`` without anything.

    ``consume`` alone would wait for a full batch until its time is up, however little is still to come.
    """
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(BATCH, 0)]


class TopicReader:
    """Reads whole partitions without a group: history first, then what comes.

    Not thread-safe. ``start`` maps partitions to offsets; a missing one starts at the earliest record, or ``tail``
    records before the end. ``partitions`` limits the reader to some of them.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> None:
        self.topic = topic
        self._timeout_s = settings.request_timeout_s
        # Who reads a tail wants its end at once, and then no more of it.
        self._consumer = Consumer(reader_config(settings, FETCH_WAIT_MS if tail is None else TAIL_WAIT_MS))
        try:
            self.partitions = [p for p in sorted(self._metadata()) if partitions is None or p in partitions]
            # Asked before the first fetch: on the same connection they would wait for its long poll.
            marks = {p: self._watermarks(p) for p in self.partitions}
            self.first_ends = {p: high for p, (_, high) in marks.items()}
            self.earliest = {p: low for p, (low, _) in marks.items()}
            begin = {p: low if tail is None else max(low, high - tail) for p, (low, high) in marks.items()}
            self.next = {p: start[p] if start and p in start else offset for p, offset in begin.items()}
            self.at_end = dict.fromkeys(self.partitions, False)
            self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in self.next.items()])
        except BaseException:
            self._consumer.close()
            raise

    def _metadata(self) -> list[int]:
        try:
            # All of them: some brokers make a topic that is asked for by name.
            topics = asked(self._consumer, lambda s: self._consumer.list_topics(timeout=s).topics, self._timeout_s)
        except KafkaException as error:
            raise Unavailable(f"the broker does not answer: {error.args[0].str()}", "check kafka.bootstrap") from None
        if self.topic not in topics:
            raise Unavailable(
                f"there is no topic {self.topic} that we may see", "`driftline topics create` makes the topics"
            )
        return list(topics[self.topic].partitions)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=self._timeout_s, cached=False
            )
        except KafkaException as error:
            raise failure(self.topic, error.args[0]) from None
        return int(low), int(high)

    def ends(self) -> dict[int, int]:
        """The offset after the newest record of each partition, asked of the broker now."""
        return {p: self._watermarks(p)[1] for p in self.partitions}

    def poll(self, timeout_s: float = POLL_S) -> list[Record]:
        """The next records of any partition; an empty list after ``timeout_s`` without one.

        Raises :class:`Unavailable` when the partitions cannot be read, :class:`AccessDenied` when we may not.
        """
        records: list[Record] = []
        for message in next_messages(self._consumer, timeout_s):
            error = message.error()
            if error is None:
                records.append(_record(message))
                self.next[message.partition()] = message.offset() + 1
                self.at_end[message.partition()] = False
            elif error.code() == KafkaError._PARTITION_EOF:
                self.next[message.partition()] = max(self.next[message.partition()], message.offset())
                self.at_end[message.partition()] = True
            elif not passes(error):
                raise failure(self.topic, error)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class KafkaLog:
    """The broker that the settings name, as a :class:`streams.log.Log`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    def reader(
        self,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> TopicReader:
        """A reader of a topic, see :class:`TopicReader`."""
        return TopicReader(self._settings, topic, start, partitions, tail)


_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})
_UNAUTHORIZED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)


def passes(error: KafkaError) -> bool:
    """Whether a reader without a group may go on after ``error``.

    librdkafka looks for the coordinator of that group although nobody joins it, so a refusal of it means nothing.
    """
    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return True
    return bool(error.retriable() or error.code() in _PASSING) and refusal(error) is None


def failure(topic: str, error: KafkaError) -> DriftlineError:
    """An error met while a topic is read, as one of ours."""
    denied = refusal(error)
    if denied is not None:
        return AccessDenied(f"{topic}: {denied.message}", denied.hint)
    return Unavailable(f"{topic}: {error.str()}", "is the topic complete and the broker reachable?")


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
