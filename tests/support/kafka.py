"""A real one-node Apache Kafka (KRaft) on the loopback, without Docker."""

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.kafka_jars import kafka_libs
from tests.support.ports import answers, free_port, is_free
from tests.support.server import Server, ServerError, executable

MAX_MESSAGE_BYTES = 12 * 1024 * 1024
ADMIN_TIMEOUT_S = 5.0
# librdkafka would print every refused connection of a broker that still starts.
QUIET = {"log_level": 0, "log.connection.close": False}
LOGGING = {"defaultLogLevel": "warn", "showDateTime": "true", "dateTimeFormat": "HH:mm:ss.SSS"}


class KafkaBroker(Server):
    """An Apache Kafka broker; `properties` add to or replace those of server.properties.

    Topics are never created by themselves, records may have 12 MB (topics inherit that), and session timeouts
    may go down to one second.
    """

    name = "kafka"
    start_bound_s = 120.0

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        heap_mb: int = 512,
    ) -> None:
        super().__init__(directory, port)
        self._controller_port = free_port()
        self._properties = dict(properties or {})
        self._heap_mb = heap_mb

    @property
    def bootstrap(self) -> str:
        return self.address

    def client_config(self) -> dict[str, str | int | float | bool]:
        """What a client needs that may do everything."""
        return {"bootstrap.servers": self.bootstrap}

    def admin(self, **configuration: str | int | float | bool) -> AdminClient:
        """A new admin client. Keep it in a variable while its futures run: without it they fail as destroyed."""
        return AdminClient({**self.client_config(), **configuration})

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until the broker has it."""
        admin = self.admin(**QUIET)
        admin.create_topics([NewTopic(name, partitions, config=dict(config or {}))])[name].result()

    def _prepare(self) -> list[str]:
        if not is_free(self._controller_port):
            self._controller_port = free_port()
        configuration = self.directory / "server.properties"
        settings = self._settings() | self._properties
        configuration.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        java = [
            *(executable("java", "openjdk-17-jre-headless"), f"-Xmx{self._heap_mb}m"),
            *(f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in LOGGING.items()),
            *("-cp", f"{kafka_libs()}/*"),
        ]
        if not (self.directory / "data" / "meta.properties").exists():
            self._format([*java, "kafka.tools.StorageTool", "format", "-c", str(configuration), *self._users()])
        return [*java, "kafka.Kafka", str(configuration)]

    def _users(self) -> list[str]:
        """Arguments of the format that make users."""
        return []

    def _settings(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            # One node cannot keep the three replicas that are the default of the internal topics.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "auto.create.topics.enable": "false",
            # A killed broker may register again only after its former session: 9 s by default.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        }

    def _format(self, command: list[str]) -> None:
        # The first byte is fixed: an id that begins with a dash reads as an option.
        cluster = base64.urlsafe_b64encode(b"K" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        done = subprocess.run([*command, "-t", cluster], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = (done.stdout + done.stderr)[-3000:]
            raise ServerError(f"Kafka's storage cannot be formatted: {output}")

    def _is_ready(self) -> bool:
        """The port answers before the coordinators do: create and delete a topic, and ask for a group."""
        if not answers(self.port):
            return False
        admin = self.admin(**QUIET)
        probe = f"readiness-{uuid.uuid4().hex}"
        try:
            admin.list_topics(timeout=ADMIN_TIMEOUT_S)
            admin.create_topics([NewTopic(probe, 1)], request_timeout=ADMIN_TIMEOUT_S)[probe].result()
            self._ask_for_a_group(probe)
            if not self._takes_idempotent_records(probe):
                return False
            admin.delete_topics([probe], request_timeout=ADMIN_TIMEOUT_S)[probe].result()
        except KafkaException:
            return False
        return True

    def _takes_idempotent_records(self, topic: str) -> bool:
        # Until the coordinator of producer ids is loaded, records queue up in their producer. Then they go out by
        # partition, not in the order in which they were sent: outcomes before their predictions.
        producer = Producer({**self.client_config(), "enable.idempotence": True, **QUIET})
        producer.produce(topic, b"probe")
        return bool(producer.flush(ADMIN_TIMEOUT_S) == 0)

    def _ask_for_a_group(self, topic: str) -> None:
        # By a consumer: AdminClient.list_consumer_group_offsets crashes the interpreter while no coordinator answers.
        consumer = Consumer({**self.client_config(), "group.id": topic, **QUIET})
        try:
            consumer.committed([TopicPartition(topic, 0)], timeout=ADMIN_TIMEOUT_S)
        finally:
            consumer.close()
