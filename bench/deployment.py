"""A deployment that is measured again and again: the same inputs, everything else new for each run."""

from __future__ import annotations

import itertools
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bench.workloads import Workload, Writer, model_name
from streams.catalog import guess_task
from streams.codec import encode, headers
from streams.events import MODEL_EVENT_TYPE, ModelEvent, ModelState
from streams.kafka import SafeProducer
from streams.settings import Settings, load
from streams.topics import NAMES, TopicAdmin, Topics
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

INPUTS = ("predictions", "outcomes")
DELETE_S = 30.0
_numbers = itertools.count(1)


class Deployment:
    """A name space on the servers for one workload; its inputs are empty at first.

    :meth:`renew` keeps the inputs and makes everything else new: other topics, the store's keys, the consumer group.
    Models are known before a worker starts: registering one at its first prediction costs a checkpoint and a round trip
    each, once in its life, and would be all that a short run with 200 models measures.
    """

    def __init__(self, kafka: KafkaBroker, store: RedisServer, folder: Path, workload: Workload) -> None:
        self.kafka = kafka
        self.store = store
        self.name = f"bench{next(_numbers)}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self._workload = workload
        self._runs = 0
        self.settings = self._settings()
        self._create()

    def _flags(self) -> dict[str, str]:
        return {
            "kafka.bootstrap": self.kafka.bootstrap,
            "kafka.topic_prefix": f"{self.name}-",
            "redis.url": self.store.url,
            "redis.prefix": f"{self.name}.{self._runs}",
            "worker.group": f"{self.name}.{self._runs}",
            "worker.http": "127.0.0.1:0",
            "repository": str(self.folder / "models"),
            **self._workload.changes,
        }

    def _settings(self) -> Settings:
        return load(environ={}, flags=self._flags())[0]

    @property
    def topics(self) -> Topics:
        """Names of the topics."""
        return Topics(self.settings.kafka.topic_prefix)

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of the command line."""
        return [part for name, value in self._flags().items() for part in ("--set", f"{name}={value}")]

    def renew(self) -> None:
        """Nobody has worked here yet; the inputs are what they were. No worker may run."""
        self._delete([name for name in NAMES if name not in INPUTS])
        self._forget()
        self._runs += 1
        self.settings = self._settings()
        self._create()

    def _create(self) -> None:
        TopicAdmin(self.settings).create()
        producer = SafeProducer(self.settings.kafka)
        try:
            for number in range(self._workload.models):
                event = ModelEvent("registered", ModelState(model_name(number), 0, guess_task(0), mode="observe"))
                kind = headers(MODEL_EVENT_TYPE.format(what="registered"), "driftline/bench")
                producer.send(self.topics.model_events, encode(event), event.state.model.encode(), kind)
        finally:
            producer.close()

    def remove(self) -> None:
        """Take everything away again."""
        self._delete(NAMES)
        self._forget()

    def _delete(self, names: tuple[str, ...] | list[str]) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        wanted = [getattr(self.topics, name) for name in names]
        for name, future in admin.delete_topics(wanted, operation_timeout=DELETE_S).items():
            try:
                future.result()
            except KafkaException as error:
                raise RuntimeError(f"topic {name} of a finished run could not be deleted: {error}") from None

    def _forget(self) -> None:
        with self.store.client() as client:
            for key in client.scan_iter(f"{self.settings.redis.prefix}:*", count=1_000):
                client.unlink(key)


def filled(kafka: KafkaBroker, store: RedisServer, folder: Path, workload: Workload) -> Deployment:
    """A deployment whose inputs hold a workload."""
    made = Deployment(kafka, store, folder, workload)
    Writer(made.settings, workload).write()
    return made
