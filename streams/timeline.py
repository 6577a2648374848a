"""The order of one partition's two inputs: by record time, predictions before outcomes, then by offset.

Runs wait here until everything that belongs before them has been read. An input's *progress* is the time of its last
record read, or, when it has been read to its end, the time up to which the broker is known to have nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streams.records import DeadReason

Event = TypeVar("Event")
PREDICTIONS, OUTCOMES = 0, 1


@dataclass(slots=True)
class Run(Generic[Event]):
    """Records of one topic with one record time. ``events`` has None where a value could not be decoded (``bad``)."""

    side: int
    at_ms: int
    events: Sequence[Event | None]
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    bad: dict[int, tuple[DeadReason, str]] = field(default_factory=dict)
    start: int = 0
    """Index of the first record not yet processed."""
    end_offset: int = 0
    """The offset after the run (a hole may follow its last record)."""


class Timeline(Generic[Event]):
    """Merges the runs of both inputs of a partition. ``done_ms``: the times of the last records processed before."""

    def __init__(self, done_ms: tuple[int, int] = (0, 0)) -> None:
        self._queues: tuple[deque[Run[Event]], deque[Run[Event]]] = (deque(), deque())
        self._read_ms = list(done_ms)
        self._idle_ms = [0, 0]
        self.held = 0

    def add(self, run: Run[Event]) -> None:
        """Queue a run; its time never falls behind that of the run before it (broker clocks may step back)."""
        run.at_ms = self._read_ms[run.side] = max(run.at_ms, self._read_ms[run.side])
        self._queues[run.side].append(run)
        self.held += len(run.events)

    def stretch(self, side: int, end_offset: int) -> bool:
        """The last run queued of an input reaches to ``end_offset``: only markers follow it. False if none waits."""
        queue = self._queues[side]
        if queue:
            queue[-1].end_offset = end_offset
        return bool(queue)

    def idle(self, side: int, until_ms: int) -> None:
        """The input has been read to its end, and nothing earlier than ``until_ms`` will come."""
        self._idle_ms[side] = max(self._idle_ms[side], until_ms)

    def progress(self, side: int) -> int:
        """Everything of this input that is earlier has been read."""
        return max(self._read_ms[side], self._idle_ms[side])

    @property
    def clock_ms(self) -> int:
        """Everything of both inputs that is earlier has been read and processed; what is queued has not."""
        return min(queue[0].at_ms if queue else self.progress(side) for side, queue in enumerate(self._queues))

    def next(self) -> Run[Event] | None:
        """The next run in order, still queued, or None while its turn is not certain. See :meth:`done`."""
        predictions, outcomes = (queue[0] if queue else None for queue in self._queues)
        if predictions is not None and (outcomes is None or predictions.at_ms <= outcomes.at_ms):
            return predictions if self.progress(OUTCOMES) >= predictions.at_ms else None
        if outcomes is None:
            return None
        # Outcomes come after all predictions of the same time, and more of those may still be unread.
        ahead = predictions is not None or self.progress(PREDICTIONS) > outcomes.at_ms
        return outcomes if ahead else None

    def done(self, run: Run[Event]) -> None:
        """The run that :meth:`next` gave has been processed whole."""
        self._queues[run.side].popleft()
        self.held -= len(run.events)
