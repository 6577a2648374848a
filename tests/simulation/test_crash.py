"""A worker cut off before or after any call to its broker or store leaves nothing that its successor cannot mend."""

from __future__ import annotations

import pytest

from tests.simulation.case import none_wrong
from tests.simulation.crash import crashes, second_crashes
from tests.simulation.verdict import Finished
from tests.simulation.world import World
from tests.support.memory.log import Sending

pytestmark = pytest.mark.timeout(1_800)  # hundreds of runs each, on a machine that may be busy with others

SECOND_CRASHES = 8
"""Different worlds that a second crash leaves: they cover the takeover, and the first checkpoint after it."""


@pytest.mark.long
def test_a_crash_of_two_monitors_changes_nothing(wide_run: Finished) -> None:
    """One of them may have written its checkpoint while the other has not."""
    none_wrong(crashes(World(wide_run.world.acts, monitors=2), "in order", wide_run.findings), at_least=700)


@pytest.mark.parametrize("sending", ["at once", "in order", "backwards"])
def test_a_crash_at_any_call_changes_nothing(sending: Sending, long_run: Finished) -> None:
    """Whichever records of the producer's queue had reached the broker."""
    none_wrong(crashes(World(long_run.world.acts), sending, long_run.findings), at_least=700)


@pytest.mark.long
def test_a_second_crash_during_the_recovery_changes_nothing(short_run: Finished) -> None:
    """Neither in the takeover nor in the first checkpoint after it."""
    world = World(short_run.world.acts)
    none_wrong(second_crashes(world, "backwards", short_run.findings, SECOND_CRASHES), at_least=1_500)
