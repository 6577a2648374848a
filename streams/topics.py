"""The topics: their names, keys, partitions and retention; created and verified before anything starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from streams.errors import AccessDenied, StateMismatch, Unavailable
from streams.kafka import MAX_RECORD_BYTES, asked, client_config, refusal
from streams.settings import Settings

DAY_MS = 86_400_000
CREATE_ATTEMPTS = 20
FIRST_CONTACT_S = 10.0
"""A broker that is not there should be said soon."""
REQUIRED_TIMESTAMP = "LogAppendTime"


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics of one deployment."""

    prefix: str = ""
    predictions: str = field(init=False)
    outcomes: str = field(init=False)
    checkpoints: str = field(init=False)
    labelled: str = field(init=False)
    summaries: str = field(init=False)
    monitor_checkpoints: str = field(init=False)
    alerts: str = field(init=False)
    model_events: str = field(init=False)
    review_requests: str = field(init=False)
    dead_letters: str = field(init=False)

    def __post_init__(self) -> None:
        for name in NAMES:
            object.__setattr__(self, name, self.prefix + name.replace("_", "-"))


NAMES = (
    "predictions",
    "outcomes",
    "checkpoints",
    "labelled",
    "summaries",
    "monitor_checkpoints",
    "alerts",
    "model_events",
    "review_requests",
    "dead_letters",
)
INPUT_ALIGNED = ("predictions", "outcomes", "checkpoints", "labelled")
"""Partition i of each of these belongs to partition i of the others."""
SUMMARY_ALIGNED = ("summaries", "monitor_checkpoints")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be."""

    name: str
    partitions: int
    config: dict[str, str]


def specs(settings: Settings) -> list[TopicSpec]:
    """Every topic of the deployment, with the configuration it is created with."""
    topics = Topics(settings.kafka.topic_prefix)
    partitions = settings.kafka.partitions
    inputs_ms = int(settings.worker.horizon_s * 1000) + 30 * DAY_MS
    base = {"message.timestamp.type": REQUIRED_TIMESTAMP, "max.message.bytes": str(MAX_RECORD_BYTES)}

    def kept(ms: int, **more: str) -> dict[str, str]:
        return {**base, "cleanup.policy": "delete", "retention.ms": str(ms), **more}

    return [
        TopicSpec(topics.predictions, partitions, kept(inputs_ms)),
        TopicSpec(topics.outcomes, partitions, kept(inputs_ms)),
        TopicSpec(topics.checkpoints, partitions, kept(inputs_ms)),
        TopicSpec(topics.labelled, partitions, kept(inputs_ms)),
        TopicSpec(topics.summaries, partitions, kept(32 * DAY_MS)),
        TopicSpec(topics.monitor_checkpoints, partitions, kept(32 * DAY_MS)),
        TopicSpec(topics.alerts, 1, {**base, "cleanup.policy": "compact,delete", "retention.ms": str(365 * DAY_MS)}),
        TopicSpec(topics.model_events, 1, kept(-1, **{"retention.bytes": "-1"})),
        TopicSpec(topics.review_requests, partitions, kept(30 * DAY_MS)),
        TopicSpec(
            topics.dead_letters, 1, kept(30 * DAY_MS, **{"max.message.bytes": str(MAX_RECORD_BYTES + 1_048_576)})
        ),
    ]


class TopicAdmin:
    """Creates and verifies the topics of a deployment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._specs = specs(settings)
        self._timeout_s = settings.kafka.request_timeout_s
        # What goes wrong is raised as one line: librdkafka's own log would print every refused connection before it.
        self._admin = AdminClient({**client_config(settings.kafka), "log_level": 0})

    def partition_counts(self) -> dict[str, int]:
        """Partitions of each of our topics that exists and that we may see.

        Raises :class:`Unavailable` without a broker, :class:`AccessDenied` if it refuses us.
        """
        patience_s = min(self._timeout_s, FIRST_CONTACT_S)
        try:
            found = asked(self._admin, lambda seconds: self._admin.list_topics(timeout=seconds).topics, patience_s)
        except KafkaException as error:
            raise Unavailable(
                f"no Kafka broker answers at {self._settings.kafka.bootstrap} ({error.args[0].str()})",
                "start one, or set kafka.bootstrap and kafka.security_protocol as its listener is",
            ) from None
        return {s.name: len(found[s.name].partitions) for s in self._specs if s.name in found}

    def create(self) -> list[str]:
        """Create the topics that are missing → their names. Existing ones are left alone.

        Aligned topics follow the count of one that exists already: producers may have made an input.
        """
        existing = self.partition_counts()
        aligned: dict[str, int] = {}
        for names in self._groups():
            followed = next((existing[name] for name in names if name in existing), None)
            aligned |= {name: followed for name in names if followed is not None}
        wanted = [
            NewTopic(
                s.name,
                num_partitions=aligned.get(s.name, s.partitions),
                replication_factor=self._settings.kafka.replication,
                config=s.config,
            )
            for s in self._specs
            if s.name not in existing
        ]
        for topic in wanted:
            self._create_one(topic)
        self._wait_until_known({t.topic: t.num_partitions for t in wanted})
        return [t.topic for t in wanted]

    def _groups(self) -> list[list[str]]:
        """Names of topics whose partition counts must be equal; the first that exists is followed."""
        topics = Topics(self._settings.kafka.topic_prefix)
        return [[getattr(topics, name) for name in group] for group in (INPUT_ALIGNED, SUMMARY_ALIGNED)]

    def _create_one(self, topic: NewTopic) -> None:
        """A broker's port answers before its controller does: retry what it calls retriable."""
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                self._admin.create_topics([topic], request_timeout=self._timeout_s)[topic.topic].result()
                return
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return
                if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise AccessDenied(
                        f"topic {topic.topic} is not to be seen, and may not be created",
                        "run `driftline topics create` as a user who may, or grant what `driftline acls` prints",
                    ) from None
                if not reason.retriable() or attempt == CREATE_ATTEMPTS:
                    raise Unavailable(
                        f"topic {topic.topic} could not be created: {reason.str()}",
                        "create it with the broker's own tools, then `driftline topics verify`",
                    ) from None
                time.sleep(0.5)

    def _wait_until_known(self, wanted: Mapping[str, int]) -> None:
        """A broker has promised topics and partitions before its metadata show them."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            counts = self.partition_counts()
            missing = sorted(name for name, count in wanted.items() if counts.get(name, 0) < count)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"the broker does not show what was created: {', '.join(missing)}", "try again")
            time.sleep(0.1)

    def verify(self) -> dict[str, int]:
        """Check every topic → partition counts.

        Raises :class:`StateMismatch` with the repairing command for a missing topic, counts that must agree and do not,
        or topics that keep the producer's timestamp.
        """
        counts = self.partition_counts()
        if missing := [s.name for s in self._specs if s.name not in counts]:
            raise StateMismatch(f"topics are missing: {', '.join(missing)}", "run `driftline topics create`")
        for names in self._groups():
            sizes = {name: counts[name] for name in names}
            if len(set(sizes.values())) > 1:
                listed = ", ".join(f"{name} {n}" for name, n in sizes.items())
                raise StateMismatch(
                    f"partition counts must be equal: {listed}",
                    f"run `driftline topics repair` (raises all of them to {max(sizes.values())})",
                )
        self._verify_timestamps()
        return counts

    def _verify_timestamps(self) -> None:
        if self._settings.kafka.accept_create_time:
            return
        topics = Topics(self._settings.kafka.topic_prefix)
        for name in (topics.predictions, topics.outcomes):
            kind = self._describe(name).get("message.timestamp.type")
            if kind is not None and kind != REQUIRED_TIMESTAMP:
                raise StateMismatch(
                    f"topic {name} keeps the producer's timestamp ({kind}), by which retention deletes",
                    f"run `kafka-configs.sh --bootstrap-server {self._settings.kafka.bootstrap} --alter"
                    f" --entity-type topics --entity-name {name}"
                    f" --add-config message.timestamp.type={REQUIRED_TIMESTAMP}`,"
                    " or set kafka.accept_create_time if every producer stamps the present",
                )

    def configurations(self) -> dict[str, dict[str, str]]:
        """The broker's configuration of each of our topics that exists. Raises :class:`Unavailable`."""
        return {name: self._describe(name) for name in self.partition_counts()}

    def _describe(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = self._admin.describe_configs([resource], request_timeout=self._timeout_s)[resource].result()
        except KafkaException as error:
            told = f"the configuration of {topic} cannot be read: {error.args[0].str()}"
            if refusal(error.args[0]):
                raise AccessDenied(told, "grant DescribeConfigs on it: `driftline acls` prints how") from None
            raise Unavailable(told, "") from None
        return {name: entry.value for name, entry in entries.items()}

    def repair(self) -> dict[str, int]:
        """Raise aligned topics to the largest count among them → the counts raised.

        Ids published before keep their partition, so pairs that are split by the change do not meet and expire.
        """
        counts = self.partition_counts()
        raised: dict[str, int] = {}
        for names in self._groups():
            target = max(counts.get(name, 0) for name in names)
            raised |= {name: target for name in names if 0 < counts.get(name, 0) < target}
        for name, count in raised.items():
            try:
                self._admin.create_partitions([NewPartitions(name, count)])[name].result()
            except KafkaException as error:
                raise Unavailable(f"partitions of {name} could not be added: {error.args[0].str()}", "") from None
        self._wait_until_known(raised)
        return raised
