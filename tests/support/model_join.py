"""An oracle of the join: slow, over whole lists, one record at a time in the order of :mod:`streams.timeline`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from streams import join
from streams.events import Label, Outcome, Prediction, Task, Value
from streams.records import Counters, EffectSettings, Summary

MINUTE_MS = 60_000


@dataclass(frozen=True)
class Logged:
    """One record of an input topic; ``event`` is None where the value cannot be decoded."""

    offset: int
    at_ms: int
    event: Prediction | Outcome | None
    value: bytes


@dataclass(frozen=True)
class Declared:
    """What the oracle knows of a model."""

    task: Task
    classes: tuple[Label, ...] | None = None


@dataclass
class Told:
    """Everything that the join said: the same for one log, however it was read."""

    counters: Counters = field(default_factory=Counters)
    pending: int = 0
    waiting: int = 0
    pairs: list[tuple[str, str, str, int, int, float]] = field(default_factory=list)
    cells: Counter[tuple[str, str, str, int, int, Value, Value]] = field(default_factory=Counter)
    moments: dict[tuple[str, str, str, int, int], list[float]] = field(default_factory=dict)
    corrections: list[tuple[str, str, str, int, int, int, Value, Value, Value]] = field(default_factory=list)
    predictions: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    classes: Counter[tuple[str, str, str, int, Value]] = field(default_factory=Counter)
    delays: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    labelled: list[tuple[int, int, int, int, str, str, Value]] = field(default_factory=list)
    dead: list[tuple[int, int, str]] = field(default_factory=list)

    def hear(self, summary: Summary) -> None:
        """Take in what a record of ``summaries`` says."""
        for part in summary.versions:
            ref = (summary.model, part.version, part.segment)
            for second, offset, error in zip(*(column.tolist() for column in part.columns()), strict=True):
                self.pairs.append((*ref, second, offset, error))
            for minute, cohort, predicted, outcome, n in part.cells:
                self.cells[(*ref, minute, cohort, predicted, outcome)] += n
            for minute, cohort, *sums in part.moments:
                known = self.moments.setdefault((*ref, minute, cohort), [0, 0.0, 0.0, 0.0])
                for index, number in enumerate(sums):
                    known[index] += number
            self.corrections += [(*ref, *msgspec.structs.astuple(each)) for each in part.corrections]
            for minute, n in part.predictions.items():
                self.predictions[(*ref, minute)] += n
            for minute, predicted, n in part.classes:
                self.classes[(*ref, minute, predicted)] += n
            for bucket, n in part.delays.items():
                self.delays[(*ref, bucket)] += n

    def sorted(self) -> Told:
        """The same with every list in one order: checkpoints fall between models and parts as they like."""
        for rows in (self.pairs, self.corrections, self.labelled, self.dead):
            rows.sort(key=repr)
        return self


@dataclass
class _Row:
    """A record that waits, or a pair that is remembered."""

    id: str
    at_ms: int
    offset: int
    prediction: Prediction | None = None
    outcome: Outcome | None = None
    prediction_ms: int = 0
    prediction_offset: int = 0


def merged(predictions: Sequence[Logged], outcomes: Sequence[Logged]) -> list[tuple[int, int, Logged]]:
    """(time, side, record) in the order of the join; a time never falls behind that of the record before it."""
    ordered = []
    for side, records in enumerate((predictions, outcomes)):
        latest = 0
        for record in records:
            latest = max(latest, record.at_ms)
            ordered.append((latest, side, record))
    return sorted(ordered, key=lambda entry: (entry[0], entry[1], entry[2].offset))


class Oracle:
    """Feed it a merged log, then the clock."""

    def __init__(self, settings: EffectSettings, models: dict[str, Declared]) -> None:
        self.settings = settings
        self.models = models
        self.told = Told()
        self.pending: list[_Row] = []
        self.waiting: list[_Row] = []
        self.remembered: list[_Row] = []
        self.expired: list[_Row] = []
        self.passed = [-1, -1]

    def run(self, log: Sequence[tuple[int, int, Logged]], clock_ms: int) -> Told:
        """What the whole log says once the clock has reached ``clock_ms``."""
        for at_ms, side, record in log:
            self.feed(at_ms, side, record)
        self.forget(clock_ms)
        self.told.pending, self.told.waiting = len(self.pending), len(self.waiting)
        return self.told.sorted()

    def forget(self, now_ms: int) -> None:
        """Let go of what no record of ``now_ms`` or later can meet."""
        for row in [r for r in self.pending if now_ms - r.at_ms > self.settings.horizon_ms]:
            self.expire_prediction(row)
        for row in [r for r in self.waiting if now_ms - r.at_ms > self.settings.horizon_ms]:
            self.expire_outcome(row)
        self.remembered = [r for r in self.remembered if now_ms - r.at_ms <= self.settings.dedupe_ms]
        reach = self.settings.horizon_ms + self.settings.dedupe_ms
        self.expired = [r for r in self.expired if now_ms - r.at_ms <= reach]

    def expire_prediction(self, row: _Row) -> None:
        self.pending.remove(row)
        self.told.counters.expired_predictions += 1
        self.expired = [r for r in self.expired if r.id != row.id] + [row]

    def expire_outcome(self, row: _Row) -> None:
        self.waiting.remove(row)
        self.told.counters.expired_outcomes += 1

    def keep_to_the_ceilings(self) -> None:
        """The oldest go early where there are too many."""
        for row in self.pending[: max(0, len(self.pending) - self.settings.max_pending)]:
            self.expire_prediction(row)
        for row in self.waiting[: max(0, len(self.waiting) - self.settings.max_pending)]:
            self.expire_outcome(row)
        self.remembered = self._newest(self.remembered)
        self.expired = self._newest(self.expired)

    def feed(self, at_ms: int, side: int, record: Logged) -> None:
        """One record."""
        self.forget(at_ms)
        block = record.offset // join.CEILING_OFFSETS
        if block > self.passed[side]:
            self.passed[side] = block
            self.keep_to_the_ceilings()
        if side == 0:
            self.told.counters.predictions += 1
            assert record.event is None or isinstance(record.event, Prediction)
            reason = "not_json" if record.event is None else self.predict(at_ms, record.offset, record.event)
            self.told.counters.dead_predictions += reason is not None
        else:
            self.told.counters.outcomes += 1
            assert record.event is None or isinstance(record.event, Outcome)
            reason = "not_json" if record.event is None else self.observe(at_ms, record.offset, record.event)
            self.told.counters.dead_outcomes += reason is not None
        if reason is not None:
            self.told.dead.append((side, record.offset, reason))

    def predict(self, at_ms: int, offset: int, event: Prediction) -> str | None:
        """→ why the prediction is dead, or None."""
        if event.model not in self.models:
            return "too_many_models"
        if (problem := self.misfit(event.prediction, event.model)) is not None:
            return problem
        for row in self.pending + self.remembered:
            if row.id == event.prediction_id:
                assert row.prediction is not None
                if row.prediction.model != event.model:
                    return "shared_id"
                self.told.counters.duplicates += 1
                return None
        self.expired = [row for row in self.expired if row.id != event.prediction_id]
        self.told.predictions[(*_ref(event), at_ms // MINUTE_MS)] += 1
        if self.models[event.model].task != "regression":
            self.told.classes[(*_ref(event), at_ms // MINUTE_MS, event.prediction)] += 1
        row = _Row(event.prediction_id, at_ms, offset, prediction=event)
        for early in [r for r in self.waiting if r.id == event.prediction_id]:
            self.waiting.remove(early)
            assert early.outcome is not None
            if (problem := self.contradiction(early.outcome, event.model)) is None:
                self.pair(at_ms, row, early)
                return None
            self.told.counters.dead_outcomes += 1
            self.told.dead.append((1, early.offset, problem))
        self.pending.append(row)
        return None

    def observe(self, at_ms: int, offset: int, event: Outcome) -> str | None:
        """→ why the outcome is dead, or None."""
        new = _Row(event.prediction_id, at_ms, offset, outcome=event)
        for row in self.pending:
            if row.id == event.prediction_id:
                assert row.prediction is not None
                if (problem := self.contradiction(event, row.prediction.model)) is not None:
                    return problem
                self.pending.remove(row)
                self.pair(at_ms, row, new)
                return None
        for row in self.remembered:
            if row.id == event.prediction_id:
                return self.correct(at_ms, row, new)
        if any(row.id == event.prediction_id for row in self.expired):
            self.told.counters.late += 1
            return None
        for row in self.waiting:
            if row.id == event.prediction_id:
                assert row.outcome is not None
                if row.outcome.outcome != event.outcome:
                    return "correction_unpaired"
                self.told.counters.corrections += 1
                return None
        self.waiting.append(new)
        return None

    def pair(self, at_ms: int, predicted: _Row, observed: _Row) -> None:
        """A prediction and its first outcome."""
        assert predicted.prediction is not None
        assert observed.outcome is not None
        prediction, outcome = predicted.prediction, observed.outcome
        ref = _ref(prediction)
        made_ms, seen_ms = _event_ms(prediction.predicted_at, predicted), _event_ms(outcome.observed_at, observed)
        minute, cohort = at_ms // MINUTE_MS, predicted.at_ms // MINUTE_MS
        for kept, larger in ((180, 60), (4 * 1_440, 1_440)):
            cohort -= cohort % larger if minute - cohort >= kept else 0
        self.told.counters.joined += 1
        error: float
        if self.models[prediction.model].task == "regression":
            error = float(prediction.prediction) - float(outcome.outcome)
            sums = self.told.moments.setdefault((*ref, minute, cohort), [0, 0.0, 0.0, 0.0])
            for index, part in enumerate((1, abs(error), error * error, error)):
                sums[index] += part
        else:
            error = float(prediction.prediction != outcome.outcome)
            self.told.cells[(*ref, minute, cohort, prediction.prediction, outcome.outcome)] += 1
        self.told.pairs.append((*ref, at_ms // 1000, observed.offset, error))
        self.told.delays[(*ref, (max(0, seen_ms - made_ms) // 1000).bit_length())] += 1
        self.label(predicted.offset, predicted.at_ms, prediction, observed.offset, observed.at_ms, outcome.outcome)
        remembered = _Row(predicted.id, at_ms, observed.offset, prediction, outcome, predicted.at_ms, predicted.offset)
        self.remembered.append(remembered)

    def correct(self, at_ms: int, pair: _Row, new: _Row) -> str | None:
        """A later outcome of a remembered pair."""
        assert pair.prediction is not None
        assert pair.outcome is not None
        assert new.outcome is not None
        if (problem := self.contradiction(new.outcome, pair.prediction.model)) is not None:
            return problem
        self.told.counters.corrections += 1
        was, now = pair.outcome.outcome, new.outcome.outcome
        if was != now:
            place = (at_ms // 1000, pair.at_ms // MINUTE_MS, pair.prediction_ms // MINUTE_MS)
            self.told.corrections.append((*_ref(pair.prediction), *place, pair.prediction.prediction, was, now))
            self.label(pair.prediction_offset, pair.prediction_ms, pair.prediction, new.offset, at_ms, now)
            pair.outcome = new.outcome
        return None

    def label(
        self, offset: int, at_ms: int, prediction: Prediction, outcome_offset: int, outcome_ms: int, value: Value
    ) -> None:
        version = str(prediction.version)
        self.told.labelled.append((offset, outcome_offset, at_ms, outcome_ms, prediction.model, version, value))

    def contradiction(self, outcome: Outcome, model: str) -> str | None:
        return "shared_id" if outcome.model not in (None, model) else self.misfit(outcome.outcome, model)

    def misfit(self, value: Value, model: str) -> str | None:
        """Why the value is none of the model's."""
        declared = self.models[model]
        if declared.task == "regression":
            return "wrong_task" if isinstance(value, bool | str) else None
        if declared.classes is not None:
            return None if value in declared.classes else "unknown_class"
        return "wrong_task" if isinstance(value, float) and value != int(value) else None

    def _newest(self, rows: list[_Row]) -> list[_Row]:
        return rows[max(0, len(rows) - self.settings.dedupe_rows) :]


def _ref(prediction: Prediction) -> tuple[str, str, str]:
    return prediction.model, str(prediction.version), prediction.segment or ""


def _as_ms(at: object) -> int:
    assert isinstance(at, int)
    return at


def _event_ms(at: object, row: _Row) -> int:
    return row.at_ms if at is None else _as_ms(at)
