"""The join of predictions and outcomes of one partition: a pure state machine over one ordered stream.

The caller feeds *windows*, stretches of both inputs in the order (record time, predictions before outcomes, offset);
:mod:`streams.timeline` makes that order. Effects depend on the log alone, never on how fetches interleave, where
windows end or where checkpoints fall: whether a row still waits or is still remembered follows from the times of the
records, and what the ceilings push out is decided whenever an input passes a multiple of :data:`CEILING_OFFSETS`.

What becomes of an event:

==========  =====================  ================================================================================
prediction  joined                 its outcome waits, or comes within the horizon
            duplicate              the id waits already, or was joined within the dedupe window
            expired                no outcome within the horizon, or pushed out at the ceiling of waiting rows
outcome     joined                 the first one of its prediction
            correction             the pair was joined within the dedupe window, or an outcome of the id waits already
            late                   its prediction expired within the last dedupe window
            expired                no prediction within the horizon
either      dead                   its contents contradict what is known: :data:`streams.records.DeadReason`
==========  =====================  ================================================================================

A window is taken in by columns: find all ids, tell what becomes of every row, then apply it. Rows of different ids do
not meet, so their order among each other does not matter. Where the rows of one id meet within a window in a way that
columns cannot tell, nothing is changed and the window is halved, at worst into runs of one input and one time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from native import rows as native
from streams.catalog import Catalog
from streams.columns import NOBODY, OUTCOMES, PREDICTIONS, Name
from streams.effects import MINUTE_MS, PAIR, Corrected, Dead, Effects
from streams.events import Value
from streams.fates import Fates, Observed, Predicted
from streams.fit import MISSING, NO_ROOM, ModelsView, Problem, contradiction, misfit
from streams.records import Counters, EffectSettings
from streams.rows import (
    EXPIRED,
    GONE,
    JOINED,
    WAITING,
    WHOLE_ROW,
    PredictionTable,
    Rows,
    RowTable,
    chosen,
    one_behind_the_other,
)
from streams.stretch import Mask, Stretch, gather
from streams.timeline import Piece, Window
from streams.values import TEXT, Ints, Places, as_value

CEILING_OFFSETS = 32_768
"""The ceilings are looked at when an input passes a multiple of it; in between they are exceeded by as many rows."""
MAX_REFS = 10_000
"""Models × versions × segments of one partition: a producer that puts an id there must not fill the memory."""
TEXTS_KEPT = 50_000
"""Distinct texts (classes, models that outcomes claim) before those that no row needs are let go."""


class PartitionJoin:
    """The join of one partition. Feed it windows in order; take :attr:`effects` at a checkpoint."""

    def __init__(self, settings: EffectSettings) -> None:
        self.settings = settings
        self.predictions = PredictionTable()
        self.outcomes = RowTable()
        self.remembered: deque[tuple[Ints, Ints]] = deque()
        """The pairs of the dedupe window, oldest first: the predictions' offsets, and when each was complete."""
        self.remembers = 0
        self.counters = Counters()
        self.refs: Places[Name] = Places()
        self.texts: Places[str] = Places()
        self.passed = [-1, -1]
        """Of each input, how many multiples of ``CEILING_OFFSETS`` its records have passed."""
        self.effects = Effects()
        self.dedupe_cut_short = 0
        self.pending_cut_short = 0
        self._fates = Fates(settings, self.predictions, self.outcomes, ModelsView(self.texts))

    # ------------------------------------------------------------------------------------------------------ windows

    def unknown(self, predictions: Sequence[Piece], catalog: Catalog) -> list[int]:
        """The first prediction of each model that must be registered before it is taken in, in order.

        Not of more models than may be known without a declaration.
        """
        room = self.settings.max_undeclared - catalog.undeclared
        if room <= 0:
            return []
        found: dict[str, int] = {}
        before = 0
        for piece in predictions:
            events = piece.events
            models = [name[0] for name in events.named]
            codes = [code for code, model in enumerate(models) if model not in found and catalog.get(model) is None]
            if codes:
                names = events.names[piece.start : piece.end]
                for row in np.flatnonzero(np.isin(names, codes)).tolist():
                    if piece.start + row not in events.bad:
                        found.setdefault(models[names[row]], before + row)
            before += len(piece)
        return sorted(found.values())[:room]

    def take(self, window: Window, catalog: Catalog) -> None:
        """Take in everything of a window."""
        predictions = gather(window.sides[PREDICTIONS], lambda name: self._ref(name, catalog), self.texts)
        outcomes = gather(
            window.sides[OUTCOMES], lambda name: NOBODY if name is None else self.texts.add(name), self.texts
        )
        self._fates.view.update(self.refs.items, catalog)
        for ours, theirs in self._between_ceilings(predictions, outcomes):
            self._take(ours, theirs, catalog)
            self.expire(int(max(side.at_ms[-1] for side in (ours, theirs) if len(side))))

    def _ref(self, name: Name, catalog: Catalog) -> int:
        if catalog.get(name[0]) is None:
            return MISSING
        place = self.refs.find(name)
        if place < 0:
            place = self.refs.add(name) if len(self.refs) < MAX_REFS else NO_ROOM
        return place

    def _take(self, predictions: Stretch, outcomes: Stretch, catalog: Catalog) -> None:
        if self._together(predictions, outcomes, catalog):
            return
        times = np.unique(np.concatenate([predictions.at_ms, outcomes.at_ms]))
        if len(times) == 1:
            self._take(predictions, outcomes.slice(0, 0), catalog)
            self._take(predictions.slice(0, 0), outcomes, catalog)
            return
        middle = times[len(times) // 2]
        split = [int(np.searchsorted(side.at_ms, middle)) for side in (predictions, outcomes)]
        self._take(predictions.slice(0, split[0]), outcomes.slice(0, split[1]), catalog)
        self._take(predictions.slice(split[0], len(predictions)), outcomes.slice(split[1], len(outcomes)), catalog)

    def _together(self, predictions: Stretch, outcomes: Stretch, catalog: Catalog) -> bool:
        """Take in two stretches at once → False, and nothing changed, if the order within them may matter."""
        ends = [side.at_ms[at] for side in (predictions, outcomes) if len(side) for at in (0, -1)]
        if not ends:
            return True
        # Within so short a time nothing of the window itself expires or is forgotten.
        short = int(max(ends) - min(ends)) <= min(self.settings.horizon_ms, self.settings.dedupe_ms)
        self.predictions.reserve(len(predictions))
        self.outcomes.reserve(len(outcomes))
        predicted = self._fates.predict(predictions)
        observed = self._fates.observe(outcomes, predicted)
        again = len(predicted.known) or (predicted.written is not None and len(predicted.written.repeated))
        if observed is None or (not short and (again or observed.shared or len(observed.seconds))):
            if observed is not None and observed.written is not None:
                self.outcomes.undo(observed.start, observed.written)
            if predicted.written is not None:
                self.predictions.undo(predicted.start, predicted.written)
            return False
        self._apply_predicted(predictions, predicted, catalog)
        self._apply_observed(predictions, outcomes, predicted, observed, catalog)
        return True

    # -------------------------------------------------------------------------------------------------- applying it

    def _apply_predicted(self, side: Stretch, told: Predicted, catalog: Catalog) -> None:
        counters, table = self.counters, self.predictions
        counters.predictions += len(side)
        counters.dead_predictions += int(np.count_nonzero(side.bad))
        for index in told.dead.tolist():
            self._kill_prediction(side, index, catalog)
        known, owners = told.known, told.owners
        if told.written is None:
            return
        repeated = told.written.repeated
        if len(repeated):
            again = told.fresh[repeated]
            known, owners = np.concatenate([known, again]), np.concatenate([owners, table.find(side.keys[again])])
        self._apply_known(side, known, owners)
        new = np.ones(len(told.fresh), dtype=np.bool_)
        new[repeated] = False
        fresh = told.fresh if new.all() else told.fresh[new]
        if len(fresh):
            minutes = side.at_ms[fresh] // MINUTE_MS
            self.effects.predicted.append((side.refs[fresh], minutes, side.kinds[fresh], side.numbers[fresh]))
        self._apply_replaced(told.replaced[new & (told.replaced >= 0)])

    def _kill_prediction(self, side: Stretch, index: int, catalog: Catalog) -> None:
        self.counters.dead_predictions += 1
        ref = int(side.refs[index])
        problem: Problem | None
        if ref == MISSING:
            problem = "too_many_models", "its model is not declared, and as many as may be are not"
        elif ref == NO_ROOM:
            problem = "too_many_segments", f"{MAX_REFS} models, versions and segments are known already"
        else:
            model = catalog.get(self.refs.items[ref][0])
            problem = None if model is None else misfit(self._value(side, index), model)
        self._bury(PREDICTIONS, side, index, problem or ("wrong_task", "its value is none of its model's"))

    def _bury(self, number: int, side: Stretch, index: int, problem: Problem) -> None:
        self.effects.dead.append(Dead(number, int(side.offsets[index]), *problem))

    def _apply_known(self, side: Stretch, known: Ints, owners: Ints) -> None:
        """Predictions of ids that other predictions have: duplicates, if they are of the same model."""
        if not len(known):
            return
        theirs = self.predictions.rows["ref"][owners]
        models = self._fates.view.models
        shared = models[side.refs[known]] != models[theirs]
        self.counters.duplicates += int(np.count_nonzero(~shared))
        for index, ref in zip(known[shared].tolist(), theirs[shared].tolist(), strict=True):
            self.counters.dead_predictions += 1
            model = self.refs.items[ref][0]
            self._bury(PREDICTIONS, side, index, ("shared_id", f"the id belongs to model {model!r}"))

    def _apply_replaced(self, rows: Ints) -> None:
        """Older rows whose ids have come back: what had expired is remembered no longer."""
        if not len(rows):
            return
        table = self.predictions
        due = rows[table.states[rows] == WAITING]
        self.counters.expired_predictions += len(due)
        table.leave(due)
        expired = rows[table.states[rows] == EXPIRED]
        table.forget_expired(expired)
        self._remove(PREDICTIONS, table, np.concatenate([due, expired]))

    def _apply_observed(
        self, predictions: Stretch, side: Stretch, predicted: Predicted, told: Observed, catalog: Catalog
    ) -> None:
        counters = self.counters
        self._pair_up(self._early_pairs(predicted, predictions, catalog), self._pairs(side, told.paired, told.partners))
        counters.outcomes += len(side)
        counters.dead_outcomes += int(np.count_nonzero(side.bad))
        for index, row in zip(told.dead.tolist(), told.mismatched.tolist(), strict=True):
            self._kill_outcome(side, index, int(self.predictions.rows["ref"][row]), catalog)
        counters.late += told.late
        counters.corrections += told.retries
        for index in told.seconds.tolist():
            self._second(side, index, catalog)

    def _early_pairs(self, predicted: Predicted, side: Stretch, catalog: Catalog) -> Rows:
        """The pairs of outcomes that waited and new predictions, complete with the prediction; the others are dead."""
        table, waiting = self.predictions, self.outcomes
        new = np.flatnonzero(predicted.early >= 0)
        if not len(new):
            return np.zeros(0, dtype=PAIR)
        rows = predicted.early[new]
        outcomes = chosen(waiting.rows, rows)
        waiting.leave(rows)
        self._remove(OUTCOMES, waiting, rows)
        for index in np.flatnonzero(~predicted.meets[new]).tolist():
            outcome = outcomes[index]
            ref = int(table.rows["ref"][predicted.start + new[index]])
            self.counters.dead_outcomes += 1
            problem = self._contradiction(outcome["kind"], outcome["number"], outcome["ref"], ref, catalog)
            self.effects.dead.append(Dead(OUTCOMES, int(outcome["offset"]), *problem, at_hand=False))
        fits = predicted.meets[new]
        outcomes, partners = outcomes[fits], predicted.start + new[fits]
        pairs = self._with_predictions(partners)
        pairs["outcome_offset"], pairs["outcome_at_ms"] = outcomes["offset"], outcomes["at_ms"]
        pairs["outcome_event_ms"], pairs["outcome"] = outcomes["event_ms"], outcomes["number"]
        pairs["outcome_kind"], pairs["joined_ms"] = outcomes["kind"], pairs["at_ms"]
        self._joined(pairs, partners)
        return pairs

    def _pairs(self, side: Stretch, at: Ints, partners: Ints) -> Rows:
        """The pairs of outcomes of a stretch, complete with the later of the two."""
        if (loops := native.loops()) is not None:
            pairs = np.empty(len(at), dtype=PAIR)
            columns = side.offsets, side.at_ms, side.event_ms, side.numbers, side.kinds
            loops.pairs(pairs, self.predictions.rows, partners, at, *columns)
        else:
            pairs = self._with_predictions(partners)
            pairs["outcome_offset"], pairs["outcome_at_ms"] = side.offsets[at], side.at_ms[at]
            pairs["outcome_event_ms"], pairs["outcome"] = side.event_ms[at], side.numbers[at]
            pairs["outcome_kind"] = side.kinds[at]
            pairs["joined_ms"] = np.maximum(pairs["at_ms"], pairs["outcome_at_ms"])
        self._joined(pairs, partners)
        return pairs

    def _with_predictions(self, partners: Ints) -> Rows:
        pairs = np.zeros(len(partners), dtype=PAIR)
        pairs["row"] = self.predictions.rows.view(WHOLE_ROW)[partners]
        return pairs

    def _joined(self, pairs: Rows, partners: Ints) -> None:
        if len(partners):
            self._remove(PREDICTIONS, self.predictions, partners)
            self.predictions.pair(partners, pairs)

    def _pair_up(self, early: Rows, later: Rows) -> None:
        """Note pairs in the order in which they became complete."""
        pairs = later if not len(early) else one_behind_the_other([early, later], PAIR)
        if not len(pairs):
            return
        by_prediction = pairs["joined_ms"] > pairs["outcome_at_ms"]
        by_prediction[: len(early)] = True
        if by_prediction.any():
            last = np.where(by_prediction, pairs["offset"], pairs["outcome_offset"])
            pairs = chosen(pairs, np.lexsort((last, ~by_prediction, pairs["joined_ms"])))
        self.counters.joined += len(pairs)
        self.effects.pairs.append(pairs)
        self.remembered.append((pairs["offset"].copy(), pairs["joined_ms"].copy()))
        self.remembers += len(pairs)

    def _kill_outcome(self, side: Stretch, index: int, ref: int, catalog: Catalog) -> None:
        self.counters.dead_outcomes += 1
        problem = self._contradiction(side.kinds[index], side.numbers[index], side.refs[index], ref, catalog)
        self._bury(OUTCOMES, side, index, problem)

    def _second(self, side: Stretch, index: int, catalog: Catalog) -> None:
        """An outcome of an id that has one already: of a remembered pair, or one that waits."""
        at, table = int(side.at_ms[index]), self.predictions
        (row,) = table.find(side.keys[index : index + 1]).tolist()
        value = self._value(side, index)
        if row >= 0 and table.states[row] == JOINED and table.joined_ms[row] >= at - self.settings.dedupe_ms:
            self._correct(side, index, row, catalog)
            return
        (row,) = self.outcomes.find(side.keys[index : index + 1]).tolist()
        if row < 0 or self.outcomes.states[row] != WAITING:
            raise LookupError(
                f"the outcome at offset {int(side.offsets[index])} comes second, and no first one is there"
            )
        first = self.outcomes.rows[row]
        if as_value(int(first["kind"]), float(first["number"]), self.texts.items) == value:
            self.counters.corrections += 1
            return
        self.counters.dead_outcomes += 1
        detail = "the prediction of the first outcome is not here yet"
        self._bury(OUTCOMES, side, index, ("correction_unpaired", detail))

    def _correct(self, side: Stretch, index: int, row: int, catalog: Catalog) -> None:
        table, texts = self.predictions, self.texts.items
        made = table.rows[row]
        ref = int(made["ref"])
        now = self._value(side, index)
        model = catalog.get(self.refs.items[ref][0])
        claim = int(side.refs[index])
        if model is not None:
            problem = contradiction(now, None if claim == NOBODY else texts[claim], model)
            if problem is not None:
                self.counters.dead_outcomes += 1
                self._bury(OUTCOMES, side, index, problem)
                return
        self.counters.corrections += 1
        was = as_value(int(table.outcome_kinds[row]), float(table.outcomes[row]), texts)
        if was == now:
            return  # a retry of the same outcome: nothing to undo
        table.outcomes[row], table.outcome_kinds[row] = side.numbers[index], side.kinds[index]
        self.effects.corrected.append(
            Corrected(
                ref,
                int(side.at_ms[index]),
                int(side.offsets[index]),
                int(table.joined_ms[row]),
                int(made["event_ms"]),
                int(made["offset"]),
                int(made["at_ms"]),
                as_value(int(made["kind"]), float(made["number"]), texts),
                was,
                now,
            )
        )

    # ---------------------------------------------------------------------------------------------- letting rows go

    def expire(self, clock_ms: int) -> None:
        """Let go of everything whose time is up at ``clock_ms``: no record still to come is earlier than it."""
        table, settings = self.predictions, self.settings
        oldest = clock_ms - settings.horizon_ms
        self._expire_predictions(table.due(oldest))
        self._expire_outcomes(self.outcomes.due(oldest))
        while self.remembered and self.remembered[0][1][0] < clock_ms - settings.dedupe_ms:
            times = self.remembered[0][1]
            self._forget(int(np.searchsorted(times, clock_ms - settings.dedupe_ms)))
        table.forget_expired(table.expired_before(oldest - settings.dedupe_ms))

    def _expire_predictions(self, rows: Ints) -> None:
        if len(rows):
            self.counters.expired_predictions += len(rows)
            self.predictions.expire(rows)
            self.effects.expired.append(self.predictions.rows["offset"][rows])

    def _expire_outcomes(self, rows: Ints) -> None:
        if len(rows):
            self.counters.expired_outcomes += len(rows)
            self.outcomes.leave(rows)
            self._remove(OUTCOMES, self.outcomes, rows)

    def _forget(self, count: int) -> None:
        """The ``count`` oldest pairs are remembered no longer; all of them are in the first chunk."""
        offsets, times = self.remembered.popleft()
        if count < len(offsets):
            self.remembered.appendleft((offsets[count:], times[count:]))
        self.remembers -= min(count, len(offsets))
        # Sorted, since what is next to each other is found sooner.
        self.predictions.states[self.predictions.at(np.sort(offsets[:count]))] = GONE

    def _between_ceilings(self, predictions: Stretch, outcomes: Stretch) -> Iterator[tuple[Stretch, Stretch]]:
        """The parts of a window between which the ceilings are looked at."""
        sides = (predictions, outcomes)
        blocks = [side.offsets // CEILING_OFFSETS for side in sides]
        done = [0, 0]
        while done[0] < len(predictions) or done[1] < len(outcomes):
            ends, passing = [len(side) for side in sides], -1
            first = [int(np.searchsorted(blocks[at], self.passed[at], side="right")) for at in (0, 1)]
            times = [int(side.at_ms[at]) if at < len(side) else None for side, at in zip(sides, first, strict=True)]
            ours, theirs = times
            if ours is not None and (theirs is None or ours <= theirs):
                passing = PREDICTIONS
                ends = [first[0], int(np.searchsorted(outcomes.at_ms, ours, side="left"))]
            elif theirs is not None:
                passing = OUTCOMES
                ends = [int(np.searchsorted(predictions.at_ms, theirs, side="right")), first[1]]
            ends = [max(end, begun) for end, begun in zip(ends, done, strict=True)]
            if ends != done:
                yield predictions.slice(done[0], ends[0]), outcomes.slice(done[1], ends[1])
            done = ends
            if passing >= 0:
                at = first[passing]
                self.passed[passing] = int(blocks[passing][at])
                self._keep_to_the_ceilings(int(sides[passing].at_ms[at]))

    def _keep_to_the_ceilings(self, at_ms: int) -> None:
        """Let the oldest rows go early where there are too many."""
        self.expire(at_ms)
        settings, table = self.settings, self.predictions
        if (over := table.waiting - settings.max_pending) > 0:
            self.pending_cut_short += over
            self._expire_predictions(table.oldest(over))
        if (over := self.outcomes.waiting - settings.max_pending) > 0:
            self.pending_cut_short += over
            self._expire_outcomes(self.outcomes.oldest(over))
        while (over := self.remembers - settings.dedupe_rows) > 0:
            over = min(over, len(self.remembered[0][0]))
            self.dedupe_cut_short += over
            self._forget(over)
        if (over := table.expired - settings.dedupe_rows) > 0:
            table.forget_expired(table.oldest_expired(over))

    def _remove(self, side: int, table: RowTable, rows: Ints) -> None:
        """Rows that the store has are there no longer."""
        stored = rows[rows < table.stored]
        if len(stored):
            self.effects.removed[side].append(table.rows["offset"][stored])

    # ---------------------------------------------------------------------------------------------------- in words

    def _value(self, side: Stretch, index: int) -> Value:
        return as_value(int(side.kinds[index]), float(side.numbers[index]), self.texts.items)

    def _contradiction(self, kind: int, number: float, claim: int, ref: int, catalog: Catalog) -> Problem:
        name, texts = self.refs.items[ref][0], self.texts.items
        model = catalog.get(name)
        if model is None:
            return "too_many_models", f"model {name!r} is not known"
        value = as_value(int(kind), float(number), texts)
        found = contradiction(value, None if claim == NOBODY else texts[claim], model)
        return found or ("wrong_task", f"{name} is a regression now, and the prediction of this id is no number")

    def tidy(self) -> None:
        """Let go of texts that no row needs. Only between checkpoints: effects name texts by their places."""
        if len(self.texts) <= TEXTS_KEPT:
            return
        kept: Places[str] = Places()
        table, waiting = self.predictions, self.outcomes
        columns: list[tuple[Mask, Any]] = [
            (each.rows["kind"][: each.end] == TEXT, each.rows["number"][: each.end]) for each in (table, waiting)
        ]
        columns.append((table.outcome_kinds[: table.end] == TEXT, table.outcomes[: table.end]))
        claims = waiting.rows["ref"][: waiting.end]
        columns.append((claims != NOBODY, claims))
        for rows, column in columns:
            places, at = np.unique(column[rows].astype(np.int64), return_inverse=True)
            codes = np.array([kept.add(self.texts.items[place]) for place in places.tolist()], dtype=column.dtype)
            column[rows] = codes[at]
        self.texts = kept
        self._fates.view = ModelsView(kept)

    def take_effects(self) -> Effects:
        """The effects since the last call."""
        effects, self.effects = self.effects, Effects()
        return effects
