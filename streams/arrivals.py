"""What arrived for one model, by minute, until the watermark has passed that minute."""

from __future__ import annotations

from heapq import heappop, heappush

import msgspec

from detectors.baseline import Metric
from detectors.tally import Tally
from streams.catalog import label_text
from streams.events import Value
from streams.records import Summary


class Moments(msgspec.Struct, array_like=True, frozen=True, order=True):
    """Errors of a regression in one record and minute; ``place`` fixes the order in which floats are added.

    ``cohort`` is the minute in which the predictions arrived, or the hour's or day's first; −1 is unknown.
    """

    place: tuple[int, int, int, int, int]
    version: str
    segment: str
    n: int
    sum_abs: float
    sum_sq: float
    sum_err: float
    cohort: int = -1


class Moved(msgspec.Struct, array_like=True, frozen=True):
    """A correction: a pair of ``minute`` counts with another outcome from now on."""

    place: tuple[int, int, int, int, int]
    version: str
    segment: str
    metric: Metric
    minute: int
    prediction: Value
    was: Value
    now: Value
    cohort: int = -1


class Minute(msgspec.Struct, array_like=True):
    """All that the records say of one minute; the same in whatever order they came.

    ``cells`` are by version, segment, predicted label and outcome; ``classes`` are predictions by version and predicted
    label; ``cohorts`` are (outcomes, wrong ones) by version, cohort and predicted label.
    """

    cells: dict[tuple[str, str, str, str], int] = {}
    moments: list[Moments] = []
    corrections: list[Moved] = []
    predictions: dict[str, int] = {}
    classes: dict[tuple[str, str], int] = {}
    cohorts: dict[tuple[str, int, str], tuple[int, int]] = {}

    @property
    def outcomes(self) -> bool:
        """Whether a pair was completed."""
        return bool(self.cells or self.moments)

    def outcomes_of(self, version: str) -> int:
        """How many pairs of a version were completed."""
        cells = sum(n for (of_version, *_), n in self.cells.items() if of_version == version)
        return cells + sum(each.n for each in self.moments if each.version == version)


def combined(one: Tally, other: Tally) -> Tally:
    """The outcomes of both. A correction in one may undo a pair of the other."""
    confusion = dict(one.confusion)
    for cell, n in other.confusion.items():
        confusion[cell] = confusion.get(cell, 0) + n
    confusion = {cell: n for cell, n in confusion.items() if n > 0}
    return Tally(
        sum(confusion.values()) if confusion else one.n + other.n,
        confusion,
        one.sum_abs + other.sum_abs,
        one.sum_sq + other.sum_sq,
        one.sum_err + other.sum_err,
    )


