"""Playing a labelled table as a live stream: a prediction for each row, and its outcome some rows or seconds later."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import msgspec

from serving.client import Answer, Refused, ServeClient, ServedModel
from serving.publisher import Sender
from serving.table import Row
from streams import codec
from streams.events import OUTCOME_TYPE, PREDICTION_TYPE, FullPrediction, Label, Outcome, Value, rfc3339

IDLE_S = 0.05
"""The longest sleep, so that an outcome that is due and a stop are never far away."""
SOURCE = "/driftline/publish"


class Oracle(Protocol):
    """Where predictions come from."""

    def ask(self, rows: Sequence[Row], ids: Sequence[str]) -> list[Answer]:
        """The model's answers, published by whoever gives them. Raises :class:`serving.client.Refused`."""


class ServeOracle:
    """Asks ``driftline serve``, which publishes what it answers."""

    def __init__(self, client: ServeClient, model: ServedModel) -> None:
        self._client = client
        self._model = model

    def ask(self, rows: Sequence[Row], ids: Sequence[str]) -> list[Answer]:
        return self._client.ask(self._model, [row.features for row in rows], ids)


class ColumnOracle:
    """Takes the predictions that the table has, and publishes them."""

    def __init__(self, sender: Sender, topic: str, model: str, version: str) -> None:
        self._sender = sender
        self._topic = topic
        self._model = model
        self._version = version

    def ask(self, rows: Sequence[Row], ids: Sequence[str]) -> list[Answer]:
        answers = []
        for row, prediction_id in zip(rows, ids, strict=True):
            if row.prediction is None:
                raise Refused(f"row {row.number} has no prediction")
            at_ms = time.time_ns() // 1_000_000
            event = FullPrediction(
                prediction_id=prediction_id,
                model=self._model,
                version=self._version,
                prediction=row.prediction,
                predicted_at=at_ms,
                score=row.score,
                features=row.features,
            )
            _send(self._sender, self._topic, PREDICTION_TYPE, event, prediction_id, at_ms)
            answers.append(Answer(prediction_id, row.prediction, row.score, self._version))
        return answers


class OutcomePublisher:
    """Publishes outcomes. ``classes`` give a label the type that the model uses: a CSV's 1 is the class "1"."""

    def __init__(self, sender: Sender, topic: str, model: str, classes: Sequence[Label] = ()) -> None:
        self._sender = sender
        self._topic = topic
        self._model = model
        self._by_value: dict[Value, Label] = {label: label for label in classes}
        self._by_text = {str(label): label for label in classes}

    def as_class(self, label: Value) -> Value:
        """The class that a table's label means; a label that is no class stays what it is."""
        return self._by_value.get(label, self._by_text.get(str(label), label))

    def publish(self, prediction_id: str, outcome: Value) -> None:
        """Queue one outcome. Raises :class:`streams.errors.RestartMe` once a delivery has failed."""
        at_ms = time.time_ns() // 1_000_000
        event = Outcome(prediction_id, outcome, observed_at=at_ms, model=self._model, source="system")
        _send(self._sender, self._topic, OUTCOME_TYPE, event, prediction_id, at_ms)


def _send(sender: Sender, topic: str, kind: str, event: msgspec.Struct, prediction_id: str, at_ms: int) -> None:
    headers = codec.headers(kind, SOURCE, extra={"ce_time": rfc3339(at_ms)})
    sender.send(topic, codec.encode(event), key=prediction_id.encode(), headers=headers)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast rows are played, and how long their outcomes take.

    ``rate`` is rows a second, None as fast as it goes. At most ``chunk`` rows go into one request. An outcome follows
    once ``delay_rows`` further rows were predicted and ``delay_s`` have passed.
    """

    rate: float | None = None
    chunk: int = 100
    delay_rows: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Played:
    """A row with its answer; ``outcome`` is None for a row without a label."""

    row: Row
    answer: Answer
    outcome: Value | None

    @property
    def correct(self) -> bool:
        """Whether the model was right."""
        return self.answer.prediction == self.outcome


class Report(msgspec.Struct):
    """What was played. ``accuracy`` (classes) or ``mae`` (numbers) is over the rows with a label, as served."""

    model: str
    rows: int = 0
    outcomes: int = 0
    unlabelled: int = 0
    errors: int = 0
    first_error: str | None = None
    accuracy: float | None = None
    mae: float | None = None
    seconds: float = 0.0
    versions: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def rows_per_s(self) -> float:
        """Rows predicted a second."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass
