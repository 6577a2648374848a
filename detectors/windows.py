"""Windows of 1 hour to 30 days over outcomes, from buckets of a minute, an hour and a day.

A window ends exactly at the minute asked for. Its start is exact up to 24 hours; up to 7 days it is rounded down to the
hour, up to 30 days to the day, so that a month needs some dozens of buckets and not 43,200.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from detectors.snapshot import SnapshotError, fields_of, seal
from detectors.tally import Tally

FORMAT = 1
MAX_TOTALS = 16
"""Sums remembered: four windows and those of the rules."""
SPAN_MINUTES: Mapping[str, int] = MappingProxyType({"1h": 60, "24h": 1_440, "7d": 10_080, "30d": 43_200})


@dataclass(frozen=True, slots=True)
class Tier:
    """Buckets of one size. `kept_minutes` leaves an hour or a day over the longest window that starts in them."""

    mark: str
    bucket_minutes: int
    kept_minutes: int
    longest_minutes: int


TIERS = (
    Tier("m", 1, 25 * 60, SPAN_MINUTES["24h"]),
    Tier("h", 60, 8 * 1_440, SPAN_MINUTES["7d"]),
    Tier("d", 1_440, 31 * 1_440, SPAN_MINUTES["30d"]),
)


@dataclass(slots=True)
class Bucket:
    """Counts by (predicted label, outcome), or for a regression the number and the sums of |e|, e² and e."""

    cells: dict[tuple[str, str], int] = field(default_factory=dict)
    n: int = 0
    sum_abs: float = 0.0
    sum_sq: float = 0.0
    sum_err: float = 0.0

    def add(self, other: "Bucket") -> None:
        for cell, count in other.cells.items():
            total = self.cells.get(cell, 0) + count
            if total:
                self.cells[cell] = total
            else:
                self.cells.pop(cell, None)
        self.n += other.n
        self.sum_abs += other.sum_abs
        self.sum_sq += other.sum_sq
        self.sum_err += other.sum_err

    @property
    def empty(self) -> bool:
        return not (self.cells or self.n or self.sum_abs or self.sum_sq or self.sum_err)

    def tally(self) -> Tally:
        # A correction may undo a pair that the window no longer holds: that shows as nothing, never as less.
        confusion = {cell: count for cell, count in sorted(self.cells.items()) if count > 0}
        if self.cells or self.n <= 0:
            return Tally(sum(confusion.values()), confusion)
        return Tally(self.n, {}, self.sum_abs, self.sum_sq, self.sum_err)


@dataclass(frozen=True, slots=True)
class BucketState:
    cells: list[tuple[str, str, int]]
    n: int
    sum_abs: float
    sum_sq: float
    sum_err: float


@dataclass(frozen=True, slots=True)
class Changes:
    """Fields of a hash to write and fields to delete, so that a later `load` of the hash gives the same windows."""

    written: dict[str, bytes]
    dropped: list[str]


class Windows:
    """The outcomes of one model and version by minute. Minutes count from the epoch, in stream time."""

    def __init__(self) -> None:
        self._tiers: list[dict[int, Bucket]] = [{} for _ in TIERS]
        self._latest = -1
        self._dirty: set[tuple[int, int]] = set()
        self._dropped: set[str] = set()
        self._totals: dict[tuple[int, int], Tally] = {}

    @property
    def latest(self) -> int:
        """The newest minute that was added or advanced to; -1 before the first."""
        return self._latest

    @property
    def buckets(self) -> int:
        """How many buckets are kept; behind :meth:`changed` so many are stored."""
        return sum(map(len, self._tiers))

    def add(self, minute: int, cells: Iterable[tuple[str, str, int]]) -> None:
        """Count (predicted label, outcome, n); a negative n undoes what a correction replaces, best in its own minute.

        A minute that a tier no longer keeps is left out of that tier.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for predicted, outcome, n in cells:
            counts[predicted, outcome] += n
        self._add(minute, Bucket(counts))

    def add_regression(self, minute: int, n: int, sum_abs: float, sum_sq: float, sum_err: float) -> None:
        """Count n outcomes with the sums of |e|, e² and e, where e = prediction − outcome; negative n and sums undo."""
        if not all(map(math.isfinite, (sum_abs, sum_sq, sum_err))):
            raise ValueError(f"the sums of errors {sum_abs}, {sum_sq}, {sum_err} are not all finite")
        self._add(minute, Bucket({}, n, sum_abs, sum_sq, sum_err))

    def _add(self, minute: int, added: Bucket) -> None:
        self.advance(minute)
        self._totals = {}
        for index, tier in enumerate(TIERS):
            number = minute // tier.bucket_minutes
            if number < self._first(tier):
                continue
            self._tiers[index].setdefault(number, Bucket()).add(added)
            self._dirty.add((index, number))

    def advance(self, minute: int) -> None:
        """Let go of the buckets that no window ending at `minute` or up to an hour before it needs."""
        if minute < 0:
            raise ValueError(f"minute {minute} is before the epoch")
        if minute <= self._latest:
            return
        self._latest = minute
        self._totals = {}
        for index, tier in enumerate(TIERS):
            first = self._first(tier)
            buckets = self._tiers[index]
            for number in [number for number in buckets if number < first]:
                del buckets[number]
                self._drop(index, number)

    def total(self, end_minute: int, span_minutes: int) -> Tally:
        """What the minutes up to and including `end_minute` hold; later ones have no part in it.

        Summed once for each end and span until something is added: whoever reports every second asks sixty times.
        Raises ValueError for a span over 30 days, and for one that begins before what is kept.
        """
        tier = next((tier for tier in TIERS if span_minutes <= tier.longest_minutes), None)
        if tier is None or span_minutes < 1:
            raise ValueError(f"a window of {span_minutes} minutes is none: give 1 to {TIERS[-1].longest_minutes}")
        exact = end_minute - span_minutes + 1
        if self._latest - tier.kept_minutes >= exact:
            raise ValueError(
                f"the window of {span_minutes} minutes up to {end_minute} begins before what is kept up to minute "
                f"{self._latest}: ask for windows in the order of stream time"
            )
        known = self._totals.get((end_minute, span_minutes))
        if known is not None:
            return known
        minute = exact - exact % tier.bucket_minutes
        sum_ = Bucket()
        while minute <= end_minute:
            index, number, size = self._largest(minute, end_minute)
            bucket = self._tiers[index].get(number)
            if bucket is not None:
                sum_.add(bucket)
            minute += size
        if len(self._totals) >= MAX_TOTALS:
            self._totals = {}
        tally = self._totals[end_minute, span_minutes] = sum_.tally()
        return tally

    def _largest(self, minute: int, end_minute: int) -> tuple[int, int, int]:
        """(tier, number, minutes) of the largest bucket that begins at a minute and does not pass the end."""
        for index in range(len(TIERS) - 1, 0, -1):
            size = TIERS[index].bucket_minutes
            if minute % size == 0 and minute + size - 1 <= end_minute:
                return index, minute // size, size
        return 0, minute, 1

    def changed(self) -> Changes:
        """What became different since the last call or `load`."""
        written = {}
        for index, number in sorted(self._dirty):
            bucket = self._tiers[index][number]
            if bucket.empty:
                del self._tiers[index][number]
                self._dropped.add(_field(index, number))
                continue
            written[_field(index, number)] = seal(
                FORMAT,
                BucketState(
                    [(*cell, count) for cell, count in sorted(bucket.cells.items())],
                    bucket.n,
                    bucket.sum_abs,
                    bucket.sum_sq,
                    bucket.sum_err,
                ),
            )
        dropped = sorted(self._dropped)
        self._dirty.clear()
        self._dropped.clear()
        return Changes(written, dropped)

    def load(self, mapping: Mapping[str, bytes] | Mapping[bytes, bytes]) -> None:
        """Replace everything by the fields of a hash.

        Raises SnapshotError, having changed nothing, if a field is damaged or newer.
        """
        tiers: list[dict[int, Bucket]] = [{} for _ in TIERS]
        latest = -1
        for key, sealed in mapping.items():
            index, number = _parse(key.decode() if isinstance(key, bytes) else key)
            state = fields_of(sealed, FORMAT, BucketState)
            cells = {(predicted, outcome): n for predicted, outcome, n in state.cells}
            tiers[index][number] = Bucket(cells, state.n, state.sum_abs, state.sum_sq, state.sum_err)
            latest = max(latest, number * TIERS[index].bucket_minutes)
        self._tiers, self._latest, self._totals = tiers, latest, {}
        self._dirty, self._dropped = set(), set()

    def _first(self, tier: Tier) -> int:
        """The oldest bucket of a tier that is kept."""
        return (self._latest - tier.kept_minutes + 1) // tier.bucket_minutes

    def _drop(self, index: int, number: int) -> None:
        self._dirty.discard((index, number))
        self._dropped.add(_field(index, number))


def _field(index: int, number: int) -> str:
    return f"{TIERS[index].mark}:{number}"


def _parse(name: str) -> tuple[int, int]:
    marks = {tier.mark: index for index, tier in enumerate(TIERS)}
    mark, _, number = name.partition(":")
    if mark not in marks or not number.isdecimal():
        raise SnapshotError(f"{name!r} names no bucket: expected m:, h: or d: and a number")
    return marks[mark], int(number)
