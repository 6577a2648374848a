"""Partitions that move between workers all the time change nothing."""

from __future__ import annotations

import random

import pytest

from tests.simulation.verdict import Finished, findings
from tests.simulation.worker import Worker, have_finished_the_act, play
from tests.simulation.world import World
from tests.support.memory.wire import Wire

REBALANCES = 12


def deal(workers: list[Worker], world: World, rng: random.Random) -> None:
    """Give every partition to one of the workers; they take them in any order, some of them nothing."""
    dealt = [[(p, rng.choice(workers)) for p in partitions] for partitions in world.everything]
    for worker in rng.sample(workers, len(workers)):
        worker.take(*([p for p, owner in partitions if owner is worker] for partitions in dealt))


@pytest.mark.parametrize("seed", range(12))
def test_a_storm_of_rebalances_changes_nothing(seed: int, short_run: Finished) -> None:
    """Three workers, an assignment anew every step or two, and each goes on with what the last owner wrote."""
    rng, world = random.Random(seed), World(short_run.world.acts)
    workers = [Worker(world, Wire()) for _ in range(3)]
    for _ in range(REBALANCES):
        deal(workers, world, rng)
        for _ in range(rng.choice([1, 1, 2])):
            if have_finished_the_act(workers) and not world.is_over:
                world.go_on()
            for worker in workers:
                worker.step()
    left = [worker for worker in workers if not worker.is_fenced]
    play(left)
    assert findings(world, left).differences(short_run.findings) == []


@pytest.mark.parametrize("after", range(8))
def test_a_worker_that_takes_its_own_partitions_again_changes_nothing(after: int, short_run: Finished) -> None:
    """A rebalance that moves nothing still makes it an owner anew; what it had read and not written is read again."""
    world = World(short_run.world.acts)
    worker = Worker(world, Wire())
    worker.take(*world.everything)
    for _ in range(after):
        play([worker], 1)
    worker.take(*world.everything)
    play([worker])
    assert findings(world, [worker]).differences(short_run.findings) == []
