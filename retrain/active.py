"""Runs under way in this process: one thread each, stopped together, each under its model's lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from retrain.lease import LEASE_MS, LeaseLost, Leases
from retrain.lifecycle import Run
from retrain.metrics import RetrainMetrics
from retrain.probation import probation
from retrain.retrainer import Retrainer
from retrain.runs import Superseded
from streams.errors import AccessDenied, Unavailable

RENEW_S = LEASE_MS / 1000 / 3
STOP_S = 30.0
WATCH = "/probation"
"""Behind a model's name: the lease of its probation, which goes on beside a run."""

log = structlog.get_logger("retrain")


class Stopped(Exception):
    """This process ends; the run resumes in the next one."""


class _Active:
    """One run in its thread, under the lease of its name."""

    def __init__(self, run: Run, lease: str, execute: Callable[[_Active], Run]) -> None:
        self.model = run.model
        self.lease = lease
        self.run = run
        self.renewed_at = time.monotonic()
        self.ended: Run | None = None
        self.failure: BaseException | None = None
        self._why: Exception | None = None
        self._interrupt = threading.Event()
        self._execute = execute
        self._thread = threading.Thread(target=self._main, name=f"run-{lease}", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            self.ended = self._execute(self)
        except BaseException as error:  # noqa: BLE001 — handed to the main thread, which judges it
            self.failure = error

    def interrupt(self, why: Exception) -> None:
        """Make the run's next check raise ``why``."""
        self._why = self._why or why
        self._interrupt.set()

    def check(self) -> None:
        if self._interrupt.is_set() and self._why is not None:
            raise self._why

    def pause(self, seconds: float) -> None:
        self._interrupt.wait(seconds)
        self.check()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)


class ActiveRuns:
    """Starts runs whose lease is free, keeps their leases, and takes note of their ends. For one thread's use."""

    def __init__(self, retrainer: Retrainer, leases: Leases, metrics: RetrainMetrics) -> None:
        self._retrainer = retrainer
        self._leases = leases
        self._metrics = metrics
        self._active: dict[str, _Active] = {}

    def start(self, runs: list[Run]) -> None:
        """Start those whose model has no run at work, here or elsewhere."""
        for run in runs:
            fresh = self._taken(run, run.model, lambda r: r.at_work)
            if fresh is not None:
                self._metrics.started(run.model)
                self._active[run.model] = _Active(
                    fresh, run.model, lambda active: self._retrainer.execute(active.run, active.check, active.pause)
                )

    def watch(self, runs: list[Run]) -> None:
        """Watch the promoted versions of those, beside the runs that are at work."""
        for run in runs:
            lease = f"{run.model}{WATCH}"
            fresh = self._taken(run, lease, lambda r: r.on_probation)
            if fresh is not None:
                self._metrics.watched(run.model)
                self._active[lease] = _Active(
                    fresh, lease, lambda active: probation(self._retrainer, active.run, active.check, active.pause)
                )

    def _taken(self, run: Run, lease: str, due: Callable[[Run], bool]) -> Run | None:
        """The run as it is now, under its lease; None if it is under way, or no longer due."""
        if lease in self._active or not self._leases.take(lease):
            return None
        # Another process may have taken it further, or to its end, before it gave the lease back.
        fresh = self._retrainer.runs.load(run.model, run.episode)
        if due(fresh):
            return fresh
        self._leases.release(lease)
        return None

    def renew(self) -> None:
        """Renew the leases that are due; a run that lost its lease is interrupted."""
        for active in self._active.values():
            if time.monotonic() - active.renewed_at < RENEW_S:
                continue
            try:
                held = self._leases.renew(active.lease)
            except Unavailable as error:
                if time.monotonic() - active.renewed_at < LEASE_MS / 1000:
                    log.warning("lease not renewed", lease=active.lease, reason=str(error))
                    continue
                held = False
            if held:
                active.renewed_at = time.monotonic()
            else:
                active.interrupt(LeaseLost(f"the lease of {active.lease} is no longer ours"))

    def reap(self) -> bool:
        """Take note of runs that are over → whether any was. Raises what a run failed with, unless it is its lease."""
        over = [active for active in self._active.values() if not active.alive]
        for active in over:
            del self._active[active.lease]
            watched = active.lease != active.model
            (self._metrics.unwatched if watched else self._metrics.stopped)(active.model)
            if isinstance(active.failure, LeaseLost | Superseded):
                log.warning("run given up", model=active.model, reason=str(active.failure))
                continue
            self._leases.release(active.lease)
            if active.failure is not None:
                raise active.failure
            if active.ended is not None:
                (self._metrics.judged if watched else self._metrics.ended)(active.ended)
        return bool(over)

    def stop(self) -> None:
        """Interrupt every run, wait for their threads (and children), and give the leases back."""
        for active in self._active.values():
            active.interrupt(Stopped("the process ends"))
        for active in self._active.values():
            active.join(STOP_S)
            try:
                self._leases.release(active.lease)
            except (Unavailable, AccessDenied) as error:
                log.warning("lease not released, it will run out", lease=active.lease, reason=str(error))
        self._active.clear()
