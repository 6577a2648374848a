"""The probation of a promoted version: an older one that would have done better on the same rows serves again.

Order of effects: the verdict is persisted, the state changed in the repository, the event published, the run ended. A
crash between two of them is made good by the next process, which reads the log again from the probation's beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import structlog

from detectors.change_point import ChangePoint
from detectors.paired_bets import PairedBets, PairedEvidence, PairedPlan
from retrain.champion import answers_of, problem_of
from retrain.collapse import TOLD_BY, collapsed
from retrain.dataset import Problem
from retrain.lifecycle import Run
from retrain.promotion import Blocked, rolled_back, shadows_of
from retrain.retrainer import Pause, Retrainer
from retrain.run import Answers
from retrain.shadow import Batch, ShadowRows, bet_scale, score, worth_keeping
from retrain.training import Refused
from streams.errors import AccessDenied, DriftlineError, RestartMe, Unavailable
from streams.events import Baseline, rfc3339

WAIT_S = 5.0
"""Between two looks at the log: each costs a scan of what came."""
MAX_SHADOWS = 3


log = structlog.get_logger("retrain")


@dataclass(frozen=True, slots=True)
class _Shadows:
    problem: Problem
    promoted: Answers
    others: dict[str, Answers]
    bets: dict[str, PairedBets]
    normal: Baseline | None
    """What the promoted version achieved in its test."""


class Probation:
    """One probation in one process: :meth:`step` until the run has ended; then, or to give it up, :meth:`close`."""

    def __init__(self, tools: Retrainer, run: Run, check: Callable[[], None]) -> None:
        self._tools = tools
        self._settings = tools.settings_of(run.model)
        self._record = tools.record(run, check)
        self._check = check
        self._rows = ShadowRows(tools.log, run.model, str(run.version), run.seen_ms)
        self._shadows: _Shadows | None = None
        self._complete_ms: list[int] = []
        """Of each compared row."""
        self._errors: list[float] = []
        """The promoted version's, of each compared row."""
        self._kept = 0

    @property
    def _compared(self) -> int:
        return len(self._complete_ms)

    @property
    def run(self) -> Run:
        """The run as it was last persisted."""
        return self._record.run

    def step(self) -> Run:
        """Look at what has come and act on it; blocks for one read and the scoring of its rows → the run.

        Raises :class:`Unavailable`, :class:`RestartMe` or :class:`AccessDenied` when a service is gone or refuses us;
        the next process goes on with it.
        """
        self._check()
        try:
            self._step()
        except (Refused, Blocked) as reason:
            self._release(str(reason))
        except (AccessDenied, Unavailable, RestartMe):
            raise
        except DriftlineError as error:
            self._release(str(error))
        return self.run

    def finish(self, pause: Callable[[float], None]) -> Run:
        """Step until the run has ended; ``pause`` waits, or raises to abort."""
        try:
            while not self.step().ended:
                pause(WAIT_S)
        finally:
            self.close()
        return self.run

    def close(self) -> None:
        """Leave the log."""
        self._rows.close()

    # Steps ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        run, tools = self.run, self._tools
        if run.state == "promoted":
            self._record.move("watching", shadows=shadows_of(run, tools.runs.of(run.model), MAX_SHADOWS))
            return
        if run.back_to is not None:
            self._roll_back(run.back_to)
            return
        champion = self._record.state().aliases.get("champion")
        if champion != str(run.version):
            raise Blocked(f"version {champion} took its place")
        if self._look():
            return
        if self._compared >= self._settings.probation_rows:
            self._record.move("confirmed", reason=f"no worse on {self._compared} rows", probation=self._findings())
        elif self._over():
            raise Blocked(
                f"{self._compared} of {self._settings.probation_rows} rows could be compared within"
                f" {self._settings.probation_s:g} s, and it was not found worse on them"
            )

    def _look(self) -> bool:
        """Read to the end of the log as it is → whether the version was found worse."""
        for rows in self._rows.batches(self._check):
            if self._compare(rows):
                return True
            if self._compared >= self._settings.probation_rows:
                break
        return False

    def _compare(self, rows: Batch) -> bool:
        tools, shadows = self._tools, self._opened()
        scored = score(rows, shadows.problem, shadows.promoted, shadows.others, tools.log.predictions, self._check)
        errors = scored.first(self._settings.probation_rows - self._compared)
        self._complete_ms += errors.complete_ms.tolist()
        self._errors += errors.promoted.tolist()
        found = {v: bets.add(errors.promoted, errors.shadows[v]) for v, bets in shadows.bets.items()}
        worse = [version for version, evidence in found.items() if evidence.found]
        if not worse:
            if worth_keeping(self._compared, self._kept):  # for whoever asks how it stands
                self._record.keep(probation=self._findings())
                self._kept = self._compared
            self._note_collapse(shadows.normal)
            return False
        best = min(worse, key=lambda version: found[version].reference_error)
        since_ms = self._turned_ms(found[best])
        self._record.keep(
            back_to=best,
            worse_since_ms=self.run.worse_since_ms if since_ms is None else since_ms,
            worse_seen_ms=self._complete_ms[-1],
            verdict=self._describe(best, found[best], since_ms),
            probation=self._findings(),
        )
        self._roll_back(best)
        return True

    def _note_collapse(self, normal: Baseline | None) -> None:
        """Let a run begin soon if the version is hardly ever right, though nothing that served before is better.

        The monitor sees a version's own outcomes only, of which late labels bring none for as long as they are late.
        """
        newest = np.asarray(self._errors[-TOLD_BY:])
        if self.run.worse_since_ms is not None or len(newest) < TOLD_BY or not collapsed(normal, newest):
            return
        change = ChangePoint()
        change.extend(self._errors)
        since_ms = self._complete_ms[-change.split(rising_only=True).least_squares_window]
        self._record.keep(worse_since_ms=since_ms)
        log.warning("collapsed on probation", model=self.run.model, version=self.run.version, since=rfc3339(since_ms))

    def _roll_back(self, to: str) -> None:
        run = self.run
        version, state = str(run.version), self._record.state()
        if state.aliases.get("champion") != to:  # a process that ended after the change has made it already
            self._check()
            state = self._record.change(lambda s: rolled_back(s, version, to), "rolledback", run.verdict)
        self._record.tell("rolledback", state, reason=run.verdict, detail=f"to version {to}")
        self._record.move("rolled_back", reason=run.verdict)

    def _release(self, reason: str) -> None:
        found = f"{self.run.verdict}, but {reason}" if self.run.back_to is not None else reason
        if self.run.state == "promoted":
            self._record.move("watching")
        self._record.move("released", reason=found, probation=self._findings() or self.run.probation)

    # What the steps share ---------------------------------------------------------------------------------------

    def _opened(self) -> _Shadows:
        if self._shadows is None:
            self._shadows = self._open()
        return self._shadows

    def _open(self) -> _Shadows:
        """The versions, loaded. One that cannot be, or that answers something else, is nothing to go back to."""
        run, settings, repository = self.run, self._settings, self._tools.repository
        manifest = repository.manifest(run.model, int(run.version or 0))
        problem = problem_of(manifest)
        others: dict[str, Answers] = {}
        why = "it replaced no version"
        for version in run.shadows:
            try:
                older = repository.manifest(run.model, int(version))
                if problem_of(older) != problem:
                    raise Refused(f"version {version} takes other features or answers other classes")
                others[version] = answers_of(repository.load(run.model, int(version)), older)
            except (AccessDenied, Unavailable, RestartMe):
                raise
            except (DriftlineError, Refused) as error:
                why = str(error)
        if not others:
            raise Refused(f"there is nothing to compare it with: {why}")
        scale = bet_scale(problem, manifest.baseline)
        plan = PairedPlan(settings.probation_significance / len(others), settings.probation_rows)
        answers = answers_of(repository.load(run.model, int(run.version or 0)), manifest)
        bets = {version: PairedBets(plan, scale) for version in others}
        return _Shadows(problem, answers, others, bets, manifest.baseline)

    def _over(self) -> bool:
        began_ms = self.run.promoted_ms or self.run.updated_ms
        return self._tools.now_ms() >= began_ms + int(self._settings.probation_s * 1000)

    def _turned_ms(self, evidence: PairedEvidence) -> int | None:
        """Since when the version did worse, if it had done better before: the concept that it knew has gone."""
        since = evidence.since_row
        return self._complete_ms[since] if 0 < since < len(self._complete_ms) else None

    def _findings(self) -> dict[str, Any]:
        """The evidence against each shadow, as the run keeps it."""
        if self._shadows is None:
            return {}
        return {version: asdict(bets.evidence) for version, bets in self._shadows.bets.items()}

    def _describe(self, to: str, evidence: PairedEvidence, since_ms: int | None) -> str:
        what = "mean error" if self._opened().problem.task == "regression" else "share wrong"
        return (
            f"version {self.run.version} does worse than version {to} would have done: {what}"
            f" {evidence.watched_error:.4f} against {evidence.reference_error:.4f} on {evidence.rows} rows after the"
            f" promotion, worse on {evidence.worse} and better on {evidence.better} of them"
            f" (e-value {evidence.highest:.3g}, needed {evidence.needed:g})"
            + ("" if since_ms is None else f"; it did better until {rfc3339(since_ms)}")
        )


def probation(tools: Retrainer, run: Run, check: Callable[[], None], pause: Pause) -> Run:
    """Take the probation of ``run`` to its end; blocks. ``check`` and ``pause`` raise to abort; another resumes it."""
    return Probation(tools, run, check).finish(pause)
