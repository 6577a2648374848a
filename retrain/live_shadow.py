"""A challenger's live answers against the champion's on the same rows, as their labels come.

`driftline serve` writes what the shadow said into the champion's own prediction, so nobody else needs to know of it.
Nothing is kept but the run: a successor reads the rows again from where the challenger's own rows ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detectors.paired_bets import PairedBets, PairedPlan
from retrain.champion import problem_of
from retrain.dataset import PredictionScan, Problem, Reference
from retrain.lifecycle import changed_since
from retrain.record import RunRecord
from retrain.run import absolute_errors, metric_of
from retrain.shadow import Batch, ShadowRows, bet_scale, worth_keeping
from retrain.training import Refused
from streams.events import FullPrediction, ShadowAnswer

if TYPE_CHECKING:
    from retrain.retrainer import Retrainer

Errors = npt.NDArray[np.float64]


def live_errors(
    references: Sequence[Reference], problem: Problem, version: str, scan: PredictionScan, check: Callable[[], None]
) -> tuple[Errors, Errors]:
    """Absolute errors of the champion and of the shadow ``version`` on those of ``references`` that both answered live.

    In the order of ``references``. Features are not needed.
    """
    wanted = {(r.partition, r.prediction_offset): r for r in references}
    answered: dict[tuple[int, int], tuple[float, float, float]] = {}
    for partition in sorted({r.partition for r in references}):
        for offset, prediction in scan(partition, {o for p, o in wanted if p == partition}):
            check()
            found = _answers(prediction, wanted[partition, offset], problem, version)
            if found is not None:
                answered[partition, offset] = found
    table = np.asarray([answered[key] for key in wanted if key in answered], dtype=np.float64).reshape(-1, 3)
    metric = metric_of(problem)
    return absolute_errors(metric, table[:, 0], table[:, 2]), absolute_errors(metric, table[:, 1], table[:, 2])


def _answers(
    prediction: FullPrediction, reference: Reference, problem: Problem, version: str
) -> tuple[float, float, float] | None:
    """Champion, shadow, outcome; None for a row that one of the two did not answer, or that has no known class."""
    shadow = prediction.shadow
    if not isinstance(shadow, ShadowAnswer) or str(shadow.version) != version or prediction.model != problem.model:
        return None
    said, beside = problem.encode(prediction.prediction), problem.encode(shadow.prediction)
    outcome = problem.encode(reference.outcome)
    return None if said is None or beside is None or outcome is None else (said, beside, outcome)


class LiveShadow:
    """The comparison of one run in one process: :meth:`look` until it has an answer; then, or to give it up,
    :meth:`close`.
    """

    def __init__(self, tools: Retrainer, record: RunRecord, check: Callable[[], None]) -> None:
        run, settings = record.run, tools.settings_of(record.run.model)
        manifest = tools.repository.manifest(run.model, int(run.version or 0))
        self._tools = tools
        self._record = record
        self._settings = settings
        self._check = check
        self._problem = problem_of(manifest)
        scale = bet_scale(self._problem, manifest.baseline)
        plan = PairedPlan(settings.shadow_significance, settings.shadow_rows)
        self._better, self._worse = PairedBets(plan, scale), PairedBets(plan, scale)
        self._rows = ShadowRows(tools.log, run.model, run.champion, run.seen_ms)
        self._compared = 0
        self._kept = 0

    @property
    def findings(self) -> dict[str, Any]:
        """The evidence so far that the shadow is better, and that it is worse, as the run keeps it."""
        return {"better": asdict(self._better.evidence), "worse": asdict(self._worse.evidence)}

    def look(self) -> str | None:
        """Compare what has come → the evidence in words once the shadow is better, None while nothing is found.

        Raises :class:`Refused` with the numbers when it is worse, when its rows or its time are over, or when a run
        waits that knows of a change behind the challenger's own rows.
        """
        for rows in self._rows.batches(self._check):
            if (found := self._compare(rows)) is not None:
                return found
            if self._compared >= self._settings.shadow_rows:
                break
        self._require_time()
        return None

    def _compare(self, rows: Batch) -> str | None:
        ours, _ = rows  # what another version predicted has no answer of both
        version = str(self._record.run.version)
        champion, shadow = live_errors(ours, self._problem, version, self._tools.log.predictions, self._check)
        left = self._settings.shadow_rows - self._compared
        champion, shadow = champion[:left], shadow[:left]
        self._compared += len(champion)
        better, worse = self._better.add(champion, shadow), self._worse.add(shadow, champion)
        if worse.found:
            self._refuse(f"worse in shadow: {self._describe(worse.highest)}")
        if better.found:
            return f"better in shadow: {self._describe(better.highest)}"
        if worth_keeping(self._compared, self._kept):  # for whoever asks how it stands
            self._record.keep(shadow_evidence=self.findings)
            self._kept = self._compared
        return None

    def _require_time(self) -> None:
        run, settings = self._record.run, self._settings
        if self._compared >= settings.shadow_rows:
            self._refuse(f"not better in shadow on {settings.shadow_rows} rows: {self._describe()}")
        began_ms = run.shadow_ms or run.updated_ms
        if self._tools.now_ms() >= began_ms + int(settings.shadow_s * 1000):
            none = "; no labelled prediction had an answer of the shadow: is it `driftline serve` that predicts?"
            self._refuse(
                f"not better in shadow within {settings.shadow_s:g} s: {self._describe()}"
                f"{'' if self._compared else none}"
            )
        if changed_since(run, self._tools.runs.of(run.model)):
            self._refuse(f"the world changed again behind its rows, which another run is about: {self._describe()}")

    def _refuse(self, reason: str) -> None:
        self._record.keep(shadow_evidence=self.findings, reason=reason)
        raise Refused(reason)

    def _describe(self, e_value: float | None = None) -> str:
        found = self._better.evidence
        what = "mean error" if self._problem.task == "regression" else "share wrong"
        highest = max(found.highest, self._worse.evidence.highest) if e_value is None else e_value
        return (
            f"{what} {found.reference_error:.4f}, champion {found.watched_error:.4f} on {found.rows} live rows,"
            f" better on {found.worse} and worse on {found.better} of them"
            f" (e-value {highest:.3g}, needed {found.needed:g})"
        )

    def close(self) -> None:
        """Leave the log."""
        self._rows.close()
