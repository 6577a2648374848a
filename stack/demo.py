"""The demo: a loan model, live traffic, an abrupt change of the concept, and the loop that mends it by itself."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from river.datasets.synth import Agrawal

from serving.client import ServeClient
from serving.engine import LoadedModel
from serving.play import OutcomePublisher, Pace, Played, Player, ServeOracle
from serving.repository import Repository
from serving.table import Row
from stack.embedded import EmbeddedStack
from streams.audit_log import audit
from streams.codec import Undecodable, alert_decoder, model_event_decoder
from streams.errors import Unavailable
from streams.events import Alert, ModelEvent
from streams.kafka import SafeProducer, TopicReader
from streams.settings import Settings, load
from streams.topics import Topics

SETTINGS = {
    "worker.checkpoint_s": "0.25",
    "monitor.clean_minutes": "1",
    "retrain.labels": "0",
    "retrain.minimum_rows": "900",
    "retrain.wait_s": "60",
}
"""What differs from the defaults, so that two minutes are enough: detection and verdict keep theirs."""
CAUGHT_UP_S = 90.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is played. Rows are numbered from the first one served live; the drift is at ``before_rows``."""

    model: str = "loan"
    train_rows: int = 3_000
    before_rows: int = 3_000
    after_rows: int = 8_000
    rate: float = 220.0
    delay_rows: int = 100
    measured_rows: int = 2_000
    concept: int = 0
    new_concept: int = 2
    noise: float = 0.02
    seed: int = 7


class Version(msgspec.Struct):
    """One version of the model in the report."""

    version: str
    what: str
    row: int
    reason: str | None = None
    accuracy: float | None = None
    baseline_accuracy: float | None = None
    parity_rows: int | None = None


class Fired(msgspec.Struct):
    """One alert in the report. ``row``: how many rows had been served when it arrived on the topic."""

    row: int
    status: str
    alertname: str
    summary: str
    detector: str | None = None
    change_at: str | None = None


class Accuracies(msgspec.Struct):
    """Shares of right predictions: before the drift, from it to the swap, on the last rows of the promoted version,
    and after the drift as the first version would have done (``static``) and as was served (``loop``)."""

    before: float
    drifted: float
    recovered: float | None
    static: float
    loop: float


class DemoReport(msgspec.Struct):
    """What happened, by row. A row is None if it did not happen."""

    drift_row: int
    alert_row: int | None
    promoted_row: int | None
    swapped_row: int | None
    accuracy: Accuracies
    alerts: list[Fired]
    versions: list[Version]
    conserved: bool
    violations: list[str]
    rows: int
    seconds: float


@dataclass(slots=True)
class Progress:
    """What a view shows while it runs. Written by the demo's threads, read by the view's."""

    scenario: Scenario
    stage: str = "starting"
    correct: list[bool] = field(default_factory=list)
    served_by: list[str] = field(default_factory=list)
    served_ms: list[float] = field(default_factory=list)
    """When each row was served (epoch milliseconds)."""
    alerts: list[Fired] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def row(self) -> int:
        """Rows served so far."""
        return len(self.correct)

    def row_at(self, at_ms: int) -> int:
        """Rows served by the time of a record: whoever reads it hears of it later than those who act on it."""
        return bisect_left(self.served_ms, at_ms)


def generate(concept: int, rows: int, noise: float, seed: int) -> Iterator[tuple[dict[str, float], int]]:
    """Rows of River's Agrawal stream (a loan applicant) and whether the loan is granted, under one concept.

    Source: Agrawal, Imielinski and Swami, Database mining: a performance perspective (1993).
    """
    for features, label in Agrawal(classification_function=concept, seed=seed, perturbation=noise).take(rows):
        yield {name: float(value) for name, value in features.items()}, int(label)


