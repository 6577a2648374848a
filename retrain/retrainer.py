"""Drives one run from its alert to its end: each step is persisted before the next, so a crash resumes or restarts it.

Order of effects: a state change is made in the repository, then published, then the run moves on. What a crash leaves
undone is done again, which readers take as a repetition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from retrain.announce import Announcer
from retrain.champion import problem_of
from retrain.child import ChildFailed, Job
from retrain.dataset import Dataset, References, gather
from retrain.lifecycle import Run, RunState
from retrain.log import Log
from retrain.promotion import (
    WEEK_MS,
    Blocked,
    automatic,
    cooldown_end_ms,
    cooldown_reason,
    dismissed,
    with_candidate,
)
from retrain.record import RunRecord
from retrain.registration import card_of, manifest_of, metrics_of, parity_of
from retrain.run import Challenger, Stage
from retrain.runs import RunStore
from retrain.training import Refused
from retrain.triggers import concerns, run_of
from serving.repository import Repository
from streams.errors import DriftlineError, RestartMe, Unavailable, WrongSetting
from streams.events import Alert, ModelEventKind, ModelState, Profile, rfc3339
from streams.settings import RetrainSettings

MAX_ATTEMPTS = 3
WAIT_S = 0.5

GROWTH = 1.5
"""A challenger that did not win is tried again with so many times the rows."""

log = structlog.get_logger("retrain")


Perform = Callable[[Job, Callable[[Stage], None], Callable[[], None]], Challenger]
"""Trains and verifies; see :func:`retrain.child.perform_in_child`."""
Pause = Callable[[float], None]
"""Waits so many seconds, less if the run must stop, in which case it raises."""


@dataclass(frozen=True, slots=True)
class Retrainer:
    """Everything a run needs. Thread-safe for runs of different models.

    ``now_ms`` is the wall clock: waiting and the weekly maximum run on it; which rows count runs on stream time.
    """

    repository: Repository
    runs: RunStore
    log: Log
    announcer: Announcer
    settings: RetrainSettings
    predictions_topic: str
    perform: Perform
    now_ms: Callable[[], int]

    def trigger(self, alert: Alert) -> Run | None:
        """Record the run that an alert starts; None if it starts none or its episode has one already."""
        if not concerns(alert):
            return None
        model = alert.labels["model"]
        try:
            state = self.repository.state(model)
        except WrongSetting:
            state = None  # a name that the repository could not hold
        found = self._cooling(state) or run_of(alert, state, self.now_ms())
        if isinstance(found, str):
            log.info("alert skipped", model=model, fingerprint=alert.fingerprint, reason=found)
            return None
        if found.since_ms is None:
            found = msgspec.structs.replace(found, since_ms=self._known_change(found))
        if not self.runs.create(found):
            log.info("episode known", model=model, episode=found.episode)
            return None
        log.info("run triggered", model=model, episode=found.episode, alertname=found.alertname)
        return found

    def _cooling(self, state: ModelState | None) -> str | None:
        """Why no alert starts a run that would promote by itself. A firing alert is sent again, and is heard later."""
        if state is None or state.mode != "auto":
            return None
        end_ms = cooldown_end_ms(self.runs.of(state.model), self.settings.rollback_cooldown_s)
        return cooldown_reason(end_ms) if self.now_ms() < end_ms else None

    def _known_change(self, run: Run) -> int | None:
        """An accuracy rule knows no change point; a detector's alert about the same version may have said one."""
        known = [r.since_ms for r in self.runs.of(run.model) if r.champion == run.champion and r.since_ms is not None]
        return max(known, default=None)

    def unfinished(self) -> list[Run]:
        """Every run on its way to a promotion or a rejection, oldest first, one a model: the others wait for it."""
        return self._first_of_each_model(lambda run: run.at_work)

    def on_probation(self) -> list[Run]:
        """Every run whose version is watched, oldest first, one a model; no run waits for these."""
        return self._first_of_each_model(lambda run: run.on_probation)

    def _first_of_each_model(self, which: Callable[[Run], bool]) -> list[Run]:
        found = []
        for model in self.repository.models():
            waiting = [run for run in self.runs.of(model) if which(run)]
            found += waiting[:1]
        return found

    def execute(self, run: Run, check: Callable[[], None], pause: Pause) -> Run:
        """Take ``run`` to its promotion or its end; blocks.

        ``check`` and ``pause`` raise to abort, which leaves the run resumable. A promoted run goes on in
        :mod:`retrain.probation`.

        Raises :class:`Unavailable` or :class:`RestartMe` when a service is gone.
        """
        return _Execution(self, run, check, pause).finish()

    def record(self, run: Run, check: Callable[[], None]) -> RunRecord:
        """The record of ``run``, as this process takes it on."""
        return RunRecord(self.repository, self.runs, self.announcer, self.now_ms, run, check)


