"""A call to the store whose connection breaks is made again, and has its effect once."""

from __future__ import annotations

import pytest

from tests.simulation.case import none_wrong
from tests.simulation.connection import broken_connections
from tests.simulation.verdict import Finished

pytestmark = pytest.mark.timeout(1_800)  # hundreds of runs each, on a machine that may be busy with others


@pytest.mark.parametrize("late", [None, 1, *(pytest.param(late, marks=pytest.mark.long) for late in (2, 3, 4))])
def test_a_broken_connection_to_the_store_changes_nothing(late: int | None, short_run: Finished) -> None:
    """The request is lost, its answer is, or it reaches the store so many calls later."""
    none_wrong(broken_connections(short_run.world.acts, late, short_run.findings), at_least=100)
