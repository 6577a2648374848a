"""A worker cut off before or after any call to its broker or store leaves nothing that its successor cannot mend."""

from __future__ import annotations

import pytest

from tests.simulation.boundaries import Recorder, Survived
from tests.simulation.traffic import long, short
from tests.simulation.verdict import Findings, Finished, findings
from tests.simulation.worker import begin, play
from tests.simulation.world import World
from tests.support.memory.log import Sending
from tests.support.memory.wire import Wire

SENDINGS: list[Sending] = ["at once", "in order", "backwards"]
SECOND_CRASHES = 10
"""Different worlds that a second crash leaves: they cover the takeover, and the first checkpoint after it."""


def record(world: World, sending: Sending, limit: int | None = None) -> Recorder:
    """Play a world to its end, and keep what survives a crash at each moment of it."""
    recorder = Recorder(world, limit)
    play([begin(world, Wire(recorder), sending)])
    return recorder


def problems(survived: Survived, sending: Sending, expected: Findings) -> list[str]:
    """What is wrong after another worker has gone on from there."""
    world = survived.world.copy()
    try:
        workers = [begin(world, sending=sending)]
        play(workers)
    except Exception as error:  # noqa: BLE001 - whatever a worker ends with is told, and where
        return [f"{survived}: {error!r}"]
    return [f"{survived}: {each}" for each in findings(world, workers).differences(expected)]


@pytest.mark.parametrize("sending", SENDINGS)
def test_a_crash_at_any_call_changes_nothing(sending: Sending, long_run: Finished) -> None:
    """Whichever records of the producer's queue had reached the broker."""
    recorder = record(World(long()), sending)
    found = [each for survived in recorder.survived for each in problems(survived, sending, long_run.findings)]
    assert not found, f"{len(found)} of {recorder.moments}, first: {found[0]}"
    assert recorder.moments > 700
    assert len(recorder.survived) > 150


@pytest.mark.parametrize("sending", ["in order", "backwards"])
def test_a_second_crash_during_the_recovery_changes_nothing(sending: Sending, short_run: Finished) -> None:
    """Neither in the takeover nor in the first checkpoints after it."""
    cases, found = 0, []
    for first in record(World(short()), sending).survived:
        for second in record(first.world.copy(), sending, SECOND_CRASHES).survived:
            cases += len(second.moments)
            found += [f"{first}, then {each}" for each in problems(second, sending, short_run.findings)]
    assert not found, f"{len(found)} of {cases}, first: {found[0]}"
    assert cases > 2_000
