"""A model that is watched by the hour: what its alerts are is in the log, whoever learnt the hours."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from detectors import hourly
from streams.detecting import HoursDetecting
from streams.replay.verify import verify
from tests.simulation.traffic import daily
from tests.simulation.verdict import findings
from tests.simulation.worker import Worker, begin, play
from tests.simulation.world import SETTINGS, TOPICS, World
from tests.support.memory.log import MemoryLog
from tests.support.memory.wire import Wire

HOURLY = SETTINGS.model_copy(update={"monitor": SETTINGS.monitor.model_copy(update={"by_hour": "day"})})
PAUSES = 400


@pytest.fixture(autouse=True)
def few_outcomes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile is believed after two windows, which are two days, and workers have the setting."""
    monkeypatch.setattr(hourly, "LEAST_WINDOWS", 2)
    monkeypatch.setattr("tests.simulation.worker.SETTINGS", HOURLY)


def run(disturb: Callable[[int, World, list[Worker]], None], monitors: int = 1) -> tuple[World, list[Worker]]:
    """Play to the end, with something that may happen after each step."""
    world = World(daily(), monitors)
    workers = [begin(world)]
    for pause in range(PAUSES):
        play(workers, 1)
        if world.is_over and all(each.has_finished_the_act for each in workers):
            return world, workers
        disturb(pause, world, workers)
    raise AssertionError("the run does not end")


def alerts(world: World) -> dict[bytes | None, bytes | None]:
    """Each by its id; one that was published again must be the same."""
    found: dict[bytes | None, bytes | None] = {}
    for each in [each for log in world.broker.topics[TOPICS.alerts] for each in log]:
        assert found.setdefault(dict(each.headers)["ce_id"], each.value) == each.value
    return found


def drifts(world: World) -> list[bytes]:
    """The alerts of a drift."""
    return [value for value in alerts(world).values() if value is not None and b"ConceptDriftDetected" in value]


def hours_of(workers: list[Worker], version: str = "1") -> HoursDetecting:
    """What the monitor knows of the hours of a version of ``fraud``."""
    monitors = [part.monitor for worker in workers for part in worker.monitor.parts.values()]
    [watch] = [each.watches["fraud"] for each in monitors if "fraud" in each.watches]
    found = watch.versions[version].detecting.hours
    assert found is not None
    return found


def nothing(pause: int, world: World, workers: list[Worker]) -> None:
    """Happens."""


def crash(pause: int, world: World, workers: list[Worker]) -> None:
    """Every third step the worker is lost, and another takes over."""
    if pause % 3 == 2:
        workers[:] = [begin(world)]


def share(pause: int, world: World, workers: list[Worker]) -> None:
    """From the second day on the partitions move between two workers."""
    if pause % 4 == 3:
        inputs, summaries = world.everything
        workers[:] = [Worker(world, Wire()) for _ in range(2)]
        workers[0].take(inputs[:1], summaries)
        workers[1].take(inputs[1:], [])


def test_the_hours_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them, the drift is found later, or as another."""
    with_hours, _ = run(nothing)
    monkeypatch.setattr("tests.simulation.worker.SETTINGS", SETTINGS)
    without, _ = run(nothing)
    assert drifts(with_hours) != drifts(without)


def test_crashes_and_rebalances_make_no_difference_to_what_is_known_of_the_hours() -> None:
    """The alerts are the same to the byte, and so are the factors; the drift is found because of them."""
    undisturbed, workers = run(nothing)
    assert findings(undisturbed, workers).violations == []
    told = hours_of(workers)
    assert told.on
    assert told.best < 0.7 < 1.3 < told.worst
    assert drifts(undisturbed)
    second = hours_of(workers, "2")
    assert (second.on, second.cycles, second.foretold) == (False, 0, 0)
    assert (second.best, second.worst) == (told.best, told.worst)
    for disturb in (crash, share):
        world, others = run(disturb)
        assert alerts(world) == alerts(undisturbed)
        for version, known in (("1", told), ("2", second)):
            assert msgspec.json.encode(hours_of(others, version)) == msgspec.json.encode(known)


@pytest.mark.parametrize("disturb", [nothing, crash])
def test_a_replay_learns_the_same_hours(disturb: Callable[[int, World, list[Worker]], None]) -> None:
    """With the settings of the cuts it publishes the same alerts."""
    world, _ = run(disturb)
    report = verify(HOURLY, MemoryLog(world.broker))
    assert (report.differences, report.notes, report.limits) == ([], [], [])
    assert report.identical
    assert report.replayed == len(alerts(world)) > 0
