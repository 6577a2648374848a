"""One round of a run: enough rows, a contest on them, and what is kept of its winner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from retrain.champion import problem_of
from retrain.child import ChildFailed, Job, Kept
from retrain.collapse import QUICK_ROWS, is_stopgap
from retrain.collecting import Collector, made_ms
from retrain.dataset import Dataset, Problem
from retrain.lifecycle import UNASKED
from retrain.promotion import rigour, weariness
from retrain.record import RunRecord
from retrain.registration import card_of, manifest_of, metrics_of, parity_of
from retrain.run import Challenger, Stage
from retrain.training import Refused
from retrain.triggers import next_rows, regular_labels, rows_needed
from serving.repository import CorruptVersion, VersionTaken
from streams.errors import MissingInput
from streams.events import rfc3339

if TYPE_CHECKING:
    from retrain.retrainer import Pause, Retrainer

MAX_ATTEMPTS = 3

TRAINED_SHARE = 0.8
"""Of the significance; the archive has the rest. A concept that comes back shows on few rows."""


class Round:
    """The rounds of one run in one process."""

    def __init__(self, tools: Retrainer, record: RunRecord, check: Callable[[], None], pause: Pause) -> None:
        self._tools = tools
        self._record = record
        self._settings = tools.settings_of(record.run.model)
        self._check = check
        self._pause = pause
        self._log = structlog.get_logger("retrain").bind(model=record.run.model, episode=record.run.episode)

    def take(self) -> None:
        """Wait for rows, hold the contest, and either keep its winner, wait for more rows, or raise
        :class:`Refused` with the verdict."""
        tools, run, settings = self._tools, self._record.run, self._settings
        champion = self._kept(int(run.champion))
        problem = problem_of(champion.manifest)
        archive, left_out = self._archive(problem)
        fresh_ms = max(run.since_ms or 0, made_ms(tools.log, champion.manifest, self._check))
        needed = rows_needed(tools.runs.of(run.model), run.champion, settings)
        dataset = self._collect(problem, fresh_ms, needed, archived=bool(archive))
        self._record.require_champion(self._record.state())
        if run.attempts >= MAX_ATTEMPTS:
            raise Refused(f"training was begun {run.attempts} times and never ended: see the log")
        fresh = dataset.row_after(fresh_ms - 1)
        rows = len(dataset) - fresh
        version, runs = self._reserve(), tools.runs.of(run.model)
        stricter = rigour(runs) * (weariness(runs) if run.kind in UNASKED else 1.0)
        self._record.move("training", version=version, attempts=run.attempts + 1)
        job = Job(
            dataset,
            problem,
            version,
            settings,
            significance=self._significance(TRAINED_SHARE if archive else 1.0, run.trainings) / stricter,
            archive_significance=self._significance(1.0 - TRAINED_SHARE, run.rounds) / stricter,
            champion=champion,
            fresh=fresh,
            change=None if run.since_ms is None else dataset.row_after(run.since_ms - 1),
            minimum=needed,
            archive=archive,
            left_out=left_out,
        )
        trained_from = {
            **dataset.describe(tools.predictions_topic, tools.log.labelled_topic),
            "since_ms": run.since_ms,
            "unknown_as_missing": problem.accepts_missing,
        }
        try:
            found = tools.perform(job, self._stage, self._check)
        except ChildFailed as error:
            self._log.error("training failed", reason=str(error), attempt=self._record.run.attempts)
            self._record.move("collecting")
            return
        except Refused:  # rows that are not fit count as used: the next run by labels waits for new ones
            self._record.keep(tested_rows=rows, trained_from=trained_from)
            raise
        for reason in found.left_out:
            if reason not in left_out:
                self._log.warning("archived version left out", reason=reason)
        if found.archived is not None:
            self._take_back(found.archived, found.verdict, trained_from, rows)
        elif found.challenger is not None:
            self._write(found.challenger, champion, problem, found.verdict, trained_from, rows)
        elif self._may_wait(rows, len(dataset)):
            self._record.move(
                "collecting",
                rounds=run.rounds + bool(found.rivals),
                trainings=run.trainings + found.trained,
                tested_rows=rows,
                attempts=0,
                verdict=found.verdict,
                trained_from=trained_from,
            )
        else:
            self._record.keep(verdict=found.verdict, tested_rows=rows, trained_from=trained_from)
            raise Refused(f"not better: {found.verdict}" if found.rivals else found.verdict)

    def _significance(self, share: float, before: int) -> float:
        """What a contest may spend: all of its share in a run of one round, else half of what ``before`` others left.

        However often a run looks, the sum stays within the significance: that bounds its false promotions.
        """
        whole = share * self._settings.significance
        return whole / 2 ** (before + 1) if self._run_waits else whole

    @property
    def _run_waits(self) -> bool:
        """An alert says that something is wrong now, so more rows are worth waiting for; anything else comes again."""
        return self._record.run.kind == "alert"

    def _write(
        self,
        challenger: Challenger,
        champion: Kept,
        problem: Problem,
        verdict: str,
        trained_from: dict[str, Any],
        rows: int,
    ) -> None:
        """Put a challenger that won into the repository."""
        tools, run = self._tools, self._record.run
        version = int(run.version or 0)
        trained_from = {**trained_from, "trained_on": challenger.source}
        written = manifest_of(
            challenger,
            problem,
            version,
            created_at=rfc3339(tools.now_ms()),
            trained_from=trained_from,
            trigger=run.trigger,
            parent=int(run.champion),
        )
        card = card_of(written, challenger)
        self._check()
        try:
            tools.repository.write_version(run.model, version, challenger.onnx, written, card)
        except VersionTaken as taken:  # by a process that was stopped for longer than its lease, and went on
            self._log.warning("trained again", reason=str(taken))
            self._record.move("collecting")
            return
        self._record.keep(
            better=True,
            tested_rows=rows,
            verdict=verdict,
            metrics=metrics_of(challenger),
            parity=parity_of(challenger),
            trained_from=trained_from,
            stopgap=is_stopgap(champion.manifest.baseline, challenger.baseline),
        )

    def _take_back(self, version: int, verdict: str, tested_on: dict[str, Any], rows: int) -> None:
        """An archived version won: it is proposed as it is. The number that was reserved stays unused."""
        manifest = self._tools.repository.manifest(self._record.run.model, version)
        self._record.keep(
            better=True,
            tested_rows=rows,
            version=version,
            verdict=verdict,
            metrics=manifest.metrics,
            parity=manifest.parity,
            trained_from=tested_on,
        )

    def _kept(self, version: int) -> Kept:
        repository, model = self._tools.repository, self._record.run.model
        return Kept(repository.load(model, version), repository.manifest(model, version))

    def _archive(self, problem: Problem) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
        """The newest versions beside the champion that answer the same question, without those that a person took back;
        and why damaged ones are left out.
        """
        repository, model, limit = self._tools.repository, self._record.run.model, self._settings.archive_versions
        excluded = {self._record.run.champion, *self._record.state().barred}
        found: list[Kept] = []
        left_out: list[str] = []
        for version in reversed(repository.versions(model)):
            if len(found) == limit:
                break
            if str(version) in excluded:
                continue
            try:
                kept = self._kept(version)
                alike = problem_of(kept.manifest) == problem
            except (CorruptVersion, MissingInput, Refused) as error:
                self._log.warning("archived version left out", version=version, reason=str(error))
                left_out.append(f"version {version} cannot come back: {error}")
                continue
            if alike:
                found.append(kept)
        return tuple(found), tuple(left_out)

    def _collect(self, problem: Problem, fresh_ms: int, needed: int, *, archived: bool) -> Dataset:
        """Wait until there are enough new rows, after a contest that nobody won half as many again."""
        tools, run, settings = self._tools, self._record.run, self._settings
        minimum = max(min(QUICK_ROWS, needed), next_rows(run.tested_rows))
        for enough in (settings.archive_rows if archived else 0, needed):
            if run.tested_rows < enough <= next_rows(minimum):
                minimum = enough  # whoever may be weighed from then on need not wait for another look
        collector = Collector(tools.log, problem, settings.maximum_rows)
        try:
            return collector.collect(fresh_ms, minimum, self._check, self._pause, self._must_end)
        except Refused as refusal:
            if run.tested_rows and run.verdict:
                raise Refused(f"not better: {run.verdict}" if run.rounds else run.verdict) from None
            raise Refused(str(refusal)) from None

    def _reserve(self) -> int:
        """The number that the run holds already, one that an ended run left unused, or a new one.

        Not one under which a crash left a version, or a part of one. Only the holder of the model's lease comes here.
        """
        repository, run = self._tools.repository, self._record.run
        written = repository.begun(run.model)
        if run.version is not None and run.version not in written:
            return run.version
        unused = [r.version for r in self._tools.runs.of(run.model) if not r.at_work and r.better is None and r.version]
        return max(set(unused) - written, default=0) or repository.reserve_version(run.model)

    def _may_wait(self, rows: int, known: int) -> bool:
        """Whether half as many new rows again are worth waiting for, of which ``known`` are there with the older ones;
        runs by number of labels do no less from there on.
        """
        settings = self._settings
        regular = max(regular_labels(known, settings), settings.minimum_rows) if settings.labels else math.inf
        return next_rows(rows) <= min(settings.maximum_rows, regular) and not self._must_end()

    def _must_end(self) -> bool:
        """Whether the time is over, or a run that knows a newer change of the model waits for its turn."""
        tools, run = self._tools, self._record.run
        if not self._run_waits or tools.now_ms() >= (run.begun_ms or run.triggered_ms) + int(
            self._settings.wait_s * 1000
        ):
            return True
        if not run.tested_rows:
            return False
        since_ms = run.since_ms or 0
        return any((other.since_ms or 0) > since_ms for other in tools.runs.of(run.model) if other.at_work)

    def _stage(self, stage: Stage) -> None:
        # Training began when the version was reserved, and a challenger that does not convert is followed by the next.
        if stage not in ("training", self._record.run.state):
            self._record.move(stage)