class _Execution:
    """One run in one process."""

    def __init__(self, tools: Retrainer, run: Run, check: Callable[[], None], pause: Pause) -> None:
        self._tools = tools
        self._record = tools.record(run, check)
        self._check = check
        self._pause = pause
        self._log = log.bind(model=run.model, episode=run.episode)

    def finish(self) -> Run:
        steps: dict[RunState, Callable[[], None]] = {
            "triggered": self._begin,
            "collecting": self._collect_and_train,
            "training": self._again,
            "exporting": self._again,
            "verifying": self._decide,
            "awaiting_approval": self._await_approval,
        }
        while self._run.at_work:
            self._check()
            try:
                steps[self._run.state]()
            except (Refused, Blocked) as refusal:
                self._reject(str(refusal))
            except (Unavailable, RestartMe):
                raise
            except DriftlineError as error:
                self._reject(str(error))
        return self._run

    # Steps ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._require_champion(self._state())
        self._move("collecting")

    def _again(self) -> None:
        self._move("collecting")

    def _collect_and_train(self) -> None:
        tools, run = self._tools, self._run
        champion = int(run.champion)
        manifest = tools.repository.manifest(run.model, champion)
        onnx = tools.repository.load(run.model, champion)
        problem = problem_of(manifest)
        dataset = self._collect(problem)
        self._require_champion(self._state())
        if run.attempts >= MAX_ATTEMPTS:
            raise Refused(f"training was begun {run.attempts} times and never ended: see the log")
        version = self._reserve()
        self._move("training", version=version, attempts=run.attempts + 1)
        # The halves sum to less than the significance: however often a run looks, that bounds its false promotions.
        strict = tools.settings.model_copy(update={"significance": tools.settings.significance / 2 ** (run.rounds + 1)})
        job = Job(dataset, problem, version, strict, onnx, manifest)
        try:
            challenger = tools.perform(job, self._stage, self._check)
        except ChildFailed as error:
            self._log.error("training failed", reason=str(error), attempt=self._run.attempts)
            self._move("collecting")
            return
        comparison = challenger.comparison
        better = comparison is not None and comparison.better
        verdict = comparison.describe() if comparison else None
        if not better and self._may_wait(len(dataset)):
            self._move("collecting", rounds=run.rounds + 1, tested_rows=len(dataset), attempts=0, verdict=verdict)
            return
        trained_from = {**dataset.describe(tools.predictions_topic), "since_ms": run.since_ms}
        written = manifest_of(
            challenger,
            problem,
            version,
            created_at=rfc3339(tools.now_ms()),
            trained_from=trained_from,
            trigger=run.trigger,
            parent=champion,
        )
        card = card_of(written, challenger, tools.settings)
        self._check()
        tools.repository.write_version(run.model, version, challenger.onnx, written, card)
        self._keep(
            better=better,
            verdict=verdict,
            metrics=metrics_of(challenger),
            parity=parity_of(challenger),
            trained_from=trained_from,
        )

    def _collect(self, problem: Any) -> Dataset:
        """Wait until there are enough rows, after a challenger that lost half as many again.

        Raises :class:`Refused` after ``wait_s``.
        """
        tools, run = self._tools, self._run
        references = References(run.model, run.since_ms, tools.settings.maximum_rows)
        minimum = max(tools.settings.minimum_rows, _next_rows(run.tested_rows))
        needed = minimum
        dropped: dict[str, int] = {}
        feed = tools.log.labelled(run.since_ms)
        try:
            while True:
                self._check()
                records = feed.poll()
                for record in records:
                    references.add(record)
                if records or not feed.at_end():
                    continue
                if len(references) >= needed:
                    dataset = gather(references.newest(), problem, tools.log.predictions, self._check)
                    if len(dataset) >= minimum:
                        return dataset
                    dropped = dataset.dropped
                    # A scan costs as much as its range: look again only when enough rows may have come.
                    needed = len(references) + minimum - len(dataset)
                if len(references) >= tools.settings.maximum_rows or self._must_end():
                    if run.rounds:
                        raise Refused(f"not better: {run.verdict}")
                    usable = len(references) - sum(dropped.values())
                    why = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
                    raise Refused(
                        f"{max(0, usable)} labelled rows since the change, {tools.settings.minimum_rows} are needed"
                        + (f" (dropped: {why})" if why else "")
                    )
                self._pause(WAIT_S)
        finally:
            feed.close()

    def _reserve(self) -> int:
        """The number that the run holds already, unless a crash left a version under it."""
        repository, run = self._tools.repository, self._run
        if run.version is None or run.version in repository.versions(run.model):
            return repository.reserve_version(run.model)
        return run.version

    def _may_wait(self, rows: int) -> bool:
        return _next_rows(rows) <= self._tools.settings.maximum_rows and not self._must_end()

    def _must_end(self) -> bool:
        """Whether the time is over, or a run that knows a newer change of the model waits for its turn."""
        tools, run = self._tools, self._run
        if tools.now_ms() >= run.triggered_ms + int(tools.settings.wait_s * 1000):
            return True
        if not run.rounds:
            return False
        since_ms = run.since_ms or 0
        return any((other.since_ms or 0) > since_ms for other in tools.runs.of(run.model) if other.at_work)

    def _stage(self, stage: Stage) -> None:
        if stage != "training":  # which began when the version was reserved
            self._move(stage)

    def _decide(self) -> None:
        run = self._run
        if run.better is None:  # the process ended before the challenger was in the repository
            self._move("collecting")
            return
        version = str(run.version)
        state = self._state()
        if state.aliases.get("champion") == version:  # it ended between the promotion and its event
            self._tell("promoted", state, alias="champion")
            self._move("promoted")
            return
        self._require_champion(state)
        if state.mode == "observe":
            raise Blocked("the mode is observe")
        if not run.offered:
            waits = {"recommend": "recommended", "approve": "awaiting-approval"} if run.better else {}
            state = self._record.change(self._with_candidate, "candidate", run.verdict)
            self._tell("candidate", state, alias="challenger", detail=waits.get(state.mode), reason=run.verdict)
            self._keep(offered=True)
        if not run.better:
            raise Refused(f"not better: {run.verdict}")
        if state.mode == "recommend":
            self._move("recommended")
        elif state.mode == "approve":
            self._move("awaiting_approval")
        else:
            self._promote(version)

    def _promote(self, version: str) -> None:
        tools, run = self._tools, self._run
        end_ms = cooldown_end_ms(tools.runs.of(run.model), tools.settings.rollback_cooldown_s)
        if tools.now_ms() < end_ms:
            raise Blocked(cooldown_reason(end_ms))
        recent = tools.runs.promoted_since(run.model, tools.now_ms() - WEEK_MS)

        def update(state: ModelState) -> ModelState:
            return automatic(
                state,
                version,
                run.champion,
                all_frozen=tools.repository.all_frozen(),
                recent=recent,
                limit=tools.settings.max_promotions_per_week,
            )

        self._check()
        state = self._record.change(update, "promoted", run.verdict)
        self._tell("promoted", state, alias="champion", reason=run.verdict)
        self._move("promoted")

    def _await_approval(self) -> None:
        """A person's `driftline models approve` promotes it; this step only sees what became of it."""
        version = str(self._run.version)
        state = self._state()
        if state.aliases.get("champion") == version:
            self._move("promoted")
        elif state.aliases.get("challenger") != version:
            raise Blocked(
                "a person rejected it" if "challenger" not in state.aliases else "another challenger took its place"
            )
        else:
            self._require_champion(state)
            self._pause(WAIT_S)

    def _reject(self, reason: str) -> None:
        run = self._run
        state = self._state()
        if run.version is not None and state.aliases.get("challenger") == str(run.version):
            state = self._record.change(lambda s: dismissed(s, str(run.version)), "rejected", reason)
        self._tell("rejected", state, reason=reason)
        self._move("rejected", reason=reason)

    # What the steps share ---------------------------------------------------------------------------------------

    @property
    def _run(self) -> Run:
        return self._record.run

    def _state(self) -> ModelState:
        return self._record.state()

    def _require_champion(self, state: ModelState) -> None:
        if state.aliases.get("champion") != self._run.champion:
            raise Blocked(f"version {self._run.champion}, which the alert is about, is no longer the champion")

    def _with_candidate(self, state: ModelState) -> ModelState:
        repository, run = self._tools.repository, self._run
        version = int(run.version or 0)
        manifest = repository.manifest(run.model, version)
        if manifest.baseline is None:
            raise Refused(f"version {version} has no baseline")
        profile = Profile(repository.uri(run.model, version), repository.manifest_hash(run.model, version))
        return with_candidate(state, str(version), manifest.baseline, profile)

    def _tell(self, kind: ModelEventKind, state: ModelState, alias: str | None = None, **more: str | None) -> None:
        self._record.tell(kind, state, alias, **more)

    def _move(self, state: RunState, **known: Any) -> None:
        self._record.move(state, **known)

    def _keep(self, **known: Any) -> None:
        self._record.keep(**known)


def _next_rows(tested: int) -> int:
    return math.ceil(tested * GROWTH)
