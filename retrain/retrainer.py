"""Drives one run from its alert to its end: each step is persisted before the next, so a crash resumes or restarts it.

Order of effects: a state change is made in the repository, then published, then the run moves on. What a crash leaves
undone is done again, which readers take as a repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from retrain.announce import Announcer
from retrain.approvals import approval_of, overdue
from retrain.child import Job
from retrain.collecting import WAIT_S
from retrain.contest import Contest
from retrain.labels import LabelCounts
from retrain.lifecycle import UNASKED, Run, RunState, TriggerKind, changed_since
from retrain.live_shadow import LiveShadow
from retrain.log import Log
from retrain.promotion import (
    WEEK_MS,
    Blocked,
    automatic,
    cooldown_end_ms,
    cooldown_reason,
    dismissed,
    rollbacks_in_a_row,
    rolled_back_by_hand_ms,
    with_candidate,
    without_shadow,
)
from retrain.record import RunRecord
from retrain.rounds import Round
from retrain.run import Stage
from retrain.runs import RunStore
from retrain.training import Refused
from retrain.triggers import concerns, due, newest_change_ms, quiet, run_by, run_of
from serving.repository import Repository
from streams.errors import AccessDenied, DriftlineError, RestartMe, Unavailable, WrongSetting
from streams.events import Alert, ModelEventKind, ModelState, Profile
from streams.settings import RetrainSettings

log = structlog.get_logger("retrain")


Perform = Callable[[Job, Callable[[Stage], None], Callable[[], None]], Contest]
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
    own_settings: Mapping[str, RetrainSettings] = field(default_factory=dict)
    """Of the models that have settings of their own."""

    def settings_of(self, model: str) -> RetrainSettings:
        """What holds for a model."""
        return self.own_settings.get(model, self.settings)

    def trigger(self, alert: Alert) -> Run | None:
        """Record the run that an alert starts; None if it starts none or its episode has one already."""
        model = alert.labels.get("model", "")
        if not concerns(alert, self.settings_of(model)):
            return None
        try:
            state = self.repository.state(model)
        except WrongSetting:
            state = None  # a name that the repository could not hold
        found = run_of(alert, state, self.now_ms())
        if isinstance(found, str):
            log.info("alert skipped", model=model, fingerprint=alert.fingerprint, reason=found)
            return None
        since_ms = self._turned_ms(found) or found.since_ms
        found = msgspec.structs.replace(found, since_ms=self._known_change(found) if since_ms is None else since_ms)
        if not self.runs.create(found):
            log.info("episode known", model=model, episode=found.episode)
            return None
        log.info("run triggered", model=model, episode=found.episode, alertname=found.alertname)
        return found

    def cooling(self, state: ModelState | None) -> str | None:
        """Why nothing begins that would promote by itself; None if neither a freeze nor a rollback forbids it."""
        if state is None or state.mode != "auto":
            return None
        return self.frozen(state) or self.cooldown(state.model)

    def frozen(self, state: ModelState) -> str | None:
        """Why nothing of a model is promoted; None if neither it nor all of them are frozen."""
        return "frozen" if state.frozen or self.repository.all_frozen() else None

    def cooldown(self, model: str) -> str | None:
        """Why nothing of a model is promoted automatically just now; None if a rollback does not forbid it."""
        cooldown_s, now_ms = self.settings_of(model).rollback_cooldown_s, self.now_ms()
        end_ms = cooldown_end_ms(self.runs.of(model), cooldown_s)
        if now_ms < end_ms:
            return cooldown_reason(end_ms)
        by_hand_ms = rolled_back_by_hand_ms(self.repository.newest(model), now_ms - int(cooldown_s * 1000))
        return None if by_hand_ms is None else cooldown_reason(by_hand_ms + int(cooldown_s * 1000))

    def _turned_ms(self, run: Run) -> int | None:
        """What a rollback has shown of when the concept changed; None for an alert that need not be about that change.

        The detectors of the version that serves again began with the rollback, or with the first labels of what it
        answered since: they cannot date a change that came before. So an alert in the pause behind it is of the same
        incident, and so is one that names a change sooner after the rollback than the rollback came after its own.
        """
        runs = self.runs.of(run.model)
        rollback = next(reversed(rollbacks_in_a_row(runs)), None)
        if rollback is None or rollback.worse_since_ms is None or rollback.back_to != run.champion:
            return None
        if any((each.promoted_ms or 0) > rollback.updated_ms for each in runs):
            return None  # what was promoted since has learnt it
        seen_ms = rollback.worse_since_ms if rollback.worse_seen_ms is None else rollback.worse_seen_ms
        soon = run.since_ms is not None and run.since_ms - seen_ms <= seen_ms - rollback.worse_since_ms
        return rollback.worse_since_ms if soon or self.cooldown(run.model) is not None else None

    def _known_change(self, run: Run) -> int | None:
        """An accuracy rule knows no change point; a detector's alert about the same version may have said one, or about
        one that has been taken back: then nobody has learnt that change.
        """
        runs = self.runs.of(run.model)
        versions = {run.champion, *(str(r.version) for r in runs if r.state == "rolled_back")}
        return newest_change_ms(r for r in runs if r.champion in versions or r.state == "rolled_back")

    def look(self, labels: LabelCounts) -> list[Run]:
        """Record the runs that new labels or a schedule start now."""
        started = []
        for model, champion in self._watched():
            runs = self.runs.of(model)
            since_ms = labels.fresh_ms(model, champion, self.repository)
            if since_ms is None:
                continue
            labels.forget(model, _counted_from_ms(runs, since_ms))
            counted, settings = labels.count(model), self.settings_of(model)
            kind = due(runs, str(champion), counted, since_ms, settings, self.now_ms())
            if kind is not None and (run := self.start(model, kind)) is not None:
                started.append(run)
        return started

    def labels_from_ms(self, labels: LabelCounts) -> int:
        """From where on, in stream time, labels may count towards a run of some model."""
        starts = [
            _counted_from_ms(self.runs.of(model), since_ms)
            for model, champion in self._watched()
            if (since_ms := labels.fresh_ms(model, champion, self.repository)) is not None
        ]
        return min(starts, default=self.now_ms())

    def _watched(self) -> Iterator[tuple[str, int]]:
        """The models that labels or a schedule may start a run of, with their champions."""
        for model in self.repository.models():
            state, settings = self.repository.state(model), self.settings_of(model)
            if state is not None and "champion" in state.aliases and (settings.labels or settings.schedule_s):
                yield model, int(state.aliases["champion"])

    def start(self, model: str, kind: TriggerKind) -> Run | None:
        """Record a run that no alert started; None if another process did, or if the model cannot be retrained."""
        state = self.repository.state(model)
        found = self.cooling(state) or run_by(kind, state, self.runs.of(model), self.now_ms())
        if isinstance(found, str):
            log.debug("no run", model=model, kind=kind, reason=found)
            return None
        self.runs.forget(model)
        if not self.runs.create(found):
            return None
        log.info("run triggered", model=model, episode=found.episode, kind=kind)
        return found

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

        Raises :class:`Unavailable`, :class:`RestartMe` or :class:`AccessDenied` when a service is gone or refuses us.
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
        self._round = Round(tools, self._record, check, pause)
        self._log = log.bind(model=run.model, episode=run.episode)

    def finish(self) -> Run:
        steps: dict[RunState, Callable[[], None]] = {
            "triggered": self._begin,
            "collecting": self._round.take,
            "training": self._again,
            "exporting": self._again,
            "verifying": self._decide,
            "shadowing": self._shadow,
            "awaiting_approval": self._await_approval,
        }
        while self._run.at_work:
            self._check()
            try:
                steps[self._run.state]()
            except (Refused, Blocked) as refusal:
                self._reject(str(refusal))
            except (AccessDenied, Unavailable, RestartMe):
                raise
            except DriftlineError as error:
                self._reject(str(error))
        return self._run

    # Steps ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Wait for the end of quiet hours, of a freeze and of the pause after a rollback: who is not heard now would be
        heard again only when the alert is sent again, hours later.
        """
        self._wait_while(self._held)
        self._record.require_champion(self._state())
        self._move("collecting", begun_ms=self._tools.now_ms())

    def _wait_while(self, obstacle: Callable[[], str | None]) -> None:
        """Wait until there is no reason to any more; whoever looks at the run is told."""
        while (reason := obstacle()) is not None:
            if reason != self._run.reason:
                self._log.info("run waits", reason=reason)
                self._keep(reason=reason)
            self._pause(WAIT_S)
        if self._run.reason is not None:
            self._keep(reason=None)

    def _held(self) -> str | None:
        """Why the run must not begin now; None if it may."""
        state = self._state()
        if state.mode != "auto":
            return self._quiet()
        return self._quiet() or self._tools.frozen(state) or self._cooldown()

    def _cooldown(self) -> str | None:
        """Why what comes of the run must not be promoted after a rollback; None if it may, or if a person asked."""
        return None if self._asked() else self._tools.cooldown(self._run.model)

    def _quiet(self) -> str | None:
        """Why the loop must not act at this hour; None if it may, or if a person has asked for a run."""
        tools, run = self._tools, self._run
        hours = tools.settings_of(run.model).quiet_hours
        if not quiet(hours, tools.now_ms()):
            return None
        return None if self._asked() else f"quiet hours, {hours}"

    def _asked(self) -> bool:
        """Whether a person wants a run of the model now: this one, or one that waits behind it."""
        return any(each.kind == "command" and each.at_work for each in self._tools.runs.of(self._run.model))

    def _again(self) -> None:
        self._move("collecting")

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
        self._record.require_champion(state)
        if state.mode == "observe":
            raise Blocked("the mode is observe")
        shadow = self._tools.settings_of(run.model).shadow and not run.shadowed
        if not run.offered:
            state = self._record.change(lambda s: self._with_candidate(s, shadow=shadow), "candidate", run.verdict)
            self._tell_candidate(state, "shadow" if shadow else None)
            self._keep(offered=True)
        if shadow:
            self._move("shadowing")
            return
        if run.shadowed and state.mode != "auto":  # a promotion ends the shadow itself
            state = self._record.change(without_shadow, "shadow ended", run.verdict)
            self._tell_candidate(state, None)
        if state.mode == "recommend":
            self._move("recommended")
        elif state.mode == "approve":
            self._move("awaiting_approval")
        else:
            self._promote(version)

    def _tell_candidate(self, state: ModelState, detail: str | None) -> None:
        waits = {"recommend": "recommended", "approve": "awaiting-approval"}
        detail = detail or waits.get(state.mode)
        self._tell("candidate", state, alias="challenger", detail=detail, reason=self._run.verdict)

    def _shadow(self) -> None:
        """Compare its live answers with the champion's until one of them is found better, or it must end."""
        version = str(self._run.version)
        shadow = LiveShadow(self._tools, self._record, self._check)
        try:
            while True:
                state = self._state()
                if state.aliases.get("champion") == version:  # a person did not wait
                    self._move("promoted", **approval_of(self._run, state))
                    return
                if self._run.reason is not None:  # a process that ended before the rejection was whole
                    raise Refused(self._run.reason)
                if state.mode == "observe":
                    raise Blocked("the mode is observe")
                self._require_challenger(state)
                if (found := shadow.look()) is not None:
                    break
                self._pause(WAIT_S)
        finally:
            shadow.close()
        verdict = f"{self._run.verdict}; {found}"
        self._move("verifying", shadowed=True, shadow_evidence=shadow.findings, verdict=verdict)

    def _promote(self, version: str) -> None:
        tools, run = self._tools, self._run
        self._wait_while(self._quiet)
        if (reason := self._cooldown()) is not None:
            raise Blocked(reason)
        recent = tools.runs.promoted_since(run.model, tools.now_ms() - WEEK_MS)

        def update(state: ModelState) -> ModelState:
            return automatic(
                state,
                version,
                run.champion,
                all_frozen=tools.repository.all_frozen(),
                recent=recent,
                limit=tools.settings_of(run.model).max_promotions_per_week,
            )

        self._check()
        state = self._record.change(update, "promoted", run.verdict)
        self._tell("promoted", state, alias="champion", reason=run.verdict)
        self._move("promoted")

    def _await_approval(self) -> None:
        """A person's `driftline models approve` promotes it; this step only sees what became of it.

        It waits no longer in another mode, or when it is about a concept that has changed since.
        """
        version = str(self._run.version)
        state = self._state()
        if state.aliases.get("champion") == version:
            self._move("promoted", **approval_of(self._run, state))
            return
        approval_s = self._tools.settings_of(self._run.model).approval_s
        if (reason := overdue(self._run, approval_s, self._tools.now_ms())) is not None:
            raise Blocked(reason)
        self._require_challenger(state)
        if changed_since(self._run, self._tools.runs.of(self._run.model)):
            raise Blocked("nobody approved it, and the world changed again behind its rows: another run is about that")
        if state.mode == "auto":
            self._promote(version)
        elif state.mode == "approve":
            self._pause(WAIT_S)
        else:
            raise Blocked(f"nobody approved it, and the mode is {state.mode}")

    def _require_challenger(self, state: ModelState) -> None:
        self._record.require_champion(state)
        if state.aliases.get("challenger") != str(self._run.version):
            raise Blocked(
                "a person rejected it" if "challenger" not in state.aliases else "another challenger took its place"
            )

    def _reject(self, reason: str) -> None:
        run = self._run
        state = self._state()
        if run.version is not None and state.aliases.get("challenger") == str(run.version):
            state = self._record.change(lambda s: dismissed(s, str(run.version)), "rejected", reason)
        if run.kind not in UNASKED or run.offered:  # the topic is kept for ever, and these come by the minute
            self._tell("rejected", state, reason=reason)
        self._move("rejected", reason=reason)

    # What the steps share ---------------------------------------------------------------------------------------

    @property
    def _run(self) -> Run:
        return self._record.run

    def _state(self) -> ModelState:
        return self._record.state()

    def _with_candidate(self, state: ModelState, *, shadow: bool) -> ModelState:
        repository, run = self._tools.repository, self._run
        version = int(run.version or 0)
        manifest = repository.manifest(run.model, version)
        if manifest.baseline is None:
            raise Refused(f"version {version} has no baseline")
        profile = Profile(repository.uri(run.model, version), repository.manifest_hash(run.model, version))
        return with_candidate(state, str(version), manifest.baseline, profile, shadow=shadow)

    def _tell(self, kind: ModelEventKind, state: ModelState, alias: str | None = None, **more: str | None) -> None:
        self._record.tell(kind, state, alias, **more)

    def _move(self, state: RunState, **known: Any) -> None:
        self._record.move(state, **known)

    def _keep(self, **known: Any) -> None:
        self._record.keep(**known)


def _counted_from_ms(runs: Sequence[Run], since_ms: int) -> int:
    """Labels count from the newest row on that a run, or the making of the champion, has had."""
    used = [int(run.trained_from["to_ms"]) + 1 for run in runs if run.trained_from.get("to_ms")]
    return max([*used, since_ms])
