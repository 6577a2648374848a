"""The scale of the faults, and how each tells its numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.trial import Trial
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

FULL = "FAULTS"
"""`FAULTS=full` (make faults) runs every fault at its full length."""

KILLS, FULL_KILLS = 6, 300

Note = Callable[[object], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each fault is bounded by itself; a hundred kills take longer than a test usually may."""
    for item in items:
        if "tests/faults" in str(item.path):
            item.add_marker(pytest.mark.kafka)
            item.add_marker(pytest.mark.timeout(7_200 if os.environ.get(FULL) == "full" else 1_800))


@pytest.fixture
def full() -> bool:
    """Whether the faults run at their full length."""
    return os.environ.get(FULL) == "full"


@pytest.fixture
def kills(full: bool) -> int:
    """How many workers are killed; `FAULTS_KILLS` says another number."""
    return int(os.environ.get(f"{FULL}_KILLS") or (FULL_KILLS if full else KILLS))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Say a number of this fault on the terminal, at once: some of them run for half an hour."""
    terminal: Any = request.config.pluginmanager.getplugin("terminalreporter")
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")

    def say(what: object) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"\n{time.strftime('%H:%M:%S')} {request.node.name}: {what}")
            terminal.flush()

    return say


@pytest.fixture
def trial(kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path) -> Iterator[Trial]:
    """A deployment on the session's servers."""
    made = Trial(kafka_broker, redis_store, deployment, tmp_path)
    with made.driftline:
        yield made
