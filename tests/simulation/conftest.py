"""Quiet, and the runs that nothing disturbs: what all others are compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.traffic import long, short
from tests.simulation.verdict import Finished, finished
from tests.simulation.world import World


@pytest.fixture(autouse=True, scope="package")
def quiet() -> Iterator[None]:
    """Thousands of workers start and are fenced here: none of it is news."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="package")
def long_run() -> Finished:
    """The long script, undisturbed."""
    return finished(World(long()))


@pytest.fixture(scope="package")
def wide_run() -> Finished:
    """The long script with two partitions of summaries, undisturbed."""
    return finished(World(long(), monitors=2))


@pytest.fixture(scope="package")
def short_run() -> Finished:
    """The short script, undisturbed."""
    return finished(World(short()))
