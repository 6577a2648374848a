"""The closed loop in one process: a stream, the monitor's watch, the retrainer, a repository in a folder; no Kafka.

One row a second of stream time. While a run waits for rows the stream goes on; while it trains the stream stands
still, as it does for the yardsticks.
"""

from __future__ import annotations

import bisect
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.loop_streams import FIRST_ROWS, Case, Errors, RecordedStream
from retrain.administration import Administration
from retrain.child import perform
from retrain.dataset import Dataset, Problem
from retrain.labels import LabelCounts
from retrain.lifecycle import Run
from retrain.probation import Probation
from retrain.retrainer import Retrainer
from retrain.runs import RunStore
from retrain.tables import Table
from serving.engine import LoadedModel
from serving.manifest import Feature
from serving.repository import Repository
from streams.alerts import Raised, alert
from streams.events import FullPrediction, ModelEvent, ModelState
from streams.records import Labelled, LabelledRow, Summary, VersionPart
from streams.settings import Settings
from streams.watch import ModelWatch

MODEL = "stream"
START_S = 1_700_000_040
STEP_ROWS = 10
"""Rows that go by between two looks at the runs."""
PROBATION_ROWS = 50
"""Rows between two looks at what is on probation."""
SECOND_MS = 1_000


class StreamEnd(Exception):
    """There are no more rows: a run that waits for some ends here."""


@dataclass(frozen=True, slots=True)
class Served:
    """Errors of each row after the first 5,000, and what the loop did, at which row."""

    errors: Errors
    alone: Errors
    """Those of the loop's own first version, if it had been left alone."""
    runs: list[Run]
    promotions: list[tuple[int, str]]
    rollbacks: list[tuple[int, str]]
    alerts: list[tuple[int, str]]
    versions: dict[str, str]
    """Version → what it was trained on."""

    @property
    def acts(self) -> dict[str, list[Any]]:
        """At which rows it promoted and rolled back, and paged about what."""
        return {
            "promotions": [row for row, _ in self.promotions],
            "rollbacks": [row for row, _ in self.rollbacks],
            "pages": [[row, what] for row, what in self.alerts if what.endswith("firing")],
        }


@dataclass(slots=True)
class _Feed:
    log: StreamLog
    position: int
    start: int

    def poll(self) -> list[Labelled]:
        found = self.log.records[self.position :]
        self.position = len(self.log.records)
        return found

    def offsets(self) -> dict[int, tuple[int, int]]:
        return {0: (self.start, self.position)}

    def at_end(self) -> bool:
        return self.position == len(self.log.records)

    def close(self) -> None:
        self.position = len(self.log.records)


