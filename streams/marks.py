"""Where in the log each of a version's outcomes was: from the number of an outcome to its time and offsets."""

from __future__ import annotations

import bisect

import msgspec

from streams.order import Errors

MARKS = 512
"""Seconds remembered for placing a change point: the newest half all of them, the older ones ever more sparsely."""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """After a second: how many outcomes the version had, and the highest outcome offset of each input partition."""

    count: int
    second: int
    offsets: dict[int, int]


class Marks:
    """From the number of an outcome to its time and place, for the past that still matters."""

    def __init__(self, marks: list[Mark] | None = None) -> None:
        self.marks = marks or []

    def add(self, errors: Errors, before: int) -> None:
        """Remember the seconds of a batch that follows ``before`` outcomes; batches end with a second."""
        seconds, partitions = errors.seconds, errors.partitions
        ends_run = (seconds[1:] != seconds[:-1]) | (partitions[1:] != partitions[:-1])
        offsets = dict(self.marks[-1].offsets) if self.marks else {}
        for index in [*ends_run.nonzero()[0].tolist(), len(errors) - 1]:
            partition = int(partitions[index])
            offsets[partition] = max(offsets.get(partition, -1), int(errors.offsets[index]))
            if index + 1 == len(errors) or seconds[index + 1] != seconds[index]:
                self.marks.append(Mark(before + index + 1, int(seconds[index]), dict(offsets)))
                if len(self.marks) > MARKS:
                    self.marks = self.marks[: MARKS // 2 : 2] + self.marks[MARKS // 2 :]

    def locate(self, number: int) -> tuple[int, dict[int, int]]:
        """(second, input partition → first outcome offset that may be later) of outcome ``number``, from 1."""
        index = min(bisect.bisect_left(self.marks, number, key=lambda mark: mark.count), len(self.marks) - 1)
        return self.marks[index].second, self._from(index)

    def offsets_at(self, second: int) -> dict[int, int]:
        """Input partition → first outcome offset that may be of ``second`` or later."""
        return self._from(
            min(bisect.bisect_left(self.marks, second, key=lambda mark: mark.second), len(self.marks) - 1)
        )

    def _from(self, index: int) -> dict[int, int]:
        earlier = self.marks[index - 1].offsets if index else {}
        return {partition: offset + 1 for partition, offset in sorted(earlier.items())}
