"""Runs under way in this process: one thread each, stopped together, each under its model's lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from retrain.lease import LEASE_MS, LeaseLost, Leases
from retrain.lifecycle import Run
from retrain.metrics import RetrainMetrics
from retrain.retrainer import Retrainer
from streams.errors import AccessDenied, Unavailable

RENEW_S = LEASE_MS / 1000 / 3
STOP_S = 30.0

log = structlog.get_logger("retrain")


class Stopped(Exception):
    """This process ends; the run resumes in the next one."""


class _Active:
    """One run in its thread."""

    def __init__(self, run: Run, execute: Callable[[_Active], Run]) -> None:
        self.model = run.model
        self.run = run
        self.renewed_at = time.monotonic()
        self.ended: Run | None = None
        self.failure: BaseException | None = None
        self._why: Exception | None = None
        self._interrupt = threading.Event()
        self._execute = execute
        self._thread = threading.Thread(target=self._main, name=f"run-{run.model}", daemon=True)
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
        """Start those whose model has no run under way, here or elsewhere."""
        for run in runs:
            if run.model in self._active or not self._leases.take(run.model):
                continue
            # Another process may have taken it further, or to its end, before it gave the lease back.
            fresh = self._retrainer.runs.load(run.model, run.episode)
            if fresh.ended:
                self._leases.release(run.model)
                continue
            self._metrics.started(run.model)
            self._active[run.model] = _Active(
                fresh, lambda active: self._retrainer.execute(active.run, active.check, active.pause)
            )

    def renew(self) -> None:
        """Renew the leases that are due; a run that lost its lease is interrupted."""
        for active in self._active.values():
            if time.monotonic() - active.renewed_at < RENEW_S:
                continue
            try:
                held = self._leases.renew(active.model)
            except Unavailable as error:
                if time.monotonic() - active.renewed_at < LEASE_MS / 1000:
                    log.warning("lease not renewed", model=active.model, reason=str(error))
                    continue
                held = False
            if held:
                active.renewed_at = time.monotonic()
            else:
                active.interrupt(LeaseLost(f"the lease of {active.model} is no longer ours"))

    def reap(self) -> bool:
        """Take note of runs that are over → whether any was. Raises what a run failed with, unless it is its lease."""
        over = [active for active in self._active.values() if not active.alive]
        for active in over:
            del self._active[active.model]
            self._metrics.stopped(active.model)
            if isinstance(active.failure, LeaseLost):
                log.warning("run given up", model=active.model, reason=str(active.failure))
                continue
            self._leases.release(active.model)
            if active.failure is not None:
                raise active.failure
            if active.ended is not None:
                self._metrics.ended(active.ended)
        return bool(over)

    def stop(self) -> None:
        """Interrupt every run, wait for their threads (and children), and give the leases back."""
        for active in self._active.values():
            active.interrupt(Stopped("the process ends"))
        for active in self._active.values():
            active.join(STOP_S)
            try:
                self._leases.release(active.model)
            except (Unavailable, AccessDenied) as error:
                log.warning("lease not released, it will run out", model=active.model, reason=str(error))
        self._active.clear()