@dataclass(slots=True)
class StreamLog:
    """The log as training reads it; a row's prediction has the row's number as its offset."""

    stream: RecordedStream
    said: NDArray[Any]
    served_by: list[str]
    records: list[Labelled] = field(default_factory=list)
    complete_ms: list[int] = field(default_factory=list)
    labelled_topic: str = "labelled"

    def labelled(self, since_ms: int | None) -> _Feed:
        """See :class:`retrain.log.Log`."""
        start = 0 if since_ms is None else bisect.bisect_left(self.complete_ms, since_ms)
        return _Feed(self, start, start)

    def labelled_within(self, offsets: Mapping[int, tuple[int, int]]) -> Iterator[Labelled]:
        """See :class:`retrain.log.Log`."""
        for start, stop in offsets.values():
            yield from self.records[start:stop]

    def predictions(self, partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        """See :class:`retrain.log.Log`."""
        for row in sorted(offsets):
            features, said = self.stream.features[row].tolist(), self.said[row].item()
            yield row, FullPrediction(str(row), MODEL, self.served_by[row], said, None, None, None, None, features)


@dataclass(slots=True)
class _Announcer:
    events: list[ModelEvent] = field(default_factory=list)

    def publish(self, event: ModelEvent) -> None:
        self.events.append(event)

    def last_states(self) -> dict[str, ModelState]:
        return {MODEL: self.events[-1].state} if self.events else {}


class World:
    """One stream on its way through the loop."""

    def __init__(self, stream: RecordedStream, case: Case, settings: Settings, folder: Path) -> None:
        self._stream = stream
        self._delay = case.delay
        self._labels = stream.labelled(case)
        self._labels = self._labels[self._labels >= FIRST_ROWS]
        self._said = np.zeros_like(stream.target)
        self._served_by = [""] * len(stream)
        self._at = FIRST_ROWS
        self._known = 0
        self._watch = ModelWatch(MODEL, settings.monitor, settings.monitor.minimum_accuracy)
        self._counts = LabelCounts()
        self._announcer = _Announcer()
        self._told = 0
        self._sequence = 0
        self._events: list[tuple[int, ModelEvent]] = []
        self._alerts: list[tuple[int, str]] = []
        self._repository = Repository(str(folder))
        self._log = StreamLog(stream, self._said, self._served_by)
        self.retrainer = Retrainer(
            repository=self._repository,
            runs=RunStore(str(folder)),
            log=self._log,
            announcer=self._announcer,
            settings=settings.retrain,
            predictions_topic="predictions",
            perform=lambda job, stage, check: perform(job, stage),
            now_ms=lambda: self._second(self._at) * SECOND_MS,
        )
        self._register(settings)
        self._loaded: LoadedModel | None = None
        self._probations: dict[str, Probation] = {}

    def _register(self, settings: Settings) -> None:
        stream = self._stream
        features = tuple(Feature(f"f{i}") for i in range(stream.features.shape[1]))
        rows = Dataset(
            stream.features[:FIRST_ROWS],
            stream.target[:FIRST_ROWS].astype(np.float64),
            np.full(FIRST_ROWS, np.nan),
            np.arange(FIRST_ROWS, dtype=np.int64),
            {},
            {},
        )
        administration = Administration(self._repository, self._announcer, self.retrainer.now_ms)
        administration.register(Table(self._problem(features), rows), settings.retrain, mode="auto", trained_from={})

    def _problem(self, features: tuple[Feature, ...]) -> Problem:
        task = self._stream.task
        return Problem(MODEL, task, features, tuple(range(self._stream.classes)), 1 if task == "binary" else None)

    @staticmethod
    def _second(row: int) -> int:
        return START_S + row

    def run(self) -> Served:
        """Serve every row; runs begin as they are due."""
        try:
            while True:
                self._step()
                self.retrainer.look(self._counts)
                for run in self.retrainer.unfinished():
                    self.retrainer.execute(run, lambda: None, self._pause)
        except StreamEnd:
            pass
        return self._served()

    def _pause(self, seconds: float) -> None:
        """A run waits: the stream goes on, a little further than it asked for."""
        self._step()

    def _watch_promoted(self) -> None:
        """The probations take a look at what has come; each as long as it lasts in one object, as in a process."""
        due = {run.episode: run for run in self.retrainer.on_probation()}
        for episode in list(self._probations):
            if episode not in due:
                self._probations.pop(episode).close()
        for episode, run in due.items():
            if episode not in self._probations:
                self._probations[episode] = Probation(self.retrainer, run, lambda: None)
            self._probations[episode].step()

    def _step(self) -> None:
        start, end = self._at, min(self._at + STEP_ROWS, len(self._stream))
        if start == end:
            raise StreamEnd
        model, version = self._serving()
        said = model.predict(self._stream.features[start:end]).predictions
        self._said[start:end] = said
        self._served_by[start:end] = [version] * (end - start)
        self._at = end
        self._outcomes(end - self._delay)
        if start // PROBATION_ROWS != end // PROBATION_ROWS:
            self._watch_promoted()
        state = self._repository.state(MODEL)
        for happened in self._watch.advance(self._second(start), self._second(end), state):
            if isinstance(happened.said, Raised):
                event = alert(happened.said)
                self._alerts.append((happened.at_s - START_S, f"{event.labels['alertname']} {event.status}"))
                self.retrainer.trigger(event)

    def _serving(self) -> tuple[LoadedModel, str]:
        """The champion, as a server that follows the model events would have it."""
        for event in self._announcer.events[self._told :]:
            self._events.append((self._at, event))
        self._told = len(self._announcer.events)
        version = self._announcer.events[-1].state.aliases["champion"]
        if self._loaded is None or str(self._loaded.version) != version:
            manifest = self._repository.manifest(MODEL, int(version))
            self._loaded = LoadedModel(self._repository.load(MODEL, int(version)), manifest)
        return self._loaded, version

    def _outcomes(self, before: int) -> None:
        """The labels of rows below ``before`` become known, each at the second of its own turn."""
        first, self._known = self._known, int(np.searchsorted(self._labels, before))
        rows = self._labels[first : self._known]
        if not len(rows):
            return
        self._sequence += 1
        parts = [self._part(version, rows) for version in sorted({self._served_by[row] for row in rows})]
        self._watch.take(Summary(0, 1, self._sequence, MODEL, self._stream.task, parts))
        record = Labelled.of(
            0,
            1,
            self._sequence,
            [MODEL],
            ["any"],
            [
                LabelledRow(
                    row,
                    row,
                    self._second(row) * SECOND_MS,
                    self._second(row + self._delay) * SECOND_MS,
                    0,
                    0,
                    self._stream.target[row].item(),
                )
                for row in rows.tolist()
            ],
        )
        self._log.records.append(record)
        self._log.complete_ms.append(self._second(int(rows[-1]) + self._delay) * SECOND_MS)
        self._counts.add(record)

    def _part(self, version: str, rows: NDArray[np.int64]) -> VersionPart:
        """What the monitor is told of those rows that the version predicted."""
        own = np.asarray([row for row in rows if self._served_by[row] == version])
        said, target, seconds = self._said[own], self._stream.target[own], own + self._delay + START_S
        minutes = list(zip((seconds // 60).tolist(), ((own + START_S) // 60).tolist(), strict=True))
        predictions = dict(Counter(completed for completed, _ in minutes))
        if self._stream.task == "regression":
            off = said - target
            sums: dict[tuple[int, int], NDArray[np.float64]] = {}
            for minute, moments in zip(
                minutes, np.column_stack([np.ones_like(off), abs(off), off * off, off]), strict=True
            ):
                sums[minute] = sums.get(minute, 0.0) + moments
            moments = [(*minute, int(n), *each) for minute, (n, *each) in sorted(sums.items())]
            return VersionPart.of(version, "", seconds, own, off, moments=moments, predictions=predictions)
        pairs = Counter((*minute, *pair) for minute, *pair in zip(minutes, said.tolist(), target.tolist(), strict=True))
        cells = [(*cell, n) for cell, n in sorted(pairs.items())]
        wrong = (said != target).astype(np.uint8)
        return VersionPart.of(version, "", seconds, own, wrong, cells=cells, predictions=predictions)

    def _served(self) -> Served:
        errors = self._stream.errors(self._said[FIRST_ROWS:], FIRST_ROWS, len(self._stream))
        first = LoadedModel(self._repository.load(MODEL, 1), self._repository.manifest(MODEL, 1))
        said = np.asarray(first.predict(self._stream.features[FIRST_ROWS:]).predictions)
        alone = self._stream.errors(said, FIRST_ROWS, len(self._stream))
        done = [*self._events, *((self._at, event) for event in self._announcer.events[self._told :])]

        def of(kind: str) -> list[tuple[int, str]]:
            return [(row, str(event.version)) for row, event in done if event.kind == kind]

        made = {
            str(version): str(
                self._repository.manifest(MODEL, version).trained_from.get("trained_on", "the first rows")
            )
            for version in self._repository.versions(MODEL)
        }
        runs = self.retrainer.runs.of(MODEL)
        return Served(errors, alone, runs, of("promoted"), of("rolledback"), self._alerts, made)


def serve(stream: RecordedStream, case: Case, settings: Settings) -> Served:
    """Serve a stream by the loop, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        return World(stream, case, settings, Path(folder)).run()


def as_plain(run: Run) -> dict[str, object]:
    """A run as JSON shows it."""
    return {
        name: getattr(run, name)
        for name in ("kind", "state", "champion", "version", "verdict", "reason", "tested_rows")
    } | {"row": run.triggered_ms // SECOND_MS - START_S, "trigger": msgspec.to_builtins(run.trigger)}
