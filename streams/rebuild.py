"""The state of an input partition from the log: where a replay begins, and the replay itself, cut by cut. Pure.

The published cuts say what was read, under which settings, with which model events and up to which clock. A replay
feeds the same records and closes at the same places. What it gives is what was published: that is checked, cut by cut.

It begins where the store is (exact from there), where the partition was empty, or so far before the last cut that no
record from before can matter: two horizons and a dedupe window. Nothing is known of the rows that waited there. Until
all of them are gone, counters and sequences are those of the cuts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from streams import join
from streams.catalog import Catalog
from streams.columns import OUTCOMES, PREDICTIONS
from streams.partition import Batch, Closed, InputPartition
from streams.records import Counters, Cut, EffectSettings, Gap, Take
from streams.timeline import Timeline
from streams.trail import Trail

UNTRUSTED = 16
"""Records at the start of a window that begins in mid-log: a zombie's cut among them could not be told."""
FOREVER_MS = 1 << 62


class Contradiction(Exception):
    """The log does not give what a cut says: begin further back, or give up."""


@dataclass(frozen=True, slots=True)
class Base:
    """Where a replay begins: behind a cut, or where the partition was ``empty`` of rows.

    ``offset`` is the next record of ``checkpoints``; ``sequences`` and ``complete_at_ms`` are as of the cut.
    """

    offset: int
    epoch: int
    number: int
    predictions: int
    outcomes: int
    clock_ms: int
    empty: bool
    counters: Counters = field(default_factory=Counters)
    sequences: dict[str, int] = field(default_factory=dict)
    complete_at_ms: int = 0


Checkpoints = Iterable[tuple[int, Take | Cut | Gap]]
"""Records of one partition of ``checkpoints`` with their offsets, in log order."""


def lookback_ms(settings: EffectSettings) -> int:
    """How far back a record can matter, if no id comes back after it.

    A prediction is remembered for one horizon and dedupe window; its outcome may have come a horizon before it.
    """
    return 2 * settings.horizon_ms + settings.dedupe_ms


def least_lookback_ms(settings: EffectSettings) -> int:
    """The same where no outcome comes before its prediction."""
    return settings.horizon_ms + settings.dedupe_ms


def base_before(records: Checkpoints, limit_ms: int, last: int, low: tuple[int, int], *, whole: bool) -> Base | None:
    """The newest place to begin: empty, or with a clock of at most ``limit_ms``; None if these records have none.

    ``last`` is the sequence of the cut to reach, ``low`` the first offsets that the inputs still hold, and ``whole``
    says that the records are the log from its start.
    """
    found: Base | None = None
    for base in _bases(records, whole=whole):
        reachable = base.predictions >= low[PREDICTIONS] and base.outcomes >= low[OUTCOMES]
        if reachable and base.number < last and (base.empty or base.clock_ms <= limit_ms):
            found = base
    return found


def base_at(records: Checkpoints, number: int, *, whole: bool) -> tuple[Base, Cut] | None:
    """The place behind the cut of a number, and the cut; None if these records do not have it."""
    trail: Trail[Cut] = Trail()
    found: tuple[Base, Cut] | None = None
    for place, (offset, record) in enumerate(records):
        cut = trail.add(offset, record)
        if cut is not None and cut.sequence == number and (whole or place >= UNTRUSTED):
            ends = cut.predictions.end, cut.outcomes.end
            found = Base(offset + 1, trail.epoch, number, *ends, cut.clock_ms, empty=False), cut
        elif trail.last is None:
            found = None  # it was of the numbers before a restart
    return found


def _bases(records: Checkpoints, *, whole: bool) -> Iterable[Base]:
    trail: Trail[Cut] = Trail()
    sequences: dict[str, int] | None = None
    complete_at_ms = 0
    for place, (offset, record) in enumerate(records):
        cut = trail.add(offset, record)
        if cut is None:
            restart = record.restart if isinstance(record, Take) else None
            if restart is not None and trail.restart is restart:
                sequences, complete_at_ms = {}, 0
                ends = restart.predictions, restart.outcomes
                yield Base(offset + 1, trail.epoch, 0, *ends, restart.clock_ms, empty=True)
            continue
        if cut.sequence == 1 and trail.restart is None:
            sequences, complete_at_ms = {}, 0
            starts = cut.predictions.start, cut.outcomes.start
            yield Base(offset, trail.epoch, 0, *starts, 0, empty=True)
        if cut.complete:
            sequences, complete_at_ms = {}, cut.clock_ms
        if sequences is None:
            continue
        sequences.update(cut.models)
        if whole or place >= UNTRUSTED:
            ends = cut.predictions.end, cut.outcomes.end
            counters = msgspec.structs.replace(cut.counters)
            yield Base(
                offset + 1,
                trail.epoch,
                cut.sequence,
                *ends,
                cut.clock_ms,
                empty=counters == Counters(),
                counters=counters,
                sequences=dict(sequences),
                complete_at_ms=complete_at_ms,
            )


