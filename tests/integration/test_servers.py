"""The test servers behave as the real ones they are: data survives a crash, a pause ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer

from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.server import ServerError

pytestmark = pytest.mark.kafka
CONSUME_BOUND_S = 60.0


def produce(broker: KafkaBroker, topic: str, values: list[bytes]) -> None:
    """Produce and wait until the broker acknowledged every record."""
    errors = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 12_000_000, "log_level": 0})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error) if error else None)
    left = producer.flush(CONSUME_BOUND_S)
    if left or errors:
        raise AssertionError(f"{left} records not delivered, errors: {errors}")


def consume(broker: KafkaBroker, topic: str, count: int) -> list[bytes]:
    """Read `count` records from the beginning as a new member of a group."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"{topic}-readers",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        consumer.subscribe([topic])
        values: list[bytes] = []
        while len(values) < count:
            messages = consumer.consume(count - len(values), CONSUME_BOUND_S)
            if not messages:
                raise AssertionError(f"{len(values)} of {count} records read")
            for message in messages:
                assert message.error() is None
                values.append(message.value() or b"")
        return values
    finally:
        consumer.close()


def test_a_record_of_nine_megabytes_is_read_as_written(kafka_broker: KafkaBroker, deployment: str) -> None:
    """The shared broker carries small records and one of 9 MB through a real producer and a real group."""
    kafka_broker.create_topic(deployment)
    values = [b"small", bytes(range(256)) * (9_000_000 // 256), b"after"]
    produce(kafka_broker, deployment, values)
    assert consume(kafka_broker, deployment, 3) == values


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    with KafkaBroker(tmp_path / "kafka", heap_mb=256) as broker:
        yield broker


def test_a_killed_broker_keeps_its_log_and_its_address(own_broker: KafkaBroker, deployment: str) -> None:
    """A start on the same folder serves what was acknowledged, on the same port: after SIGKILL, after a stop."""
    own_broker.create_topic(deployment)
    values = [str(number).encode() for number in range(500)]
    produce(own_broker, deployment, values[:400])
    address = own_broker.bootstrap
    own_broker.kill()
    assert not own_broker.is_running
    own_broker.start()
    assert own_broker.bootstrap == address
    produce(own_broker, deployment, values[400:])
    own_broker.restart()
    assert consume(own_broker, deployment, 500) == values


def test_a_paused_broker_answers_again_after_resume(kafka_broker: KafkaBroker, deployment: str) -> None:
    """While paused nothing is acknowledged; what a client sent meanwhile arrives after the resume."""
    kafka_broker.create_topic(deployment)
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "log_level": 0})
    kafka_broker.pause()
    try:
        producer.produce(deployment, b"sent into the pause")
        assert producer.flush(1) == 1
    finally:
        kafka_broker.resume()
    assert producer.flush(CONSUME_BOUND_S) == 0
    assert consume(kafka_broker, deployment, 1) == [b"sent into the pause"]


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A wrong property fails the start with the end of the broker's log, and no process is left."""
    broker = KafkaBroker(tmp_path, properties={"log.retention.ms": "soon"})
    with pytest.raises(ServerError, match=r"(?s)soon.*log\.retention\.ms|log\.retention\.ms.*soon"):
        broker.start()
    assert not broker.is_running


def test_the_shared_redis_is_one_that_driftline_accepts(redis_store: RedisServer) -> None:
    """It has an append-only file and evicts nothing, and INFO says so."""
    with redis_store.client() as client:
        info = client.info()
    assert isinstance(info, dict)
    assert info["aof_enabled"] == 1
    assert info["maxmemory_policy"] == "noeviction"


def test_a_killed_redis_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """After SIGKILL the append-only file gives every acknowledged write back, on the same port."""
    with RedisServer(tmp_path) as store:
        url = store.url
        with store.client() as client:
            for number in range(1_000):
                client.set(f"key-{number}", number)
        store.kill()
        with store.client() as client, pytest.raises(redis.ConnectionError):
            client.ping()
        store.start()
        assert store.url == url
        with store.client() as client:
            assert client.dbsize() == 1_000
            assert client.get("key-999") == b"999"


def test_a_redis_without_append_only_file_forgets(tmp_path: Path) -> None:
    """The server for the refusals has no append-only file, evicts, and loses its keys in a crash."""
    options = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
    with RedisServer(tmp_path, appendonly=False, options=options) as store:
        with store.client() as client:
            client.set("key", "value")
            info = client.info()
        assert isinstance(info, dict)
        assert info["aof_enabled"] == 0
        assert info["maxmemory_policy"] == "allkeys-lru"
        store.kill()
        store.start()
        with store.client() as client:
            assert client.get("key") is None


def test_a_paused_redis_times_out_and_goes_on(tmp_path: Path) -> None:
    """A paused Redis does not answer, serves again after resume, and can be stopped while paused."""
    with RedisServer(tmp_path) as store:
        store.pause()
        with store.client(timeout_s=0.5) as hasty, pytest.raises(redis.TimeoutError):
            hasty.ping()
        store.resume()
        with store.client() as client:
            assert client.ping()
        store.pause()
    assert not store.is_running