class _Tally:
    regression: bool
    labelled: int = 0
    correct: int = 0
    absolute_error: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)

    def add(self, played: Played) -> None:
        version = played.answer.version
        self.versions[version] = self.versions.get(version, 0) + 1
        if played.outcome is None:
            return
        self.labelled += 1
        if self.regression:
            self.absolute_error += abs(float(played.answer.prediction) - float(played.outcome))
        else:
            self.correct += played.correct


def _nothing(_: Played) -> None:
    """The callback of a caller who does not watch."""


class Player:
    """Plays rows. One call of :meth:`play` at a time; :meth:`stop` may come from another thread.

    ``on_prediction`` and ``on_outcome`` are called for each row, in order, in the playing thread. Prediction ids are
    ``<run>-<row number>``, so that a request that is repeated after a broken connection is the same prediction.
    """

    def __init__(
        self,
        model: str,
        oracle: Oracle,
        outcomes: OutcomePublisher,
        pace: Pace,
        *,
        regression: bool = False,
        run: str | None = None,
        on_prediction: Callable[[Played], None] = _nothing,
        on_outcome: Callable[[Played], None] = _nothing,
    ) -> None:
        self._model = model
        self._oracle = oracle
        self._outcomes = outcomes
        self._pace = pace
        self._regression = regression
        self._run = run or f"play-{uuid.uuid4().hex[:12]}"
        self._on_prediction = on_prediction
        self._on_outcome = on_outcome
        self._stop = threading.Event()
        self._asked = 0
        self._waiting: deque[tuple[int, float, Played]] = deque()

    def stop(self) -> None:
        """End the play after the request in hand; outcomes of rows already predicted still follow, at once."""
        self._stop.set()

    def play(self, rows: Iterable[Row]) -> Report:
        """Play the rows to their end → what was played.

        Raises :class:`streams.errors.Unavailable` when the server stays away, and :class:`streams.errors.RestartMe`
        when an outcome could not be delivered.
        """
        report = Report(self._model)
        tally = _Tally(self._regression)
        started = time.monotonic()
        for chunk in self._chunks(iter(rows), started):
            self._ask(chunk, report, tally)
            self._release(report, ending=False)
        while self._waiting:
            self._release(report, ending=True)
            if self._waiting:
                self._stop.wait(IDLE_S)
        report.seconds = time.monotonic() - started
        report.versions = tally.versions
        if tally.labelled and self._regression:
            report.mae = tally.absolute_error / tally.labelled
        elif tally.labelled:
            report.accuracy = tally.correct / tally.labelled
        return report

    def _chunks(self, rows: Iterator[Row], started: float) -> Iterator[list[Row]]:
        """Rows that are due, at most a chunk of them at a time; outcomes that fall due meanwhile are let go."""
        rate, taken = self._pace.rate, 0
        while not self._stop.is_set():
            due = self._pace.chunk
            if rate is not None:
                due = min(due, int((time.monotonic() - started) * rate) + 1 - taken)
                if due < 1:
                    self._stop.wait(min(IDLE_S, max(0.0, started + taken / rate - time.monotonic())))
                    yield []
                    continue
            chunk = list(islice(rows, due))
            if not chunk:
                return
            taken += len(chunk)
            yield chunk

    def _ask(self, chunk: list[Row], report: Report, tally: _Tally) -> None:
        if not chunk:
            return
        try:
            answers = self._oracle.ask(chunk, [f"{self._run}-{row.number}" for row in chunk])
        except Refused as error:
            if len(chunk) > 1:  # one bad row must not take its neighbours with it
                for row in chunk:
                    self._ask([row], report, tally)
                return
            self._asked += 1
            report.errors += 1
            report.first_error = report.first_error or f"row {chunk[0].number}: {error}"
            return
        due_at = time.monotonic() + self._pace.delay_s
        for row, answer in zip(chunk, answers, strict=True):
            self._asked += 1
            report.rows += 1
            outcome = None if row.label is None else self._outcomes.as_class(row.label)
            played = Played(row, answer, outcome)
            tally.add(played)
            self._on_prediction(played)
            if outcome is None:
                report.unlabelled += 1
            else:
                self._waiting.append((self._asked + self._pace.delay_rows, due_at, played))

    def _release(self, report: Report, *, ending: bool) -> None:
        """Publish the outcomes whose rows and seconds have passed; at the end no further rows come."""
        now = time.monotonic()
        while self._waiting:
            after_row, due_at, played = self._waiting[0]
            if not self._stop.is_set() and (due_at > now or (after_row > self._asked and not ending)):
                return
            self._waiting.popleft()
            if played.outcome is not None:
                self._outcomes.publish(played.answer.prediction_id, played.outcome)
                report.outcomes += 1
                self._on_outcome(played)