class Replay:
    """Brings a partition from a base to the last cut. Feed it every cut that counts, with its records.

    ``exact``: the partition holds the state at the base, rows and all. Otherwise it is fresh, and cuts are compared
    once the one before them is a lookback behind the base, and the last cut always.
    """

    def __init__(self, part: InputPartition, base: Base, last: Cut, *, exact: bool) -> None:
        self.part = part
        self._exact = exact or base.empty
        self._last = last.sequence
        self._counters, self._sequences = base.counters, dict(base.sequences)
        self._clock_ms = base.clock_ms
        self._settled_ms = base.clock_ms + lookback_ms(last.settings)
        self.number = base.number
        if not exact:
            part.processed, part.committed = [base.predictions, base.outcomes], [base.predictions, base.outcomes]
            part.clock_ms, part.complete_at_ms = base.clock_ms, base.complete_at_ms
            part.join.counters = msgspec.structs.replace(base.counters)
            part.sequences = dict(base.sequences)
            part.join.passed = passed_before(base)

    def step(self, cut: Cut, inputs: tuple[Batch, Batch], catalog: Catalog) -> Closed:
        """Take in the records of the next cut and close at it; ``catalog`` is that of the cut's model events.

        Raises :class:`Contradiction` if the cut does not follow the last one, or what comes out is another cut.
        """
        part = self.part
        self._follows(cut)
        compared = self._exact or self._clock_ms >= self._settled_ms or cut.sequence == self._last
        if not self._exact:
            part.join.counters = msgspec.structs.replace(self._counters)
            part.sequences = dict(self._sequences)
        part.join.settings = cut.settings  # a partition that is loaded under other settings goes on under them
        part.owned.number = cut.sequence - 1
        part.position = list(part.processed)
        # A fresh timeline: everything in the cut was certain when it was taken, whatever has been read behind it.
        part.timeline = Timeline((part.done_ms[PREDICTIONS], part.done_ms[OUTCOMES]))
        for side, batch in enumerate(inputs):
            if batch.next_offset > batch.first_offset:
                part.accept(side, batch)
        for side in (PREDICTIONS, OUTCOMES):
            part.timeline.idle(side, FOREVER_MS)
        if unknown := part.advance(catalog):
            raise Contradiction(f"cut {cut.sequence} was taken before model {unknown[0].model!r} was known")
        closed = part.close(catalog, cut.clock_ms)
        if compared and (difference := _difference(closed.cut, cut)):
            raise Contradiction(f"cut {cut.sequence} says {difference}")
        self._note(cut)
        return closed

    def _follows(self, cut: Cut) -> None:
        if cut.sequence != self.number + 1:
            raise Contradiction(f"after cut {self.number} comes cut {cut.sequence}")
        starts = cut.predictions.start, cut.outcomes.start
        if starts != tuple(self.part.processed):
            raise Contradiction(f"cut {cut.sequence} begins at {starts}, the one before it ended elsewhere")

    def _note(self, cut: Cut) -> None:
        self.number, self._clock_ms = cut.sequence, cut.clock_ms
        self._counters = cut.counters
        if cut.complete:
            self._sequences = {}
            self.part.complete_at_ms = cut.clock_ms
        self._sequences.update(cut.models)


def passed_before(base: Base) -> list[int]:
    """Of each input, how many multiples of the ceilings' offsets had been passed; exact if no offset is left out there.

    An input of which nothing has been counted has passed none, wherever its offsets begin.
    """
    read = ((base.counters.predictions, base.predictions), (base.counters.outcomes, base.outcomes))
    return [(next_offset - 1) // join.CEILING_OFFSETS if count else -1 for count, next_offset in read]


def _difference(made: Cut, published: Cut) -> str:
    """Where two cuts differ, the epoch aside: ``pending 3 and not 4``."""
    for name in Cut.__struct_fields__:
        ours, theirs = getattr(made, name), getattr(published, name)
        if name != "epoch" and ours != theirs:
            return f"{name} {theirs}, and the log gives {ours}"
    return ""
