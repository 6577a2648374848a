"""Following model events: history, what is skipped, what is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serving.follow import ModelEvents, ModelEventsFollower
from serving.metrics import ServeMetrics
from serving.registry import ModelRegistry
from serving.repository import CorruptVersion, Repository
from streams import codec
from streams.events import ModelEvent, ModelState
from streams.log import Record
from tests.unit.serving import models
from tests.unit.serving.waiting import eventually


class Log:
    """A topic in memory, read as `TopicReader` reads one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._next = 0

    def write(self, value: bytes) -> None:
        self.records.append(Record("model-events", 0, len(self.records), 0, b"loan", value, ()))

    def announce(self, state: ModelState) -> None:
        self.write(codec.encode(ModelEvent("promoted", state)))

    def read_to_end(self, timeout_s: float = 120.0) -> Iterator[Record]:
        yield from self.poll()

    def poll(self, timeout_s: float = 0.01) -> list[Record]:
        found = self.records[self._next :]
        self._next += len(found)
        return found

    def close(self) -> None:
        """Nothing to leave."""


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def registry(repository: Repository) -> ModelRegistry:
    return ModelRegistry(repository, ServeMetrics())


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
def follower(log: Log, registry: ModelRegistry, failures: list[Exception]) -> Iterator[ModelEventsFollower]:
    made = ModelEventsFollower(log, registry, failures.append, retry_s=0.01)
    yield made
    made.stop()


def champion(registry: ModelRegistry) -> int | None:
    served = registry.served("loan")
    return served.champion if served else None


def test_the_highest_revision_of_repository_and_topic_is_served(
    repository: Repository, registry: ModelRegistry, log: Log, follower: ModelEventsFollower
) -> None:
    """Whichever of the two is ahead decides, and the order of the topic does not."""
    first = models.serve_first(repository, "loan", models.binary())
    models.put(repository, "loan", models.binary(flipped=True))
    log.announce(msgspec.structs.replace(first, revision=3, aliases={"champion": "2"}))
    log.announce(first)
    follower.read_history(repository)
    assert champion(registry) == 2


def test_what_is_no_event_is_skipped(log: Log) -> None:
    """Garbage in the topic hides no event."""
    state = ModelState("loan", 1, "binary")
    for value in (b"", b"no", b'{"kind":"promoted"}', b'{"kind":"sold","state":{}}'):
        log.write(value)
    log.announce(state)
    assert ModelEvents().read(log.poll()) == [state]


def test_a_model_of_another_repository_does_not_stop_the_start(
    repository: Repository, registry: ModelRegistry, log: Log, follower: ModelEventsFollower
) -> None:
    """A topic that names a model which is not here: the server starts, and serves the model once it appears."""
    made = models.binary()
    log.announce(models.state("loan", made, 1))
    follower.read_history(repository)
    assert champion(registry) is None
    follower.start()
    models.serve_first(repository, "loan", made)
    eventually(lambda: champion(registry) == 1, "the model is served")


def test_a_corrupt_champion_stops_the_start(repository: Repository, follower: ModelEventsFollower) -> None:
    """At the start there is no older version that could serve."""
    models.serve_first(repository, "loan", models.binary())
    (Path(repository.uri("loan", 1)) / "model.onnx").write_bytes(b"x")
    with pytest.raises(CorruptVersion):
        follower.read_history(repository)


def test_a_promotion_that_fails_is_tried_again(
    repository: Repository,
    registry: ModelRegistry,
    log: Log,
    follower: ModelEventsFollower,
    failures: list[Exception],
) -> None:
    """An event that is ahead of the store: the old version serves until the new one is there."""
    first = models.serve_first(repository, "loan", models.binary())
    follower.read_history(repository)
    follower.start()
    log.announce(msgspec.structs.replace(first, revision=2, aliases={"champion": "2"}))
    log.announce(models.state("other", models.binary(), 1))
    eventually(lambda: not log.records[log._next :], "the events are read")
    assert champion(registry) == 1
    models.put(repository, "loan", models.binary(flipped=True))
    eventually(lambda: champion(registry) == 2, "the promotion is served")
    assert failures == []
