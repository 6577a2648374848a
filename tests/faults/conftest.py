"""The scale of the faults, and the numbers that each reports at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.trial import Trial
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

FULL = "FAULTS"
"""`FAULTS=full` (make faults) runs every fault at its full length."""
NUMBERS = pytest.StashKey[list[str]]()

Note = Callable[[object], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each fault is bounded by itself; a hundred kills take longer than a test usually may."""
    for item in items:
        if "tests/faults" in str(item.path):
            item.add_marker(pytest.mark.kafka)
            item.add_marker(pytest.mark.timeout(7_200 if os.environ.get(FULL) == "full" else 600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The numbers of each fault, whether it passed or not."""
    for line in config.stash.get(NUMBERS, []):
        terminalreporter.write_line(line)


@pytest.fixture
def full() -> bool:
    """Whether the faults run at their full length."""
    return os.environ.get(FULL) == "full"


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Say a number of this fault in the summary."""

    def say(what: object) -> None:
        request.config.stash.setdefault(NUMBERS, []).append(f"{request.node.name}: {what}")

    return say


@pytest.fixture
def trial(kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path) -> Iterator[Trial]:
    """A deployment on the session's servers."""
    made = Trial(kafka_broker, redis_store, deployment, tmp_path)
    with made.driftline:
        yield made
