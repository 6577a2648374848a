"""A worker that is suspended in any call, loses its partitions and goes on as if nothing had happened does no harm."""

from __future__ import annotations

import pytest

from tests.simulation.case import none_wrong
from tests.simulation.takeover import Takes, abandoned_takeovers, late_records, takeovers
from tests.simulation.verdict import Finished
from tests.support.memory.log import Sending

pytestmark = pytest.mark.timeout(1_800)  # hundreds of runs each, on a machine that may be busy with others


@pytest.mark.parametrize(
    ("steps", "sending"),
    [
        pytest.param(0, "in order", id="wakes at once", marks=pytest.mark.long),
        pytest.param(1, "backwards", id="wakes after a step"),
        pytest.param(None, "at once", id="wakes at the end", marks=pytest.mark.long),
    ],
)
def test_a_suspended_worker_that_was_replaced_changes_nothing(
    steps: int | None, sending: Sending, short_run: Finished
) -> None:
    """Its writes are refused, and what it still publishes does not count, however far its successor has come."""
    none_wrong(takeovers(short_run.world.acts, None, steps, sending, short_run.findings), at_least=200)


@pytest.mark.long
@pytest.mark.parametrize("takes", [([0], []), ([1], []), ([], [0])], ids=["input 0", "input 1", "the monitor"])
def test_a_worker_that_lost_some_partitions_goes_on_with_the_others(takes: Takes, short_run: Finished) -> None:
    """Fenced where another one took over, and nowhere else."""
    none_wrong(takeovers(short_run.world.acts, takes, 1, "in order", short_run.findings), at_least=200)


@pytest.mark.long
def test_a_takeover_that_dies_changes_nothing(short_run: Finished) -> None:
    """The old owner goes on, or is fenced; then the group is made anew."""
    none_wrong(abandoned_takeovers(short_run.world.acts, short_run.findings), at_least=200)


@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 2])
def test_what_a_dead_worker_sent_may_arrive_late(steps: int, short_run: Finished) -> None:
    """Behind the take of its successor it does not count, or says what the successor says."""
    none_wrong(late_records(short_run.world.acts, steps, short_run.findings), at_least=200)