class Demo:
    """Runs one scenario on an embedded stack in ``data_dir``."""

    def __init__(self, data_dir: Path, scenario: Scenario, arguments: Sequence[str], progress: Progress) -> None:
        self.scenario = scenario
        self.progress = progress
        self.data_dir = data_dir
        settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
        self.stack = EmbeddedStack(data_dir, [*settings, *arguments])

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> DemoReport:
        """Play everything → what happened.

        Raises :class:`streams.errors.DriftlineError` when something does not start or ends too early.
        """
        started = time.monotonic()
        with self.stack as stack:
            self._stage("starting the embedded stack")
            stack.start(self.progress.lines.append)
            settings = _settings(stack.arguments)
            self._stage("training the first version")
            self._train()
            live = self._live_rows()
            with _Watcher(settings, self.progress):
                self._stage("serving")
                self._play(settings, live, interrupted)
                self._stage("waiting for the last outcomes")
                verdict = audit(settings, follow_to_end=True)
            self._stage("done")
            static = self._static(live)
        return self._report(static, verdict.conserved, verdict.violations, time.monotonic() - started)

    def _stage(self, what: str) -> None:
        self.progress.stage = what
        self.progress.lines.append(what)

    def _train(self) -> None:
        s = self.scenario
        table = self.data_dir / f"{s.model}.csv"
        rows = list(generate(s.concept, s.train_rows, s.noise, s.seed))
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*rows[0][0], "granted"])
            writer.writerows([*features.values(), label] for features, label in rows)
        command = [sys.executable, "-m", "driftline", *self.stack.arguments, "train", str(table), "--model", s.model]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the first version was not trained: {done.stderr.strip().splitlines()[-1]}", "")

    def _live_rows(self) -> list[Row]:
        s = self.scenario
        stream = [
            *generate(s.concept, s.before_rows, s.noise, s.seed + 1),
            *generate(s.new_concept, s.after_rows, s.noise, s.seed + 2),
        ]
        return [Row(number, dict(features), label) for number, (features, label) in enumerate(stream)]

    def _play(self, settings: Settings, rows: list[Row], interrupted: Callable[[], bool]) -> None:
        s, topics = self.scenario, Topics(settings.kafka.topic_prefix)
        sender = SafeProducer(settings.kafka)
        with closing(ServeClient(self.stack.serve_url)) as client:
            served = _model_when_ready(client, s.model)
            player = Player(
                s.model,
                ServeOracle(client, served),
                OutcomePublisher(sender, topics.outcomes, s.model, served.parameters.classes),
                Pace(rate=s.rate, chunk=50, delay_rows=s.delay_rows),
                on_prediction=self._served,
            )
            player_thread = threading.Thread(target=self._keep_playing, args=(player, rows), name="player")
            player_thread.start()
            try:
                while player_thread.is_alive():
                    player_thread.join(0.2)
                    self.stack.poll()
                    if interrupted():
                        player.stop()
            finally:
                player.stop()
                player_thread.join()
                sender.close()
        if self._failure is not None:
            raise self._failure

    _failure: BaseException | None = None

    def _keep_playing(self, player: Player, rows: list[Row]) -> None:
        try:
            player.play(rows)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error

    def _served(self, played: Played) -> None:
        if not self.progress.served_by or self.progress.served_by[-1] != played.answer.version:
            self.progress.versions.append(Version(played.answer.version, "serving", self.progress.row))
        self.progress.served_ms.append(1_000 * time.time())
        self.progress.correct.append(played.correct)
        self.progress.served_by.append(played.answer.version)

    def _static(self, rows: list[Row]) -> list[bool]:
        """What the first version says of every row, offline."""
        repository = Repository(str(self.stack.repository))
        manifest = repository.manifest(self.scenario.model, 1)
        model = LoadedModel(repository.load(self.scenario.model, 1), manifest)
        played = list(islice(rows, self.progress.row))
        matrix = np.array([list(row.features.values()) for row in played], dtype=np.float32)
        predictions = model.predict(matrix).predictions
        return [prediction == row.label for prediction, row in zip(predictions, played, strict=True)]

    def _report(self, static: list[bool], conserved: bool, violations: list[str], seconds: float) -> DemoReport:
        s, p = self.scenario, self.progress
        drift = s.before_rows
        firing = [a for a in p.alerts if a.status == "firing"]
        promoted = [v for v in p.versions if v.what == "promoted"]
        swapped = next((row for row, version in enumerate(p.served_by) if version != p.served_by[0]), None)
        last = p.correct[-s.measured_rows :]
        one_version = len(set(p.served_by[-s.measured_rows :])) == 1 and swapped is not None
        return DemoReport(
            drift_row=drift,
            alert_row=firing[0].row if firing else None,
            promoted_row=promoted[0].row if promoted else None,
            swapped_row=swapped,
            accuracy=Accuracies(
                before=_share(p.correct[max(0, drift - s.measured_rows) : drift]),
                drifted=_share(p.correct[drift : swapped or p.row]),
                recovered=_share(last) if one_version else None,
                static=_share(static[drift:]),
                loop=_share(p.correct[drift:]),
            ),
            alerts=p.alerts,
            versions=p.versions,
            conserved=conserved,
            violations=violations,
            rows=p.row,
            seconds=round(seconds, 1),
        )


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4) if flags else float("nan")


def _settings(arguments: Sequence[str]) -> Settings:
    flags = dict(b.split("=", 1) for a, b in pairwise(arguments) if a == "--set")
    return load(flags=flags)[0]


def _model_when_ready(client: ServeClient, model: str) -> Any:
    """The model as served, once the server has taken it from its model event."""
    deadline = time.monotonic() + CAUGHT_UP_S
    while True:
        try:
            return client.model(model)
        except Exception as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{model} is not served: {error}", "see logs/serve.log in the data folder") from error
            time.sleep(0.2)


class _Watcher:
    """Reads alerts and model events as they come, and notes how many rows had been served when they were published."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        topics = Topics(settings.kafka.topic_prefix)
        self._progress = progress
        self._alerts = TopicReader(settings.kafka, topics.alerts)
        self._models = TopicReader(settings.kafka, topics.model_events)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._seen: set[bytes] = set()

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._alerts.close()
        self._models.close()

    def _watch(self) -> None:
        alerts, models = alert_decoder(), model_event_decoder()
        while not self._stop.is_set():
            for record in self._alerts.poll(0.05):
                identity = dict(record.headers).get("ce_id") or b""
                if identity not in self._seen:
                    self._seen.add(identity)
                    self._alert(alerts.decode_any(record.value), self._progress.row_at(record.at_ms))
            for record in self._models.poll(0.05):
                try:
                    self._model(models.decode_any(record.value), self._progress.row_at(record.at_ms))
                except Undecodable as error:
                    self._progress.lines.append(f"a model event cannot be read: {error}")

    def _alert(self, alert: Alert, row: int) -> None:
        drift = alert.drift
        self._progress.alerts.append(
            Fired(
                row,
                alert.status,
                alert.labels["alertname"],
                alert.annotations["summary"],
                drift.detector if drift else None,
                drift.change_at if drift else None,
            )
        )

    def _model(self, event: ModelEvent, row: int) -> None:
        version = event.version or event.state.aliases.get("champion", "?")
        baseline = event.state.baselines.get(version)
        parity = event.parity.get("rows")
        self._progress.versions.append(
            Version(
                version,
                event.kind,
                row,
                event.reason,
                event.metrics.get("challenger_accuracy"),
                baseline.value if baseline else None,
                parity if isinstance(parity, int) else None,
            )
        )
