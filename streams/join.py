"""The join of predictions and outcomes of one partition: a pure state machine over one ordered stream.

The caller feeds *runs*, events of one topic that share a record time, in the order (record time, predictions before
outcomes, offset); :mod:`streams.timeline` makes that order. Effects therefore depend on the log alone, never on how
fetches interleave or where checkpoints fall: whatever is past its time leaves before a run is looked at, oldest first,
and a checkpoint's clock only does the same earlier.

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
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from streams import bulk
from streams.catalog import Catalog, is_classification
from streams.events import ModelState, Outcome, Prediction, Value, milliseconds
from streams.ids import compact_id
from streams.join_rows import (
    MINUTE_MS,
    Dead,
    Effects,
    JoinedRow,
    LabelledPair,
    Pairs,
    PendingRow,
    Ref,
    Side,
    WaitingRow,
)
from streams.records import Correction, Counters, DeadReason, EffectSettings

MAX_REFS = 10_000
"""Models × versions × segments of one partition: a producer that puts an id there must not fill the memory."""
Row = TypeVar("Row", PendingRow | WaitingRow, JoinedRow)


class UnknownModel(Exception):  # a signal to the caller, not an error
    """A prediction names a model that the catalog does not have: register it, then feed the rest of the run."""

    def __init__(self, index: int, event: Prediction) -> None:
        super().__init__(event.model)
        self.index = index
        self.event = event


class PartitionJoin:
    """The join of one partition. Feed it runs in order; take :attr:`effects` at a checkpoint."""

    def __init__(self, settings: EffectSettings) -> None:
        self.settings = settings
        self.pending = Side()
        self.waiting = Side()
        self.joined: OrderedDict[bytes, JoinedRow] = OrderedDict()
        self.expired: OrderedDict[bytes, int] = OrderedDict()
        self.counters = Counters()
        self.refs: list[Ref] = []
        self.refs_index: dict[Ref, int] = {}
        self.refs_cache: dict[bulk.Name, int] = {}
        """``refs_index`` by the names as events spell them (a version may be a number, a segment missing)."""
        self.effects = Effects()
        self.dedupe_cut_short = 0
        self.pending_cut_short = 0

    # ------------------------------------------------------------------------------------------------ predictions

    def predictions(
        self, at_ms: int, events: Sequence[Prediction | None], offsets: Sequence[int], catalog: Catalog, start: int = 0
    ) -> None:
        """Feed a run of predictions from index ``start``; ``None`` stands for one that could not be decoded.

        Raises :class:`UnknownModel` at a prediction of a model that must be registered first; everything before it has
        been taken in, nothing after.
        """
        self.expire(at_ms)
        if start == 0 and None not in events:
            run = cast(Sequence[Prediction], events)
            if bulk.predictions(self, at_ms, run, offsets, catalog):
                return
        for index in range(start, len(events)):
            event = events[index]
            if event is None:
                self._count_dead(0)
                continue
            model = catalog.get(event.model)
            if model is None:
                if catalog.undeclared < self.settings.max_undeclared:
                    raise UnknownModel(index, event)
                self._kill(0, offsets[index], index, "too_many_models", f"model {event.model!r} is not declared")
                continue
            if (problem := _misfit(event.prediction, model)) is not None:
                self._kill(0, offsets[index], index, *problem)
                continue
            self._predict(at_ms, event, offsets[index], index, model)

    def _predict(self, at_ms: int, event: Prediction, offset: int, index: int, model: ModelState) -> None:
        key = compact_id(event.prediction_id)
        known = self.pending.rows.get(key)
        if known is not None:
            self._again(self._model_of(known), event, offset, index)
            return
        pair = self.joined.get(key)
        if pair is not None:
            self._again(self.refs[pair.ref][0], event, offset, index)
            return
        name = (event.model, str(event.version), event.segment or "")
        if not self.has_room_for(name):
            self._kill(0, offset, index, "too_many_segments", f"{MAX_REFS} versions and segments are known already")
            return
        ref = self.intern(name)
        outcome = self.waiting.rows.get(key)
        event_ms = at_ms if event.predicted_at is None else milliseconds(event.predicted_at)
        row = PendingRow(key, offset, at_ms, event_ms, ref, event.prediction, event.score)
        self.counters.predictions += 1
        self._note_prediction(ref, at_ms)
        if isinstance(outcome, WaitingRow):
            if (problem := _contradiction(outcome, event.model, model)) is None:
                self.waiting.pop(key)
                self._pair(at_ms, row, outcome, model)
                return
            self.waiting.pop(key)
            self.counters.dead_outcomes += 1
            self.effects.dead.append(Dead(1, outcome.offset, -1, *problem))
        self.pending.put(row)
        self.keep_to_the_ceiling()

    def keep_to_the_ceiling(self) -> None:
        """Let the oldest predictions expire early when too many wait."""
        while len(self.pending.rows) > self.settings.max_pending:
            oldest = next(iter(self.pending.rows.items()))
            self.pending_cut_short += 1
            self._expire_pending(*oldest)

    def _again(self, known_model: str, event: Prediction, offset: int, index: int) -> None:
        if known_model != event.model:
            self._kill(0, offset, index, "shared_id", f"the id belongs to model {known_model!r}")
            return
        self.counters.predictions += 1
        self.counters.duplicates += 1

    def _note_prediction(self, ref: int, at_ms: int) -> None:
        minutes = self.pairs(ref).predictions
        minute = at_ms // MINUTE_MS
        minutes[minute] = minutes.get(minute, 0) + 1

    # --------------------------------------------------------------------------------------------------- outcomes

    def outcomes(self, at_ms: int, events: Sequence[Outcome | None], offsets: Sequence[int], catalog: Catalog) -> None:
        """Feed a run of outcomes; ``None`` stands for one that could not be decoded."""
        self.expire(at_ms)
        rows: Sequence[int] = range(len(events))
        if None not in events:
            rows = bulk.outcomes(self, at_ms, cast(Sequence[Outcome], events), offsets, catalog)
        for index in rows:
            event = events[index]
            if event is None:
                self._count_dead(1)
            else:
                self._observe(at_ms, event, offsets[index], index, catalog)

    def _observe(self, at_ms: int, event: Outcome, offset: int, index: int, catalog: Catalog) -> None:
        key = compact_id(event.prediction_id)
        event_ms = at_ms if event.observed_at is None else milliseconds(event.observed_at)
        row = WaitingRow(key, offset, at_ms, event_ms, event.outcome, event.model)
        prediction = self.pending.rows.get(key)
        if isinstance(prediction, PendingRow):
            name = self._model_of(prediction)
            model = catalog.get(name)
            problem = None if model is None else _contradiction(row, name, model)
            if model is None or problem is not None:
                self._kill(1, offset, index, *(problem or ("too_many_models", f"model {name!r} is not known")))
                return
            self.counters.outcomes += 1
            self.pending.pop(key)
            self._pair(at_ms, prediction, row, model)
            return
        pair = self.joined.get(key)
        if pair is not None:
            self._correct(at_ms, pair, row, index, catalog)
            return
        if key in self.expired:
            self.counters.outcomes += 1
            self.counters.late += 1
            return
        earlier = self.waiting.rows.get(key)
        if isinstance(earlier, WaitingRow):
            self._correct_unpaired(earlier, row, index)
            return
        self.counters.outcomes += 1
        self.waiting.put(row)
        if len(self.waiting.rows) > self.settings.max_pending:
            self.pending_cut_short += 1
            self._expire_waiting(next(iter(self.waiting.rows)))

    def _correct(self, at_ms: int, pair: JoinedRow, row: WaitingRow, index: int, catalog: Catalog) -> None:
        name = self.refs[pair.ref][0]
        model = catalog.get(name)
        problem = _contradiction(row, name, model) if model is not None else None
        if problem is not None:
            self._kill(1, row.offset, index, *problem)
            return
        self.counters.outcomes += 1
        self.counters.corrections += 1
        if row.value == pair.outcome:
            return  # a retry of the same outcome: nothing to undo
        self.pairs(pair.ref).corrections.append(
            Correction(
                at_ms // 1000,
                pair.at_ms // MINUTE_MS,
                pair.cohort_minute,
                pair.prediction,
                pair.outcome,
                row.value,
            )
        )
        pair.outcome = row.value
        self.effects.corrected.append(pair)
        self.effects.labelled.append(
            LabelledPair(pair.ref, pair.prediction_offset, row.offset, pair.prediction_ms, at_ms, row.value)
        )

    def _correct_unpaired(self, earlier: WaitingRow, row: WaitingRow, index: int) -> None:
        """A second outcome before the prediction: the first stays; a different value goes where a person sees it."""
        if row.value == earlier.value:
            self.counters.outcomes += 1
            self.counters.corrections += 1
            return
        self._kill(1, row.offset, index, "correction_unpaired", "the prediction of the first outcome is not here yet")

    # ------------------------------------------------------------------------------------------------------ pairs

    def _pair(self, at_ms: int, prediction: PendingRow, outcome: WaitingRow, model: ModelState) -> None:
        """``at_ms`` is the later of the two record times: the pair is complete now."""
        self.counters.joined += 1
        pairs = self.pairs(prediction.ref)
        minute, cohort = at_ms // MINUTE_MS, prediction.event_ms // MINUTE_MS
        pairs.seconds.append(at_ms // 1000)
        pairs.offsets.append(outcome.offset)
        if is_classification(model.task):
            pairs.errors.append(prediction.value != outcome.value)
            cell = (minute, cohort, prediction.value, outcome.value)
            pairs.cells[cell] = pairs.cells.get(cell, 0) + 1
        else:
            error = float(prediction.value) - float(outcome.value)
            pairs.errors.append(error)
            pairs.add_moment(minute, cohort, error)
        delay_s = max(0, outcome.event_ms - prediction.event_ms) // 1000
        bucket = delay_s.bit_length()
        pairs.delays[bucket] = pairs.delays.get(bucket, 0) + 1
        joined = JoinedRow(
            prediction.id,
            at_ms,
            prediction.ref,
            prediction.value,
            outcome.value,
            prediction.offset,
            prediction.at_ms,
            cohort,
        )
        self.remember([joined])
        self.effects.labelled.append(
            LabelledPair(
                prediction.ref, prediction.offset, outcome.offset, prediction.at_ms, outcome.at_ms, outcome.value
            )
        )

    def pairs(self, ref: int) -> Pairs:
        """What happened to one (model, version, segment) since the last checkpoint."""
        pairs = self.effects.pairs.get(ref)
        if pairs is None:
            pairs = self.effects.pairs[ref] = Pairs()
        return pairs

    def remember(self, rows: Sequence[JoinedRow]) -> None:
        """Keep pairs for the dedupe window, and no more of them than the settings allow."""
        self.joined.update((row.id, row) for row in rows)
        self.effects.remembered.extend(rows)
        while len(self.joined) > self.settings.dedupe_rows:
            self.joined.popitem(last=False)
            self.dedupe_cut_short += 1

    def has_room_for(self, ref: Ref) -> bool:
        """Whether a model, version and segment is known, or may still become so."""
        return ref in self.refs_index or len(self.refs) < MAX_REFS

    def intern(self, ref: Ref) -> int:
        """The number of a model, version and segment."""
        number = self.refs_index.get(ref)
        if number is None:
            number = self.refs_index[ref] = len(self.refs)
            self.refs.append(ref)
        return number

    def _model_of(self, row: PendingRow | WaitingRow) -> str:
        return self.refs[row.ref][0] if isinstance(row, PendingRow) else row.model or ""

    # ----------------------------------------------------------------------------------------------- the dead, expiry

    def _kill(self, side: int, offset: int, index: int, reason: DeadReason, detail: str) -> None:
        self._count_dead(side)
        self.effects.dead.append(Dead(side, offset, index, reason, detail))

    def _count_dead(self, side: int) -> None:
        if side == 0:
            self.counters.predictions += 1
            self.counters.dead_predictions += 1
        else:
            self.counters.outcomes += 1
            self.counters.dead_outcomes += 1

    def _expire_pending(self, key: bytes, row: PendingRow | WaitingRow) -> None:
        self.pending.pop(key)
        self.counters.expired_predictions += 1
        self.expired.pop(key, None)
        self.expired[key] = row.at_ms
        self.effects.forgotten.append((key, row.at_ms))
        if len(self.expired) > self.settings.dedupe_rows:
            self.expired.popitem(last=False)

    def _expire_waiting(self, key: bytes) -> None:
        self.waiting.pop(key)
        self.counters.expired_outcomes += 1

    def expire(self, clock_ms: int) -> None:
        """Let go of everything whose time is up at ``clock_ms``: no record still to come is earlier than it."""
        oldest = clock_ms - self.settings.horizon_ms
        for row in _older(self.pending.rows, oldest):
            self._expire_pending(row.id, row)
        for row in _older(self.waiting.rows, oldest):
            self._expire_waiting(row.id)
        for pair in _older(self.joined, clock_ms - self.settings.dedupe_ms):
            del self.joined[pair.id]
        limit = oldest - self.settings.dedupe_ms
        while self.expired:
            key, at_ms = next(iter(self.expired.items()))
            if at_ms >= limit:
                break
            del self.expired[key]

    def take_effects(self) -> Effects:
        """The effects since the last call; the caller also takes over ``added`` and ``removed`` of both sides."""
        effects, self.effects = self.effects, Effects()
        return effects


def _older(rows: Mapping[bytes, Row], limit_ms: int) -> list[Row]:
    """Rows are in the order of their times, so only the front is looked at."""
    found = []
    for row in rows.values():
        if row.at_ms >= limit_ms:
            break
        found.append(row)
    return found


Problem = tuple[DeadReason, str]


def _misfit(value: Value, model: ModelState) -> Problem | None:
    """Why ``value`` cannot be a prediction of ``model``."""
    if not is_classification(model.task):
        if isinstance(value, bool | str):
            return "wrong_task", f"{value!r} is not a number, and {model.model} is a regression"
        return None
    if model.classes is not None and value not in model.classes:
        return "unknown_class", f"{value!r} is none of the classes of {model.model}: {model.classes}"
    if isinstance(value, float) and not value.is_integer():
        return "wrong_task", f"{value!r} is a fraction, and {model.model} predicts classes"
    return None


def _contradiction(outcome: WaitingRow, name: str, model: ModelState) -> Problem | None:
    """Why ``outcome`` cannot be the outcome of a prediction of ``model``."""
    if outcome.model is not None and outcome.model != name:
        return "shared_id", f"the outcome is for model {outcome.model!r}, the prediction of this id is of {name!r}"
    return _misfit(outcome.value, model)
