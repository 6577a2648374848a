"""Training in a process of its own, so that the parent keeps polling Kafka and renewing its lease."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from retrain.champion import answers_of, fresh_ms
from retrain.collapse import needs_help
from retrain.contest import Archived, Contest, contest
from retrain.data_checks import DataPolicy, require_reported, require_sound
from retrain.dataset import Dataset, Problem
from retrain.gates import missing_matters
from retrain.run import Answers, Stage, absolute_errors, metric_of
from retrain.training import Refused
from serving.manifest import Manifest
from streams.settings import RetrainSettings

POLL_S = 0.1
STOP_S = 5.0
PRELOADED = (
    "__main__",
    "retrain.champion",
    "retrain.contest",
    "onnxmltools.convert.xgboost.operator_converters.XGBoost",
    "onnxruntime",
    "skl2onnx",
    "sklearn.ensemble",
    "xgboost",
)
"""What a training process imports: five seconds of a core, in which the stream moves on and the rows grow old."""


class ChildFailed(Exception):
    """The process ended without an answer: out of memory, killed, or a bug whose traceback is in the log."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that the repository has: its model and what it says of it."""

    onnx: bytes
    manifest: Manifest

    @property
    def fresh_ms(self) -> int:
        """See :func:`retrain.champion.fresh_ms`."""
        return fresh_ms(self.manifest)


@dataclass(frozen=True, slots=True)
class Job:
    """What the process needs: rows, what they answer, the champion to beat, and the versions that may come back.

    ``fresh`` is the first row to compare on, ``change`` that of the estimated change, ``minimum`` how many rows from
    ``fresh`` on are enough to train a challenger.
    """

    dataset: Dataset
    problem: Problem
    version: int
    settings: RetrainSettings
    significance: float
    archive_significance: float
    champion: Kept
    fresh: int
    change: int | None
    minimum: int
    archive: tuple[Kept, ...] = ()
    left_out: tuple[str, ...] = ()
    """Why other versions cannot come back."""


def perform(job: Job, stage: Callable[[Stage], None]) -> Contest:
    """Do the job in this process. Raises :class:`retrain.training.Refused`.

    With fewer rows than ``job.minimum`` a challenger is trained only for a champion that has collapsed or knows
    nothing, and what speaks against these rows ends nothing: more of them will come. With fewer than ``archive_rows``
    the archive is asked only for such a one.
    """
    champion = answers_of(job.champion.onnx, job.champion.manifest)
    rows, needed = len(job.dataset) - job.fresh, job.minimum
    urgent = rows < max(needed, job.settings.archive_rows) and _needs_help(job, champion)
    trains = rows >= needed or urgent
    if not urgent and rows < job.settings.archive_rows:
        job = replace(job, archive=())
    try:
        if trains:
            require_sound(job.dataset, job.problem, job.champion.manifest, job.fresh, _tolerated(job.settings))
        elif job.archive:
            require_reported(job.dataset, job.problem, job.champion.manifest, job.fresh, _tolerated(job.settings))
        found = _contest(job, champion, trains, stage)
    except Refused as refusal:
        if rows >= needed:
            raise
        return Contest((), (str(refusal),))
    if not trains and not found.rivals:
        found = replace(found, refused=(f"{rows} labelled rows since the change, {needed} are needed",))
    return replace(found, trained=trains)


def _tolerated(settings: RetrainSettings) -> DataPolicy:
    return DataPolicy(
        label_errors=settings.label_errors,
        dropped=settings.dropped,
        one_sided=settings.outcomes_one_sided,
        scale=settings.outcome_scale,
    )


def _needs_help(job: Job, champion: Answers) -> bool:
    rows, outcomes = job.dataset.features[job.fresh :], job.dataset.target[job.fresh :]
    if not len(rows):
        return False
    errors = absolute_errors(metric_of(job.problem), champion(rows), outcomes)
    return needs_help(job.champion.manifest.baseline, errors, outcomes)


def _contest(job: Job, champion: Answers, trains: bool, stage: Callable[[Stage], None]) -> Contest:
    archive, left_out = _loaded(job.archive)
    return contest(
        job.dataset,
        job.problem,
        version=job.version,
        settings=job.settings,
        significance=job.significance,
        archive_significance=job.archive_significance,
        champion=champion,
        fresh=job.fresh,
        change=job.change,
        archive=archive,
        left_out=[*job.left_out, *left_out],
        missing=missing_matters(job.champion.manifest, job.problem, job.dataset.features),
        trains=trains,
        stage=stage,
    )


def _loaded(archive: Sequence[Kept]) -> tuple[list[Archived], list[str]]:
    """The versions that load, and why others do not: a champion has to be replaced all the same."""
    found: list[Archived] = []
    left_out: list[str] = []
    for kept in archive:
        manifest = kept.manifest
        try:
            answers, since_ms = answers_of(kept.onnx, manifest), kept.fresh_ms
        except Refused as refusal:
            left_out.append(str(refusal))
            continue
        found.append(Archived(manifest.version, answers, since_ms, kept.onnx, manifest.signature.accepts_missing))
    return found, left_out


def warm_up() -> multiprocessing.context.ForkServerContext:
    """Start the process that training processes are forked from, unless it runs; does not wait for its imports.

    A fork of this process would inherit Kafka clients whose threads are gone; that one has no clients.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    multiprocessing.forkserver.ensure_running()
    return context


def perform_in_child(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
    """Do the job in a child process; blocks, calling ``check`` (which may raise to abort) several times a second.

    Raises :class:`retrain.training.Refused`, also for a training that takes longer than ``retrain.training_s``, and
    :class:`ChildFailed`. The child never outlives the call.
    """
    context = warm_up()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), name=f"train-{job.problem.model}", daemon=True)
    process.start()
    ends = time.monotonic() + job.settings.training_s
    theirs.close()  # so that the end of the child is the end of the pipe
    try:
        while True:
            check()
            if not ours.poll(POLL_S):
                if time.monotonic() >= ends:
                    raise Refused(
                        f"training was not over after {job.settings.training_s:g} s (retrain.training_s), and was ended"
                    )
                continue
            kind, content = _receive(ours, process)
            if kind == "stage":
                stage(content)
            elif kind == "refused":
                raise Refused(content)
            else:
                found: Contest = content
                return found
    finally:
        ours.close()
        process.terminate()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()


def _receive(ours: Connection, process: Any) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = ours.recv()
    except EOFError:
        process.join(STOP_S)
        raise ChildFailed(f"the training process ended with exit code {process.exitcode}") from None
    return message


def _work(job: Job, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent ends us in order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(("done", perform(job, lambda stage: pipe.send(("stage", stage)))))
    except Refused as error:
        pipe.send(("refused", str(error)))
    finally:
        pipe.close()


def _end_with_parent() -> None:
    """A parent that was killed cannot end us, and nobody waits for the answer any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
