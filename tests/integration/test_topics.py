"""Topics on a real broker: created once, verified at every start, mended by the command that is named."""

from __future__ import annotations

import time

import pytest

from streams.errors import StateMismatch, Unavailable
from streams.settings import KafkaSettings, Settings
from streams.topics import INPUT_ALIGNED, NAMES, TopicAdmin, Topics
from tests.support.kafka import KafkaBroker

STAMPED = {"message.timestamp.type": "LogAppendTime"}


def settings_of(broker: KafkaBroker, deployment: str, partitions: int = 3, accept: bool = False) -> Settings:
    kafka = KafkaSettings(
        bootstrap=broker.bootstrap, topic_prefix=f"{deployment}.", partitions=partitions, accept_create_time=accept
    )
    return Settings(kafka=kafka)


def make(broker: KafkaBroker, name: str, partitions: int, config: dict[str, str]) -> None:
    """Create a topic as a producer's team would have, long ago: every client sees it."""
    broker.create_topic(name, partitions, config)
    admin = broker.admin()
    deadline = time.monotonic() + 60
    while name not in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline, f"{name} does not show"
        time.sleep(0.05)


def test_missing_topics_are_named_then_created_then_accepted(kafka_broker: KafkaBroker, deployment: str) -> None:
    """A second create finds nothing to do, and another setting does not touch what exists."""
    settings = settings_of(kafka_broker, deployment)
    admin, topics = TopicAdmin(settings), Topics(f"{deployment}.")
    with pytest.raises(StateMismatch, match=r"predictions.*driftline topics create"):
        admin.verify()
    assert set(admin.create()) == {getattr(topics, name) for name in NAMES}
    counts = admin.verify()
    assert [counts[getattr(topics, name)] for name in INPUT_ALIGNED] == [3, 3, 3, 3]
    assert counts[topics.alerts] == 1
    later = TopicAdmin(settings_of(kafka_broker, deployment, partitions=6))
    assert later.create() == []
    assert later.verify() == counts


def test_our_topics_follow_an_input_that_producers_have_made(kafka_broker: KafkaBroker, deployment: str) -> None:
    """Ids are spread over its partitions already."""
    topics = Topics(f"{deployment}.")
    make(kafka_broker, topics.outcomes, 2, STAMPED)
    admin = TopicAdmin(settings_of(kafka_broker, deployment))
    assert topics.outcomes not in admin.create()
    counts = admin.verify()
    assert [counts[getattr(topics, name)] for name in INPUT_ALIGNED] == [2, 2, 2, 2]
    assert counts[topics.summaries] == 3


def test_the_monitors_cuts_follow_summaries_that_exist(kafka_broker: KafkaBroker, deployment: str) -> None:
    """A setting that has changed since then must not make a pair that does not fit."""
    topics = Topics(f"{deployment}.")
    make(kafka_broker, topics.summaries, 5, STAMPED)
    admin = TopicAdmin(settings_of(kafka_broker, deployment))
    admin.create()
    assert admin.verify()[topics.monitor_checkpoints] == 5


def test_unequal_inputs_are_refused_with_the_command_that_mends_them(
    kafka_broker: KafkaBroker, deployment: str
) -> None:
    """Repair raises all to the largest and never removes a partition."""
    topics = Topics(f"{deployment}.")
    make(kafka_broker, topics.predictions, 2, STAMPED)
    make(kafka_broker, topics.outcomes, 4, STAMPED)
    admin = TopicAdmin(settings_of(kafka_broker, deployment))
    admin.create()
    with pytest.raises(StateMismatch, match=r"predictions 2.*outcomes 4.*driftline topics repair.*to 4"):
        admin.verify()
    raised = admin.repair()
    assert raised[topics.predictions] == 4
    assert topics.outcomes not in raised
    counts = admin.verify()
    assert {counts[getattr(topics, name)] for name in INPUT_ALIGNED} == {4}
    assert admin.repair() == {}


def test_topics_that_keep_the_producers_time_are_refused_unless_accepted(
    kafka_broker: KafkaBroker, deployment: str
) -> None:
    """With the command of Kafka's own tools that changes it."""
    topics = Topics(f"{deployment}.")
    make(kafka_broker, topics.predictions, 3, {"message.timestamp.type": "CreateTime"})
    admin = TopicAdmin(settings_of(kafka_broker, deployment))
    admin.create()
    with pytest.raises(StateMismatch, match=r"kafka-configs\.sh.*predictions.*LogAppendTime.*accept_create_time"):
        admin.verify()
    assert TopicAdmin(settings_of(kafka_broker, deployment, accept=True)).verify()


def test_a_broker_that_does_not_answer_is_one_line() -> None:
    """With the address that was tried."""
    kafka = KafkaSettings(bootstrap="127.0.0.1:1", request_timeout_s=1)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as refused:
        TopicAdmin(Settings(kafka=kafka)).verify()
    assert "\n" not in str(refused.value)
