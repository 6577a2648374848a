"""The retrain loop's log and announcer on the embedded broker, which differs from Apache Kafka in small things."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from retrain.announce import KafkaAnnouncer
from retrain.log import KafkaLog
from stack.broker import EmbeddedBroker
from streams import codec
from streams.errors import StateMismatch
from streams.events import FullPrediction
from streams.kafka import SafeProducer
from streams.records import Labelled
from streams.settings import KafkaSettings, Settings
from streams.topics import TopicAdmin, Topics
from tests.contract.test_retrain_log import AnnouncerContract, LogContract, Writer


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """One broker for this module."""
    with EmbeddedBroker(tmp_path_factory.mktemp("embedded")) as it:
        yield it


@pytest.fixture
def settings(broker: EmbeddedBroker) -> Settings:
    """Topics of one's own."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    made = Settings(kafka=KafkaSettings(bootstrap=broker.bootstrap, topic_prefix=prefix, partitions=2))
    TopicAdmin(made).create()
    return made


class TestEmbeddedLog(LogContract):
    """The embedded broker passes what Kafka passes."""

    @pytest.fixture
    def log(self, settings: Settings) -> KafkaLog:
        return KafkaLog(settings)

    @pytest.fixture
    def write(self, settings: Settings) -> Iterator[Writer]:
        producer, topics = SafeProducer(settings.kafka), Topics(settings.kafka.topic_prefix)

        def append(records: Sequence[Labelled], predictions: Sequence[FullPrediction | None]) -> None:
            for record in records:
                producer.send(topics.labelled, msgspec.msgpack.encode(record), b"0", partition=0)
            for event in predictions:
                producer.send(topics.predictions, codec.encode(event) if event else b"garbage", partition=0)
            producer.flush()

        yield append
        producer.close()


def test_a_foreign_record_in_labelled_is_named(settings: Settings) -> None:
    """Two deployments on one topic: the run ends with where the record is and what to do."""
    producer = SafeProducer(settings.kafka)
    producer.send(Topics(settings.kafka.topic_prefix).labelled, b"garbage", partition=1)
    producer.close()
    feed = KafkaLog(settings).labelled(None)
    try:
        with pytest.raises(StateMismatch, match="labelled-1 has a record that is not ours at offset 0"):
            while not feed.at_end():
                feed.poll()
    finally:
        feed.close()


class TestEmbeddedAnnouncer(AnnouncerContract):
    """The embedded broker passes what Kafka passes."""

    @pytest.fixture
    def announcer(self, settings: Settings) -> Iterator[KafkaAnnouncer]:
        made = KafkaAnnouncer(settings)
        yield made
        made.close()
