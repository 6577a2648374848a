"""One disturbed run: where it was disturbed, and what is wrong at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.simulation.verdict import Findings, findings
from tests.simulation.worker import Worker, play
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Case:
    """``moments`` are the instants that this run stands for: whoever looks from outside cannot tell them apart."""

    place: str
    moments: int
    problems: list[str]


def tried(
    place: Callable[[], str], moments: int, world: World, run: Callable[[], list[Worker]], expected: Findings
) -> Case:
    """Run to the world's end and judge; an error that a worker ends with is a problem too."""
    try:
        workers = run()
        problems = findings(world, workers).differences(expected)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and where
        problems = [repr(error)]
    return Case(place(), moments, problems)


def played(workers: list[Worker]) -> list[Worker]:
    """Play to the end → the workers that are left."""
    play(workers)
    return workers


def none_wrong(cases: Iterable[Case], at_least: int) -> None:
    """Check that every case is as it should be, and that there were so many moments; tells the first that is not."""
    moments, wrong = 0, []
    for case in cases:
        moments += case.moments
        wrong += [f"{case.place}: {problem}" for problem in case.problems]
    assert not wrong, f"{len(wrong)} problems at {moments} moments, the first: {wrong[0]}"
    assert moments >= at_least
