"""A worker that has waited for its partitions begins where the last owner ended, with all that the last one knew."""

from __future__ import annotations

from tests.simulation.traffic import short
from tests.simulation.verdict import Finished, findings
from tests.simulation.worker import Worker, begin, play
from tests.simulation.world import World
from tests.support.memory.wire import Wire


def test_models_that_became_known_meanwhile_are_known(short_run: Finished) -> None:
    """Their outcomes are joined, not dead-lettered: rows that wait may be of a model registered since it started."""
    world = World(short())
    standby = Worker(world, Wire())
    first = [begin(world)]
    play(first, 1)
    assert first[0].models.catalog.get("price") is not None
    assert standby.models.catalog.get("price") is None
    standby.take(*world.everything)
    play(owners := [standby])
    assert findings(world, owners).differences(short_run.findings) == []
