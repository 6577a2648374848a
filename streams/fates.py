"""What becomes of the rows of a window: told by columns, before anything is changed that cannot be taken back.

New rows are put into the tables, which is how a window's outcomes find its predictions; all else is only told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from native import rows as native
from streams.fit import REGRESSION, ModelsView
from streams.id_index import Written
from streams.records import EffectSettings
from streams.rows import EXPIRED, JOINED, WAITING, PredictionTable, RowTable, States
from streams.stretch import Mask, Stretch
from streams.values import TEXT, Ints

NONE: Ints = np.empty(0, dtype=np.int64)

UNMET, BAD, FIRST, LATE, OVERDUE, KNOWN, MET = range(7)
"""What an outcome is to the prediction of its id: the first one, one that comes when it has expired (only now, if it is
overdue), or one more (the pair is remembered, or is that of an outcome that has waited for a new prediction). Unmet,
there is none that counts; bad, it could not be decoded."""


@dataclass(slots=True)
class Predicted:
    """What becomes of a stretch of predictions. Rows ``start`` … of the table are new and may still be taken back."""

    start: int
    written: Written | None = None
    dead: Ints = field(default_factory=lambda: NONE)
    known: Ints = field(default_factory=lambda: NONE)
    """Predictions of ids that are known already, and the ``owners``, the rows that have them."""
    owners: Ints = field(default_factory=lambda: NONE)
    fresh: Ints = field(default_factory=lambda: NONE)
    """The predictions of the new rows, one a row; some are gone already, repeated within the stretch."""
    replaced: Ints = field(default_factory=lambda: NONE)
    """The older row of each new row's id, or -1."""
    early: Ints = field(default_factory=lambda: NONE)
    """The waiting outcome of each new row's id, or -1."""
    meets: Mask = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """Whether a new row pairs with its early outcome."""
    crowded: Mask = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """Whether an outcome of a new row's id waits, or has waited until just before."""


@dataclass(slots=True)
class Observed:
    """What becomes of a stretch of outcomes: ``paired`` of them are the first of the rows ``partners``."""

    paired: Ints = field(default_factory=lambda: NONE)
    partners: Ints = field(default_factory=lambda: NONE)
    dead: Ints = field(default_factory=lambda: NONE)
    """Outcomes that do not fit the predictions of ``mismatched``."""
    mismatched: Ints = field(default_factory=lambda: NONE)
    late: int = 0
    retries: int = 0
    start: int = 0
    """Rows ``start`` … of the table of outcomes are new: those that begin to wait. They may still be taken back."""
    written: Written | None = None
    shared: bool = False
    """Whether several of them are of one waiting prediction."""
    seconds: Ints = field(default_factory=lambda: NONE)
    """Outcomes of ids that have had one: looked at one by one, in order."""


