"""What a worker does at each step of its timer, several of which make one checkpoint interval.

Step 0 writes a checkpoint of everything, silence too: the broker's append time of its cut is what lets the clock of an
idle input move on, once a fetch begun after it has come back empty. That is known 0.25 to 0.6 s later, so what it lets
join is joined and written at one of the later steps, not at the next step 0. Summaries are taken in as they come; the
monitor writes them at the next step, so that those of one checkpoint, which come one after the other, are written
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

STEPS = 4
"""Steps in one checkpoint interval."""
Empty = tuple[int, float]
"""A fetch that found nothing: from which offset on, and when it began (monotonic seconds)."""


class Part(Protocol):
    """An input partition of the join."""

    pending_events: int
    """Events processed since its last checkpoint."""


class Join(Protocol):
    """The join stage, as far as the timer drives it (:class:`streams.joining.JoinStage`)."""

    @property
    def parts(self) -> Mapping[int, Part]:
        """The partitions that are owned."""

    def idle(self, partition: int, side: int, offset: int, began_s: float) -> None:
        """An input has been read to its end."""

    def advance(self, partition: int) -> None:
        """Join what is certain."""

    def checkpoint(self, *, always: bool = False) -> None:
        """Write what is new; ``always`` silence too."""


class Monitor(Protocol):
    """The monitor stage, as far as the timer drives it (:class:`streams.monitoring.MonitorStage`)."""

    @property
    def due(self) -> bool:
        """Whether summaries wait to be written, and the last ones are not too recent."""

    def checkpoint(self) -> None:
        """Write what is new."""


def is_idle(step: int, monitor: Monitor) -> bool:
    """Whether a step has nothing to do at all."""
    return step == 1 and not monitor.due


def take_step(step: int, join: Join, monitor: Monitor, found: Mapping[tuple[int, int], Empty | None]) -> None:
    """Do the work of step 0 to :data:`STEPS` − 1. ``found``: (partition, side) → its newest empty fetch. Blocking."""
    if step != 1:  # too early for a fetch begun after the cut
        for partition in list(join.parts):
            join.advance(partition)  # what has come since the last step waits for step 0 to be written
        before = _processed(join)
        for (partition, side), empty in found.items():
            if empty is not None:
                join.idle(partition, side, *empty)
        for partition in list(join.parts):
            join.advance(partition)
        if step == 0:
            join.checkpoint(always=True)
        elif _processed(join) > before:
            join.checkpoint()
    if step == 0 or monitor.due:
        monitor.checkpoint()


def _processed(join: Join) -> int:
    return sum(part.pending_events for part in join.parts.values())
