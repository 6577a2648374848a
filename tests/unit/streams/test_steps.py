"""The steps of the worker's timer: when the join and the monitor write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from streams.steps import STEPS, is_idle, take_step


@dataclass
class FakePart:
    """A partition with events of idle inputs that one more look lets join."""

    pending_events: int = 0
    certain_when_idle: int = 0
    accepted: int = 0


@dataclass
class FakeJoin:
    """Notes its checkpoints; an empty fetch makes the waiting events of its partition certain."""

    parts: dict[int, FakePart]
    checkpoints: list[bool] = field(default_factory=list)
    told: set[int] = field(default_factory=set)

    def idle(self, partition: int, side: int, offset: int, began_s: float) -> None:
        self.told.add(partition)

    def advance(self, partition: int) -> None:
        part = self.parts[partition]
        part.pending_events += part.accepted
        part.accepted = 0
        if partition in self.told:
            part.pending_events += part.certain_when_idle
            part.certain_when_idle = 0

    def checkpoint(self, *, always: bool = False) -> None:
        self.checkpoints.append(always)
        for part in self.parts.values():
            part.pending_events = 0


@dataclass
class FakeMonitor:
    """Is due or not; notes its checkpoints."""

    due: bool = False
    checkpoints: int = 0

    def checkpoint(self) -> None:
        self.checkpoints += 1


def interval(join: FakeJoin, monitor: FakeMonitor, steps: Iterable[int] = range(STEPS)) -> None:
    """Take steps as the timer does; every input has been read to its end."""
    for step in steps:
        if not is_idle(step, monitor):
            take_step(step, join, monitor, {(partition, 0): (7, 1.0) for partition in join.parts})


def test_an_interval_without_news_writes_one_checkpoint_and_says_its_silence() -> None:
    """Its cut is the clock of idle inputs; more would be noise."""
    join, monitor = FakeJoin({0: FakePart()}), FakeMonitor()
    interval(join, monitor)
    assert join.checkpoints == [True]
    assert monitor.checkpoints == 1


@pytest.mark.parametrize("step", [2, 3])
def test_what_an_idle_input_lets_join_is_written_before_the_next_cut(step: int) -> None:
    """At the first step at which the broker has said that nothing came before the last one, and only what is new."""
    join, monitor = FakeJoin({0: FakePart(), 1: FakePart(certain_when_idle=3)}), FakeMonitor()
    interval(join, monitor, range(step, STEPS))
    assert join.checkpoints == [False]
    assert join.parts[1].certain_when_idle == 0


def test_events_of_a_busy_input_do_not_double_the_checkpoints() -> None:
    """What came since the last step is joined and waits for its turn: only news of idle inputs is written between."""
    join, monitor = FakeJoin({0: FakePart(pending_events=1_000, accepted=10)}), FakeMonitor()
    interval(join, monitor, [1, 2, 3])
    assert join.checkpoints == []
    assert join.parts[0].pending_events == 1_010


@pytest.mark.parametrize("step", range(1, STEPS))
def test_summaries_are_written_at_the_next_step(step: int) -> None:
    """Whichever step it is, if the monitor is due."""
    join, monitor = FakeJoin({0: FakePart()}), FakeMonitor(due=True)
    interval(join, monitor, [step])
    assert monitor.checkpoints == 1


def test_only_the_first_step_after_the_cut_is_idle_and_only_while_the_monitor_is_not_due() -> None:
    """An idle step takes no lock and no thread."""
    assert [step for step in range(STEPS) if is_idle(step, FakeMonitor())] == [1]
    assert not any(is_idle(step, FakeMonitor(due=True)) for step in range(STEPS))
