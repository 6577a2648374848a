"""What is asked of Kafka for a feed and for a range of offsets; a consumer in memory, whose log may grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, TopicPartition

from retrain import log as logs
from retrain.log import KafkaLog
from streams.records import Labelled
from streams.settings import Settings
from tests.unit.retrain.rows import labelled, pairs


@dataclass
class Message:
    """A record, or the news of an end."""

    at: int
    content: bytes = b""
    fault: KafkaError | None = None

    def error(self) -> KafkaError | None:
        return self.fault

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes:
        return self.content


@dataclass
class OnePartition:
    """The clients of a broker that has one partition; retention has deleted what is before ``low``."""

    records: list[bytes]
    low: int = 0
    comes_when_asked: list[bytes] = field(default_factory=list)
    """What is written right after the broker has said that nothing is as new as it was asked for."""
    next: int = 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=[0])})

    def offsets_for_times(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.records += self.comes_when_asked
        return [TopicPartition(each.topic, each.partition, -1) for each in wanted]

    def get_watermark_offsets(self, of: TopicPartition, timeout: float, cached: bool = False) -> tuple[int, int]:
        return self.low, len(self.records)

    def assign(self, partitions: list[TopicPartition]) -> None:
        (self.next,) = (each.offset for each in partitions)

    def poll(self, timeout: float) -> Message:
        if self.next == len(self.records):
            return Message(self.next, fault=KafkaError(KafkaError._PARTITION_EOF))
        self.next += 1
        return Message(self.next - 1, self.records[self.next - 1])

    def consume(self, limit: int, timeout: float) -> list[Message]:
        return []

    def close(self) -> None:
        """Nothing is held."""


def kafka_log(broker: OnePartition, monkeypatch: pytest.MonkeyPatch) -> KafkaLog:
    """A log whose clients are the broker itself."""
    monkeypatch.setattr(logs, "Consumer", lambda config: broker)
    return KafkaLog(Settings())


def test_a_record_that_comes_while_a_feed_looks_for_its_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is new enough yet, so the feed begins at the end: at the one from before the question."""
    broker = OnePartition([b"old"], comes_when_asked=[b"new"])
    begun: list[dict[int, int] | None] = []

    def reader(settings: Any, topic: str, start: dict[int, int] | None) -> Any:
        begun.append(start)
        return SimpleNamespace(next=start)

    monkeypatch.setattr(logs, "TopicReader", reader)
    kafka_log(broker, monkeypatch).labelled(1_000)
    assert begun == [{0: 1}]


def test_a_range_of_labelled_is_read_from_what_is_left_of_it_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever came behind it; what retention has deleted, and what is not there yet, is no error."""
    written = [labelled(pairs([1] * (i + 1))) for i in range(6)]
    broker = OnePartition([msgspec.msgpack.encode(record) for record in written])
    log = kafka_log(broker, monkeypatch)

    def read(start: int, stop: int) -> list[Labelled]:
        return list(log.labelled_within({0: (start, stop)}))

    assert read(0, 4) == written[:4]
    assert read(2, 3) == written[2:3]
    assert read(3, 3) == []
    assert read(4, 9) == written[4:]
    broker.low = 3
    assert read(0, 4) == written[3:4]
    assert read(0, 3) == []
