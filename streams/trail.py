"""Which records of a checkpoint topic count: takes, and the cuts that no later take has made void. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

from streams.records import Cut, Gap, MonitorCut, Restart, Take

C = TypeVar("C", Cut, MonitorCut)


class Trail(Generic[C]):
    """The records of one partition of a checkpoint topic, folded in log order.

    A cut of a lower epoch than a record before it does not count (a zombie's), nor one whose sequence was there already
    (a successor's repeat). A take that restarts begins the sequences anew.
    """

    def __init__(self, epoch: int = 0, last: C | None = None) -> None:
        self.epoch = epoch
        self.last: C | None = last
        self.previous: C | None = None
        """The cut that counts before the last one."""
        self.restart: Restart | None = None
        """That of the newest take which restarted."""
        self.next_offset = 0

    @property
    def number(self) -> int:
        """The sequence of the newest cut that counts; 0 for none."""
        return self.last.sequence if self.last is not None else 0

    def add(self, offset: int, record: Take | C | Gap) -> C | None:
        """Take in the record at an offset → the record if it is a cut that counts and is new."""
        self.next_offset = offset + 1
        if isinstance(record, Take):
            self.epoch = max(self.epoch, record.epoch)
            if record.restart is not None and record.epoch == self.epoch:
                self.restart, self.last, self.previous = record.restart, None, None
            return None
        if isinstance(record, Gap) or record.epoch < self.epoch or record.sequence <= self.number:
            return None
        self.epoch = record.epoch
        self.previous, self.last = self.last, record
        return record
