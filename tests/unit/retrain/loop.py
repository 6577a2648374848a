"""A retrain loop in one process: a real repository in a folder, log and announcer in memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain.administration import Administration
from retrain.child import perform
from retrain.lifecycle import Run
from retrain.probation import Probation, probation
from retrain.retrainer import Retrainer
from retrain.runs import RunStore
from retrain.tables import Table
from serving.engine import LoadedModel
from serving.repository import Repository
from streams.events import Alert, Drift, Mode, ModelState, ShadowAnswer, rfc3339
from streams.settings import RetrainSettings
from tests.unit.retrain.rows import (
    PROBLEM,
    SECOND_MS,
    START_MS,
    MemoryAnnouncer,
    MemoryLog,
    concept,
    dataset,
    features,
    labelled,
    pairs,
    prediction,
)

SETTINGS = RetrainSettings(
    algorithms=["xgboost"],
    trees=10,
    depth=3,
    labels=0,
    minimum_rows=200,
    maximum_rows=1_000,
    recent_rows=[],
    parity_rows=500,
    wait_s=60,
    probation_rows=600,
    probation_s=600,
)
LIVE_ROWS = 400


class Crash(Exception):
    """The process dies here."""


@dataclass
class Loop:
    """What a test of the loop holds in its hands."""

    repository: Repository
    runs: RunStore
    log: MemoryLog
    announcer: MemoryAnnouncer
    now_ms: int = START_MS

    def retrainer(self, **changed: Any) -> Retrainer:
        """A retrain process that has just started."""
        tools = Retrainer(
            repository=self.repository,
            runs=self.runs,
            log=self.log,
            announcer=self.announcer,
            settings=SETTINGS,
            predictions_topic="predictions",
            perform=lambda job, stage, check: perform(job, stage),
            now_ms=lambda: self.now_ms,
        )
        return dataclasses.replace(tools, **changed)

    def finish(self, run: Run, **changed: Any) -> Run:
        """Take a run to its end; waiting makes the clock go on."""
        return self.retrainer(**changed).execute(run, lambda: None, self.pause)

    def pause(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    def alerted(self, **changed: Any) -> Run:
        """The run of a fresh alert."""
        run = self.retrainer().trigger(alert(**changed))
        if run is None:
            raise AssertionError("the alert started no run")
        return run

    @property
    def administration(self) -> Administration:
        return Administration(self.repository, self.announcer, lambda: self.now_ms, runs=self.runs)

    @property
    def state(self) -> ModelState:
        found = self.repository.state("loans")
        if found is None:
            raise AssertionError("the model has no state")
        return found

    def watch(self, run: Run, **changed: Any) -> Run:
        """Take the probation of a promoted run to its end; waiting makes the clock go on."""
        return probation(self.retrainer(**changed), run, lambda: None, self.pause)

    def watch_once(self, run: Run) -> Run:
        """One step of a probation, as a process that is stopped right after it."""
        watched = Probation(self.retrainer(), run, lambda: None)
        try:
            return watched.step()
        finally:
            watched.close()

    def serve(self, rows: int, *, wrong_labels: bool = False, seed: int = 11) -> None:
        """Predictions of whoever serves now, and their outcomes by the old concept, or each the other class."""
        champion = int(self.state.aliases["champion"])
        engine = LoadedModel(self.repository.load("loans", champion), self.repository.manifest("loans", champion))
        table = features(rows, seed)
        before = self.log.partitions.setdefault(0, [])
        start = len(before)
        said = engine.predict(table).predictions
        before += [prediction(start + i, row, said[i], version=str(champion)) for i, row in enumerate(table)]
        outcomes = concept(table, changed=wrong_labels)
        self.log.records.append(labelled(pairs(outcomes, start, START_MS + start * SECOND_MS), version=str(champion)))

    def serve_beside(self, rows: int, *, wrong_labels: bool, seed: int = 17) -> None:
        """As :meth:`serve`, by a server that has the state's shadow answer to the same rows."""
        first = len(self.log.partitions.get(0, []))
        self.serve(rows, wrong_labels=wrong_labels, seed=seed)
        version = self.state.aliases.get("shadow")
        if version is None:
            return
        engine = LoadedModel(
            self.repository.load("loans", int(version)), self.repository.manifest("loans", int(version))
        )
        said = engine.predict(features(rows, seed)).predictions
        for event, answer in zip(self.log.partitions[0][first:], said, strict=True):
            if event is not None:
                event.shadow = ShadowAnswer(version, answer)

    def live(self, *, changed: bool, rows: int = LIVE_ROWS, seed: int = 7) -> None:
        """Predictions of the champion and their outcomes, by the old concept or the changed one."""
        table = features(rows, seed)
        before = self.log.partitions.setdefault(0, [])
        start = len(before)
        said = concept(table, changed=False)
        before += [prediction(start + i, row, int(said[i])) for i, row in enumerate(table)]
        outcomes = concept(table, changed=changed)
        self.log.records.append(labelled(pairs(outcomes, start, START_MS + start * SECOND_MS)))


def new_loop(folder: Path, mode: Mode = "auto") -> Loop:
    """A loop whose model `loans` has a champion of the old concept, version 1."""
    loop = Loop(Repository(str(folder)), RunStore(str(folder)), MemoryLog(), MemoryAnnouncer())
    rows = features(500, seed=3)
    table = Table(PROBLEM, dataset(rows, concept(rows, changed=False)))
    loop.administration.register(table, SETTINGS, mode=mode, trained_from={"file": "loans.csv"})
    return loop


def alert(**changed: Any) -> Alert:
    """A concept drift of the champion at the first live row."""
    labels = {"alertname": "ConceptDriftDetected", "model": "loans"}
    drift = Drift("adwin", change_at=rfc3339(START_MS), version="1")
    fields = {"status": "firing", "labels": labels, "starts_at": rfc3339(START_MS), "fingerprint": "f1", "drift": drift}
    fields |= {"annotations": {}, "ends_at": "", "generator_url": ""}
    return Alert(**{**fields, **changed})
