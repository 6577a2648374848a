"""What each process must be allowed to do on Kafka and on Redis: printed to be granted, checked before it starts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from streams.credentials import kafka_access
from streams.errors import AccessDenied, Unavailable
from streams.kafka import asked, client_config
from streams.settings import Settings
from streams.topics import NAMES, Topics

Process = Literal["worker", "serve", "retrain", "audit", "topics"]
"""One user may be several of them. ``audit`` only reads (``audit``, ``replay``, ``status``, ``doctor``); ``topics``
makes and mends the topics (``topics create``, ``topics repair``)."""

PROCESSES: tuple[Process, ...] = get_args(Process)
READ, WRITE, SEE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
CONFIGS, CREATE, ALTER = AclOperation.DESCRIBE_CONFIGS, AclOperation.CREATE, AclOperation.ALTER
Operations = tuple[AclOperation, ...]

_SEE_ALL: dict[str, Operations] = dict.fromkeys(NAMES, (CONFIGS, SEE))
"""Whoever verifies the topics must see all: each start looks at the inputs' timestamps, `doctor` at the rest."""

_TOPICS: Mapping[Process, Mapping[str, Operations]] = {
    "worker": {
        "predictions": (READ, CONFIGS),
        "outcomes": (READ, CONFIGS),
        "checkpoints": (READ, WRITE, CONFIGS),
        "labelled": (WRITE, CONFIGS),
        "summaries": (READ, WRITE, CONFIGS),
        "monitor_checkpoints": (READ, WRITE, CONFIGS),
        "alerts": (READ, WRITE, CONFIGS),
        "model_events": (READ, WRITE, CONFIGS),
        "review_requests": (SEE, CONFIGS),
        "dead_letters": (WRITE, CONFIGS),
    },
    "serve": {**_SEE_ALL, "predictions": (WRITE, CONFIGS), "model_events": (READ, CONFIGS)},
    "retrain": {
        **_SEE_ALL,
        "predictions": (READ, CONFIGS),
        "labelled": (READ, CONFIGS),
        "alerts": (READ, CONFIGS),
        "model_events": (READ, WRITE, CONFIGS),
    },
    "audit": {
        **dict.fromkeys(NAMES, (READ, CONFIGS)),
        "review_requests": (SEE, CONFIGS),
    },
    "topics": dict.fromkeys(NAMES, (CREATE, ALTER, CONFIGS, SEE)),
}
_REDIS: Mapping[Process, str] = {
    "worker": "info watch unwatch multi exec hget hmget hgetall hset hsetnx hdel lrange ltrim rpush del scan",
    "serve": "",
    "retrain": "info ping get set del pexpire eval hget hgetall scan",
    "audit": "info hget hgetall scan",
    "topics": "info hset",
}
"""Commands. redis-py sends HELLO and CLIENT SETINFO too, and goes on when the latter is refused."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Operations on one topic or one consumer group."""

    kind: Literal["topic", "group"]
    name: str
    operations: Operations


def grants(settings: Settings, process: Process) -> list[Grant]:
    """What ``process`` needs on Kafka, and nothing more."""
    topics = Topics(settings.kafka.topic_prefix)
    found = [Grant("topic", getattr(topics, name), needed) for name, needed in _TOPICS[process].items()]
    groups = {"worker": settings.worker.group, "retrain": settings.retrain.group}
    if process in groups:
        found.append(Grant("group", groups[process], (READ,)))
    return found


def kafka_commands(settings: Settings, process: Process, user: str) -> list[str]:
    """Commands of Kafka's own tool that grant it to ``user``."""
    together: dict[tuple[str, Operations], list[str]] = {}
    for grant in grants(settings, process):
        together.setdefault((grant.kind, grant.operations), []).append(grant.name)
    return [
        shlex.join(
            [
                *(
                    "kafka-acls.sh",
                    "--bootstrap-server",
                    settings.kafka.bootstrap,
                    "--command-config",
                    "admin.properties",
                ),
                *("--add", "--allow-principal", f"User:{user}"),
                *(part for operation in operations for part in ("--operation", _name(operation))),
                *(part for name in names for part in (f"--{kind}", name)),
            ]
        )
        for (kind, operations), names in together.items()
    ]


def redis_user(settings: Settings, process: Process, user: str) -> str | None:
    """The user of Redis's ACL file that may do it and nothing more; None for a process that needs no store.

    In place of the hash there must be the SHA-256 of the password, in hexadecimal digits.
    """
    commands = _REDIS[process].split()
    if not commands:
        return None
    keys = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in settings.redis.prefix)
    allowed = " ".join(f"+{command}" for command in commands)
    return f"user {user} on #SHA256-OF-THE-PASSWORD resetchannels resetkeys ~{keys}:* -@all {allowed}"


def require(settings: Settings, process: Process) -> None:
    """Raise :class:`AccessDenied` with all that ``process`` lacks on Kafka; blocking.

    Nothing is asked for an anonymous client: it has been given no name that could lack something. What the broker does
    not tell is not held against it.
    """
    if lacking := missing(settings, process):
        raise AccessDenied(
            f"the Kafka user of {process} lacks {', '.join(lacking)}", f"grant what `driftline acls {process}` prints"
        )


def missing(settings: Settings, process: Process) -> list[str]:
    """What ``process`` lacks on Kafka: ``Write on topic labelled``. See :func:`require`."""
    if kafka_access(settings.kafka).anonymous:
        return []
    timeout_s = settings.kafka.request_timeout_s
    admin = AdminClient(client_config(settings.kafka))
    wanted = grants(settings, process)
    try:
        asked(admin, lambda seconds: admin.list_topics(timeout=seconds), timeout_s)
        granted = dict(_granted(admin, wanted, timeout_s))
    except KafkaException as error:
        raise Unavailable(f"the broker does not answer: {error.args[0].str()}", "check kafka.bootstrap") from None
    return [
        f"{_name(operation)} on {grant.kind} {grant.name}"
        for grant in wanted
        for operation in grant.operations
        if (have := granted[grant]) is not None and operation not in have
    ]


def _granted(
    admin: AdminClient, wanted: list[Grant], timeout_s: float
) -> Iterator[tuple[Grant, frozenset[AclOperation] | None]]:
    """What we may do with each; None when the broker does not tell, or there is no such topic yet."""
    topics = [grant for grant in wanted if grant.kind == "topic"]
    groups = [grant for grant in wanted if grant.kind == "group"]
    options = {"include_authorized_operations": True, "request_timeout": timeout_s}
    answers = dict(admin.describe_topics(TopicCollection([grant.name for grant in topics]), **options))
    if groups:
        answers |= admin.describe_consumer_groups([grant.name for grant in groups], **options)
    for grant in (*topics, *groups):
        try:
            told = answers[grant.name].result().authorized_operations
        except KafkaException as error:
            if error.args[0].code() in _HIDDEN:
                yield grant, frozenset()
            elif error.args[0].code() in _ABSENT:
                yield grant, None
            else:
                raise
        else:
            yield grant, frozenset(told) if told else None


_HIDDEN = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNSUPPORTED_VERSION)


def _name(operation: AclOperation) -> str:
    """As Kafka's tool writes it: ``DescribeConfigs``."""
    name: str = operation.name
    return name.title().replace("_", "")
