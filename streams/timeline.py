"""The order of one partition's two inputs: by record time, predictions before outcomes, then by offset.

Records wait here until everything that belongs before them has been read. An input's *progress* is the time of its last
record read, or, when it has been read to its end, the time up to which the broker is known to have nothing more.
What is certain is handed over as a :class:`Window`: a stretch of each input, which the join takes in together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streams.columns import Events
from streams.values import Ints

PREDICTIONS, OUTCOMES = 0, 1
WINDOW_ROWS = 16_384
"""Rows of one input in one window, at most: what its columns need should fit the processor's cache."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``start`` to ``end`` of a batch."""

    events: Events
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def end_offset(self) -> int:
        """The position after it: behind its batch too, when it ends there."""
        events = self.events
        return events.end_offset if self.end == len(events) else int(events.offsets[self.end])

    def before(self, at_ms: int) -> Piece | None:
        """The part of it that is earlier than a time, if any."""
        end = min(self.end, int(np.searchsorted(self.events.at_ms, at_ms, side="left")))
        return Piece(self.events, self.start, end) if end > self.start else None


@dataclass(frozen=True, slots=True)
class Window:
    """What comes next of both inputs: every record of one that belongs before the last of the other is in it."""

    sides: tuple[Sequence[Piece], Sequence[Piece]]

    def __bool__(self) -> bool:
        return any(self.sides)


class Timeline:
    """Merges both inputs of a partition. ``done_ms``: the times of the last records processed before."""

    def __init__(self, done_ms: tuple[int, int] = (0, 0)) -> None:
        self._queues: tuple[deque[Events], deque[Events]] = (deque(), deque())
        self._starts = [0, 0]
        """The first row of each queue's head that is not processed."""
        self._read_ms = list(done_ms)
        self._idle_ms = [0, 0]
        self.held = 0

    def in_order(self, side: int, at_ms: Ints) -> Ints:
        """The times of the next records of an input: none falls behind the one before (broker clocks may step back)."""
        return np.maximum.accumulate(np.maximum(at_ms, self._read_ms[side]))

    def add(self, side: int, events: Events) -> None:
        """Queue a batch with at least one record, its times as :meth:`in_order` gave them."""
        self._read_ms[side] = int(events.at_ms[-1])
        self._queues[side].append(events)
        self.held += len(events)

    def stretch(self, side: int, end_offset: int) -> bool:
        """The last batch queued of an input reaches to ``end_offset``: only markers follow it. False if none waits."""
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
        return min(
            int(queue[0].at_ms[self._starts[side]]) if queue else self.progress(side)
            for side, queue in enumerate(self._queues)
        )

    def next(self) -> Window:
        """What is certain, still queued; empty while nothing is. See :meth:`done`."""
        # More predictions of an outcome's millisecond may still be unread, and belong before it.
        predictions, first_prediction = self._before(PREDICTIONS, self.progress(OUTCOMES) + 1)
        outcomes, first_outcome = self._before(OUTCOMES, self.progress(PREDICTIONS))
        if first_prediction is not None:
            outcomes, left_out = self._before(OUTCOMES, min(first_prediction, self.progress(PREDICTIONS)))
            first_outcome = left_out if left_out is not None else first_outcome
        if first_outcome is not None:
            predictions, _ = self._before(PREDICTIONS, min(first_outcome, self.progress(OUTCOMES)) + 1)
        return Window((predictions, outcomes))

    def _before(self, side: int, limit_ms: int) -> tuple[list[Piece], int | None]:
        """(rows of an input earlier than a time, the time of the first earlier one that did not fit any more)."""
        pieces: list[Piece] = []
        room = WINDOW_ROWS
        for events, start in self._waiting(side):
            end = int(np.searchsorted(events.at_ms, limit_ms, side="left"))
            if end <= start:
                break
            if not room:
                return pieces, int(events.at_ms[start])
            taken = min(end, start + room)
            pieces.append(Piece(events, start, taken))
            room -= taken - start
            if taken < end:
                return pieces, int(events.at_ms[taken])
            if end < len(events):
                break
        return pieces, None

    def _waiting(self, side: int) -> Iterator[tuple[Events, int]]:
        for number, events in enumerate(self._queues[side]):
            yield events, 0 if number else self._starts[side]

    def done(self, side: int, rows: int) -> None:
        """The next ``rows`` of an input have been processed."""
        queue = self._queues[side]
        self.held -= rows
        while rows:
            left = len(queue[0]) - self._starts[side]
            if rows < left:
                self._starts[side] += rows
                return
            queue.popleft()
            self._starts[side] = 0
            rows -= left
