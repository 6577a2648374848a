"""A store that has lost what it was given: the next owner rebuilds it from the log, and the end is the same."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from streams.metrics import WorkerMetrics
from tests.simulation.verdict import Finished, findings
from tests.simulation.worker import begin, play
from tests.simulation.world import World
from tests.support.memory.redis import MemoryRedis


@pytest.mark.parametrize("steps", [3, 6, 9])
@pytest.mark.parametrize("kept", [None, 2, 5])
def test_what_the_store_has_lost_is_rebuilt(short_run: Finished, steps: int, kept: int | None) -> None:
    """Emptied, or as it was after ``kept`` steps, when the worker of so many more steps ends."""
    world = World(short_run.world.acts)
    workers = [begin(world)]
    older = MemoryRedis()
    if kept is not None:
        play(workers, kept)
        older = world.store.copy()
    play(workers, steps)
    world.store = older
    metrics = WorkerMetrics(CollectorRegistry())
    again = [begin(world, metrics=metrics)]
    rebuilt = {stage: metrics.rebuilds.labels(stage)._value.get() for stage in ("join", "monitor")}
    assert rebuilt["join"] > 0
    assert rebuilt["monitor"] > 0
    play(again)
    assert findings(world, again).differences(short_run.findings) == []