class Arrivals:
    """The minutes of one model that are not over yet."""

    def __init__(self) -> None:
        self.minutes: dict[int, Minute] = {}
        self._order: list[int] = []
        """A heap of their numbers: a catch-up may have thousands open, and asks for the first at each step."""
        self._stored: set[int] = set()
        self._changed: set[int] = set()

    def add(self, summary: Summary) -> None:
        """Count what an admitted record says."""
        record = (summary.partition, summary.sequence, summary.part)
        metric: Metric = "mae" if summary.task == "regression" else "accuracy"
        for index, part in enumerate(summary.versions):
            version, segment = part.version, part.segment
            for minute, cohort, predicted, outcome, n in part.cells:
                held = self._at(minute)
                was, came = label_text(predicted), label_text(outcome)
                cell = (version, segment, was, came)
                held.cells[cell] = held.cells.get(cell, 0) + n
                of = (version, cohort, was)
                labelled, wrong = held.cohorts.get(of, (0, 0))
                held.cohorts[of] = labelled + n, wrong + (n if was != came else 0)
            for number, (minute, cohort, n, sum_abs, sum_sq, sum_err) in enumerate(part.moments):
                moments = Moments((*record, index, number), version, segment, n, sum_abs, sum_sq, sum_err, cohort)
                self._at(minute).moments.append(moments)
            for number, move in enumerate(part.corrections):
                place = (*record, index, number)
                of_pair = version, segment, metric, move.minute, move.prediction, move.was, move.now
                moved = Moved(place, *of_pair, move.cohort_minute)
                self._at(move.second // 60).corrections.append(moved)
            for minute, n in part.predictions.items():
                predictions = self._at(minute).predictions
                predictions[version] = predictions.get(version, 0) + n
            for minute, predicted, n in part.classes:
                classes = self._at(minute).classes
                of_class = (version, label_text(predicted))
                classes[of_class] = classes.get(of_class, 0) + n

    def _at(self, minute: int) -> Minute:
        self._changed.add(minute)
        if (held := self.minutes.get(minute)) is None:
            held = self.minutes[minute] = Minute()
            heappush(self._order, minute)
        return held

    @property
    def first(self) -> int | None:
        """The first minute that waits."""
        return self._order[0] if self._order else None

    def take(self, minute: int) -> list[tuple[int, Minute]]:
        """The minutes up to and including one that is over, oldest first, floats in an order of their own."""
        taken = []
        while self._order and self._order[0] <= minute:
            number = heappop(self._order)
            held = self.minutes.pop(number)
            held.moments.sort()
            held.corrections.sort(key=lambda move: move.place)
            taken.append((number, held))
            self._changed.add(number)
        return taken

    @property
    def versions(self) -> set[str]:
        """The versions that made predictions or got outcomes in them."""
        return {
            version
            for held in self.minutes.values()
            for version in (*held.predictions, *(cell[0] for cell in held.cells), *(m.version for m in held.moments))
        }

    def segments(self, version: str) -> set[str]:
        """The segments of a version in them."""
        cells = {cell[1] for held in self.minutes.values() for cell in held.cells if cell[0] == version}
        return cells | {m.segment for held in self.minutes.values() for m in held.moments if m.version == version}

    def tally(self, version: str, segment: str, first_minute: int) -> Tally:
        """What all of them add to a window that begins with ``first_minute``, of a segment or of all rows ("").

        A correction of a pair that an earlier minute counted makes a count of it negative.
        """
        confusion: dict[tuple[str, str], int] = {}
        moments: list[Moments] = []
        moves = [
            move
            for held in self.minutes.values()
            for move in held.corrections
            if move.version == version and segment in ("", move.segment) and move.minute >= first_minute
        ]
        for held in self.minutes.values():
            for (of_version, of_segment, predicted, outcome), n in held.cells.items():
                if of_version == version and segment in ("", of_segment):
                    confusion[predicted, outcome] = confusion.get((predicted, outcome), 0) + n
            moments.extend(m for m in held.moments if m.version == version and segment in ("", m.segment))
        moments.sort()
        moves.sort(key=lambda move: move.place)
        sums = [sum(m.sum_abs for m in moments), sum(m.sum_sq for m in moments), sum(m.sum_err for m in moments)]
        for move in moves:
            if move.metric == "accuracy":
                predicted = label_text(move.prediction)
                for label, n in ((label_text(move.was), -1), (label_text(move.now), 1)):
                    confusion[predicted, label] = confusion.get((predicted, label), 0) + n
            else:
                was, now = (float(move.prediction) - float(outcome) for outcome in (move.was, move.now))
                for at, change in enumerate((abs(now) - abs(was), now * now - was * was, now - was)):
                    sums[at] += change
        if confusion:
            return Tally(sum(confusion.values()), confusion)
        return Tally(sum(m.n for m in moments), {}, *sums)

    def changed(self) -> tuple[dict[int, bytes], list[int]]:
        """Minutes to store and minutes to delete since the last call."""
        written = {
            minute: msgspec.msgpack.encode(self.minutes[minute]) for minute in self._changed if minute in self.minutes
        }
        dropped = sorted(minute for minute in self._changed & self._stored if minute not in self.minutes)
        self._stored = (self._stored | written.keys()) - set(dropped)
        self._changed = set()
        return written, dropped

    @property
    def stored_minutes(self) -> int:
        """How many minutes are in the store."""
        return len(self._stored)

    def load(self, minute: int, value: bytes) -> None:
        """Take over a stored minute."""
        if minute not in self.minutes:
            heappush(self._order, minute)
        self.minutes[minute] = msgspec.msgpack.decode(value, type=Minute)
        self._stored.add(minute)