class Fates:
    """Tells what becomes of predictions, then of outcomes, by what the tables and the models say."""

    def __init__(
        self, settings: EffectSettings, predictions: PredictionTable, outcomes: RowTable, view: ModelsView
    ) -> None:
        self.view = view
        self._settings = settings
        self._predictions = predictions
        self._outcomes = outcomes

    def predict(self, side: Stretch) -> Predicted:
        """What becomes of predictions; the new rows are in the table."""
        table = self._predictions
        told = Predicted(table.end)
        if not len(side):
            return told
        alive = ~side.bad & (side.refs >= 0)
        alive[alive] = self.view.fits(side.kinds[alive], side.numbers[alive], side.refs[alive])
        told.dead = np.flatnonzero(~alive & ~side.bad)
        owners = table.find(side.keys)
        there = alive & (owners >= 0)
        if there.any():
            at = np.flatnonzero(there)
            rows, states = owners[at], table.states[owners[at]]
            waits = (states == WAITING) & (table.rows["at_ms"][rows] >= side.at_ms[at] - self._settings.horizon_ms)
            joined = (states == JOINED) & (table.joined_ms[rows] >= side.at_ms[at] - self._settings.dedupe_ms)
            known = at[waits | joined]
            told.known, told.owners = known, owners[known]
            alive[known] = False
        told.fresh = np.flatnonzero(alive)
        told.replaced = owners[told.fresh]
        told.written = table.append(side.rows(told.fresh))
        self._early(side, told)
        return told

    def _early(self, side: Stretch, told: Predicted) -> None:
        """The outcomes that wait for new predictions, and which of them fit."""
        told.early = np.full(len(told.fresh), -1, dtype=np.int64)
        told.meets = np.zeros(len(told.fresh), dtype=np.bool_)
        told.crowded = told.meets
        if not self._outcomes.waiting or told.written is None:
            return
        found = self._outcomes.find(side.keys[told.fresh])
        found[told.written.repeated] = -1
        told.crowded = (found >= 0) & (self._outcomes.states[found] == WAITING)
        at = np.flatnonzero(told.crowded)
        rows = self._outcomes.rows[found[at]]
        waits = rows["at_ms"] >= side.at_ms[told.fresh[at]] - self._settings.horizon_ms
        at, rows = at[waits], rows[waits]
        told.early[at] = found[at]
        refs = side.refs[told.fresh[at]]
        told.meets[at] = self.view.fits(rows["kind"], rows["number"], refs) & self.view.claimed(rows["ref"], refs)

    def observe(self, side: Stretch, predicted: Predicted) -> Observed | None:
        """What becomes of outcomes; None if that depends on an order that columns do not tell.

        Those that begin to wait are in the table.
        """
        told = Observed(start=self._outcomes.end)
        if not len(side):
            return told
        table = self._predictions
        owners = table.find(side.keys)
        fates, before, early = self._met(side, owners, predicted)
        if early and not self._orders_apart(owners[(owners >= 0) & ~side.bad], owners[before], predicted):
            return None
        at = np.flatnonzero(fates == FIRST)
        second = self._first_ones(side, at, owners[at], told)
        overdue = np.flatnonzero(fates == OVERDUE)
        after = overdue[np.isin(owners[overdue], told.partners)] if len(overdue) else overdue
        told.late = int(np.count_nonzero(fates == LATE)) + len(overdue) - len(after)
        at = np.flatnonzero(fates >= KNOWN)
        told.retries, others = self._repeats(side, at, owners[at], fates[at] == MET)
        if (divided := self._new_waits(side, np.flatnonzero(fates == UNMET))) is None:
            return None
        begin, again = divided
        if len(begin):
            told.written = self._outcomes.append(side.rows(begin))
            again = np.concatenate([again, begin[told.written.repeated]])
        told.seconds = np.sort(np.concatenate([second, after, others, again]))
        return told

    def _met(self, side: Stretch, owners: Ints, predicted: Predicted) -> tuple[States, Mask, int]:
        """(what becomes of each outcome by what its prediction is, which come before it, how many do)."""
        table, settings = self._predictions, self._settings
        if (loops := native.loops()) is not None:
            rows = table.rows, table.states, table.joined_ms
            limits = settings.horizon_ms, settings.dedupe_ms
            return loops.fates(*rows, owners, side.at_ms, side.bad, predicted.start, predicted.meets, *limits)
        fates, before = np.where(side.bad, BAD, UNMET).astype(np.uint8), np.zeros(len(side), dtype=np.bool_)
        at = np.flatnonzero(~side.bad & (owners >= 0))
        found = owners[at]
        states, made_ms, times = table.states[found], table.rows["at_ms"][found], side.at_ms[at]
        oldest_ms = times - settings.horizon_ms
        new, waits, due = found >= predicted.start, states == WAITING, made_ms < oldest_ms
        before[at] = new & (made_ms > times)
        remembered = made_ms >= oldest_ms - settings.dedupe_ms
        told = np.full(len(at), UNMET, dtype=np.uint8)
        told[waits & ~due & (made_ms <= times + settings.horizon_ms)] = FIRST
        told[waits & due & remembered] = OVERDUE
        told[(states == EXPIRED) & remembered] = LATE
        told[(states == JOINED) & (table.joined_ms[found] >= times - settings.dedupe_ms)] = KNOWN
        meets = np.zeros(len(at), dtype=np.bool_)
        meets[new] = predicted.meets[found[new] - predicted.start]
        told[meets] = MET
        fates[at] = told
        return fates, before, int(np.count_nonzero(before))

    def _orders_apart(self, rows: Ints, before: Ints, predicted: Predicted) -> bool:
        """Whether outcomes that come before the new predictions of their ids meet nothing else of these ids.

        ``rows`` are those of all outcomes that have one.
        """
        ahead = np.unique(before)
        if np.count_nonzero(np.isin(rows, ahead)) > len(ahead):
            return False  # another outcome of the id
        new = ahead - predicted.start
        return bool((predicted.replaced[new] < 0).all() and not predicted.crowded[new].any())

    def _first_ones(self, side: Stretch, at: Ints, rows: Ints, told: Observed) -> Ints:
        """Note which outcomes pair with the waiting predictions ``rows`` and which do not fit → the seconds."""
        refs = self._predictions.rows["ref"][rows]
        fits = self.view.fits(side.kinds[at], side.numbers[at], refs) & self.view.claimed(side.refs[at], refs)
        # A model may have become a regression since its prediction was taken in.
        fits &= (self._predictions.rows["kind"][rows] != TEXT) | (self.view.tasks[refs] != REGRESSION)
        told.shared = not self._predictions.first_of(rows).all()
        if not fits.all():
            told.dead, told.mismatched = at[~fits], rows[~fits]
            at, rows = at[fits], rows[fits]
        if not told.shared:
            told.paired, told.partners = at, rows
            return NONE
        first = self._predictions.first_of(rows)
        told.paired, told.partners = at[first], rows[first]
        return at[~first]

    def _repeats(self, side: Stretch, at: Ints, rows: Ints, met: Mask) -> tuple[int, Ints]:
        """(how many outcomes of remembered pairs only say the same again, the others)."""
        if not len(at):
            return 0, NONE
        table = self._predictions
        refs = table.rows["ref"][rows]
        same = self.view.fits(side.kinds[at], side.numbers[at], refs) & self.view.claimed(side.refs[at], refs)
        same &= (table.outcomes[rows] == side.numbers[at]) & ~met
        same &= (table.outcome_kinds[rows] == TEXT) == (side.kinds[at] == TEXT)
        _, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
        same &= counts[inverse] == 1  # or one of several may change what the next is compared with
        return int(np.count_nonzero(same)), at[~same]

    def _new_waits(self, side: Stretch, at: Ints) -> tuple[Ints, Ints] | None:
        """(outcomes that begin to wait, outcomes of ids for which one waits already); None if some id has both."""
        if not len(at) or not self._outcomes.waiting:
            return at, NONE
        rows = self._outcomes.find(side.keys[at])
        waits = rows >= 0
        waits &= self._outcomes.states[rows] == WAITING
        waits &= self._outcomes.rows["at_ms"][rows] >= side.at_ms[at] - self._settings.horizon_ms
        if waits.any() and np.isin(rows[~waits], rows[waits]).any():
            return None
        return at[~waits], at[waits]
