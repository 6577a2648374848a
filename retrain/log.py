"""What the loop reads from Kafka: labelled pairs from a point in stream time on, and ranges of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Protocol

import confluent_kafka
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.codec import Undecodable, full_prediction_decoder
from streams.errors import StateMismatch, Unavailable
from streams.events import FullPrediction
from streams.kafka import TopicReader, failure, next_messages, passes, reader_config
from streams.log import POLL_S
from streams.records import Labelled
from streams.settings import KafkaSettings, Settings
from streams.topics import Topics

LabelledDecoder = msgspec.msgpack.Decoder[Labelled]
MARGIN_MS = 60_000
"""`labelled` is written after its pairs were complete; brokers' clocks may differ by less than this."""


class LabelledFeed(Protocol):
    """Records of `labelled`, history first."""

    def poll(self) -> list[Labelled]:
        """The next records; an empty list after a moment without one."""

    def at_end(self) -> bool:
        """Whether everything written so far was returned."""

    def offsets(self) -> dict[int, tuple[int, int]]:
        """Partition of `labelled` → the half-open range of offsets whose records were returned."""

    def close(self) -> None:
        """Stop reading."""


class Log(Protocol):
    """The part of the log that training needs."""

    labelled_topic: str
    """What `labelled` is called, with its prefix."""

    def labelled(self, since_ms: int | None) -> LabelledFeed:
        """A feed of every pair complete at ``since_ms`` or later, and perhaps of earlier ones; of all for None."""

    def labelled_within(self, offsets: Mapping[int, tuple[int, int]]) -> Iterator[Labelled]:
        """The records of `labelled` in ``offsets`` (partition → half-open range) that still exist; by one sequential
        scan a partition.
        """

    def predictions(self, partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        """Those of ``offsets`` that still exist and decode, with their events, in order; by one sequential scan."""


class KafkaLog:
    """The log in Kafka. Each call has clients of its own, so runs in different threads do not meet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.kafka
        self._topics = Topics(settings.kafka.topic_prefix)
        self.labelled_topic = self._topics.labelled

    def labelled(self, since_ms: int | None) -> KafkaLabelledFeed:
        """See :class:`Log`."""
        topic = self.labelled_topic
        start = None if since_ms is None else self._offsets_at(topic, max(0, since_ms - MARGIN_MS))
        return KafkaLabelledFeed(TopicReader(self._settings, topic, start))

    def labelled_within(self, offsets: Mapping[int, tuple[int, int]]) -> Iterator[Labelled]:
        """See :class:`Log`."""
        topic, decoder = self.labelled_topic, msgspec.msgpack.Decoder(Labelled)
        for partition, (start, stop) in sorted(offsets.items()):
            with _consumer(self._settings) as consumer:
                for message in _scan(consumer, topic, partition, start, stop, self._timeout_s):
                    yield _decoded(decoder, topic, partition, message.offset(), message.value())

    def predictions(self, partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        """See :class:`Log`."""
        if not offsets:
            return
        decoder = full_prediction_decoder()
        with _consumer(self._settings) as consumer:
            topic, start, stop = self._topics.predictions, min(offsets), max(offsets) + 1
            for message in _scan(consumer, topic, partition, start, stop, self._timeout_s):
                if message.offset() not in offsets:
                    continue  # undecoded: the range may hold a hundred other records for each of ours
                try:
                    yield message.offset(), decoder.decode_any(message.value(), message.headers() or ())
                except Undecodable:
                    continue  # the join has dead-lettered it: it has no pair

    @property
    def _timeout_s(self) -> float:
        return self._settings.request_timeout_s

    def _offsets_at(self, topic: str, at_ms: int) -> dict[int, int]:
        with _consumer(self._settings) as consumer:
            try:
                found = consumer.list_topics(topic, timeout=self._timeout_s).topics[topic]
                wanted = [TopicPartition(topic, p, at_ms) for p in found.partitions]
                # The ends first: what comes between the two questions would be in neither answer.
                ends = {
                    p: consumer.get_watermark_offsets(TopicPartition(topic, p), self._timeout_s)
                    for p in found.partitions
                }
                offsets = {}
                for at in consumer.offsets_for_times(wanted, timeout=self._timeout_s):
                    low, high = ends[at.partition]
                    offsets[at.partition] = max(low, at.offset) if at.offset >= 0 else high
            except KafkaException as error:
                raise failure(topic, error.args[0]) from None
        return offsets


class KafkaLabelledFeed:
    """See :class:`LabelledFeed`."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        self._start = dict(reader.next)
        self._decoder = msgspec.msgpack.Decoder(Labelled)

    def poll(self) -> list[Labelled]:
        return [_decoded(self._decoder, r.topic, r.partition, r.offset, r.value) for r in self._reader.poll()]

    def offsets(self) -> dict[int, tuple[int, int]]:
        return {partition: (start, self._reader.next[partition]) for partition, start in self._start.items()}

    def at_end(self) -> bool:
        return all(self._reader.at_end.values())

    def close(self) -> None:
        self._reader.close()


def _decoded(decoder: LabelledDecoder, topic: str, partition: int, offset: int, value: bytes | None) -> Labelled:
    try:
        return decoder.decode(value or b"")
    except msgspec.MsgspecError as error:
        raise StateMismatch(
            f"{topic}-{partition} has a record that is not ours at offset {offset}: {error}",
            "does another deployment write to it? set kafka.topic_prefix",
        ) from None


@contextmanager
def _consumer(settings: KafkaSettings) -> Iterator[Consumer]:
    consumer = Consumer(reader_config(settings))
    try:
        yield consumer
    finally:
        consumer.close()


def _scan(
    consumer: Consumer, topic: str, partition: int, start: int, stop: int, timeout_s: float
) -> Iterator[confluent_kafka.Message]:
    """Messages from offset ``start`` up to ``stop``, or to the end as a fetch knows it.

    An end that was asked for is not used: the embedded broker names one that is too low.
    """
    start = max(start, _low(consumer, topic, partition, timeout_s))
    if start >= stop:
        return  # retention has deleted the whole range
    consumer.assign([TopicPartition(topic, partition, start)])
    idle_s = 0.0
    while idle_s <= timeout_s:
        messages = next_messages(consumer, POLL_S)
        idle_s = 0.0 if messages else idle_s + POLL_S
        for message in messages:
            found = message.error()
            if found is None:
                if message.offset() < stop:
                    yield message
                if message.offset() >= stop - 1:
                    return
            elif found.code() == KafkaError._PARTITION_EOF:
                return
            elif found.code() in _OUT_OF_RANGE:
                low = _low(consumer, topic, partition, timeout_s)
                if not start < low < stop:
                    return  # these offsets are of a log that is no more
                start = low  # retention deleted while we read
                consumer.assign([TopicPartition(topic, partition, start)])
            elif not passes(found):
                raise failure(topic, found)
    raise Unavailable(f"{topic} could not be read up to {stop}", "is the broker reachable?")


def _low(consumer: Consumer, topic: str, partition: int, timeout_s: float) -> int:
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s, cached=False)
    except KafkaException as error:
        raise failure(topic, error.args[0]) from None
    return int(low)


_OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
