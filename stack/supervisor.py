"""Runs named child processes: started in order, restarted when that can help, stopped in reverse order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stack.child import GRACE_S, ChildProcess
from streams.errors import RestartMe, Unavailable

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Which ends are worth a fresh start, and how many of them.

    A process killed by a signal (a crash, the kernel's memory killer) is restarted whatever ``exit_codes`` says. The
    n-th restart waits ``first_delay_s · 2ⁿ⁻¹``, at most ``longest_delay_s``. After ``attempts`` restarts without a run
    that stayed ready for ``healthy_after_s`` the process has failed.
    """

    exit_codes: frozenset[int] = frozenset({Unavailable.exit_code, RestartMe.exit_code})
    attempts: int = 5
    first_delay_s: float = 0.5
    longest_delay_s: float = 10.0
    healthy_after_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 0 or self.first_delay_s < 0 or self.longest_delay_s < 0 or self.healthy_after_s < 0:
            raise ValueError("attempts and times of a restart policy are not negative")

    def delay_s(self, restarts: int, exit_code: int) -> float | None:
        """How long to wait before restart number ``restarts + 1``; None: do not restart."""
        if restarts >= self.attempts or not (exit_code < 0 or exit_code in self.exit_codes):
            return None
        return float(min(self.first_delay_s * 2**restarts, self.longest_delay_s))


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process. ``env`` is its whole environment; ``ready`` is asked until it is true and should not block long."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool]
    ready_within_s: float = 60.0
    grace_s: float = GRACE_S
    restart: RestartPolicy = field(default_factory=RestartPolicy)


class State(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # ended; a restart is due
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Status:
    """One change of state. ``detail`` is one line for a person."""

    name: str
    state: State
    pid: int | None
    exit_code: int | None
    detail: str


class _Run:
    """The mutable side of one process."""

    def __init__(self, spec: ProcessSpec, child: ChildProcess) -> None:
        self.spec = spec
        self.child = child
        self.state = State.STOPPED
        self.since_s = 0.0
        self.restarts = 0
        self.restart_at_s = 0.0


class Supervisor:
    """Runs ``specs`` with their logs in ``data_dir/logs``.

    ``start``, ``poll`` and ``stop`` belong to one thread, which has to live as long as the processes: on Linux the
    kernel kills them when it ends, so nothing outlives us even after SIGKILL. ``on_change`` is called in that thread.
    """

    def __init__(
        self, data_dir: Path, specs: Sequence[ProcessSpec], on_change: Callable[[Status], None] = lambda _: None
    ) -> None:
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise ValueError(f"process names repeat: {names}")
        folder = data_dir.resolve()
        self._on_change = on_change
        self._stop_asked = False
        self._runs = [
            _Run(
                spec,
                ChildProcess(spec.name, folder / "logs" / f"{spec.name}.log", folder / "run" / f"{spec.name}.json"),
            )
            for spec in specs
        ]

    def start(self, *, together: bool = False) -> None:
        """Start each when the one before it is ready (or all ``together``); returns when all are, or early if asked to
        stop.

        Raises :class:`Unavailable` if one fails; then everything is stopped again.
        """
        try:
            if together:
                for run in self._runs:
                    self._launch(run, "")
            for run in self._runs:
                if not together:
                    self._launch(run, "")
                while run.state is not State.READY and not self._stop_asked:
                    self.poll()
                    time.sleep(POLL_S)
                if self._stop_asked:
                    return
        except BaseException:
            self.stop()
            raise

    def poll(self) -> None:
        """Look after every process once: never blocks longer than a readiness probe. Call it a few times a second.

        Raises :class:`Unavailable` when a process has ended and a restart cannot help.
        """
        for run in self._runs:
            if run.state in (State.STARTING, State.READY):
                self._look_at(run)
            elif run.state is State.WAITING and time.monotonic() >= run.restart_at_s:
                self._launch(run, f"restart {run.restarts} of {run.spec.restart.attempts}")

    def run(self) -> None:
        """Start, look after everything until SIGTERM, SIGINT or :meth:`ask_to_stop`, then stop everything.

        Main thread only. Raises :class:`Unavailable` if a process fails for good.
        """
        with self.signals():
            try:
                self.start()
                while not self._stop_asked:
                    self.poll()
                    time.sleep(POLL_S)
            finally:
                self.stop()

    def ask_to_stop(self) -> None:
        """Make :meth:`run` and :meth:`start` return soon; safe from a signal handler and from any thread."""
        self._stop_asked = True

    @property
    def stop_asked(self) -> bool:
        """Whether a signal or :meth:`ask_to_stop` asked for the end."""
        return self._stop_asked

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While inside, SIGTERM and SIGINT ask to stop (main thread only). The processes get SIGTERM in order by
        :meth:`stop`; they do not see the terminal's Ctrl-C themselves."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            self.ask_to_stop()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop in reverse order: SIGTERM, and SIGKILL to the process's group after its grace period. Blocks."""
        for run in reversed(self._runs):
            if run.state in (State.STARTING, State.READY):
                run.child.stop(run.spec.grace_s)
                self._change(run, State.STOPPED, f"{run.spec.name} stopped")
            elif run.state is State.WAITING:
                self._change(run, State.STOPPED, f"{run.spec.name} stopped")

    def status(self, name: str) -> State:
        """Where the process is now, as of the last :meth:`poll`. Raises KeyError for a name that it does not run."""
        return {run.spec.name: run.state for run in self._runs}[name]

    def _launch(self, run: _Run, why: str) -> None:
        run.child.start(run.spec.argv, run.spec.env)
        self._change(run, State.STARTING, f"starting {run.spec.name}" + (f" ({why})" if why else ""))

    def _look_at(self, run: _Run) -> None:
        code = run.child.exit_code()
        age_s = time.monotonic() - run.since_s
        if code is not None:
            self._ended(run, code)
        elif run.state is State.STARTING:
            if run.spec.ready():
                self._change(run, State.READY, f"{run.spec.name} is ready")
            elif age_s > run.spec.ready_within_s:
                run.child.kill()
                self._fail(run, f"{run.spec.name} is not ready after {run.spec.ready_within_s:g} s")
        elif age_s > run.spec.restart.healthy_after_s:
            run.restarts = 0

    def _ended(self, run: _Run, code: int) -> None:
        if run.state is State.READY and time.monotonic() - run.since_s > run.spec.restart.healthy_after_s:
            run.restarts = 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        said = f"{run.spec.name} {how}: {run.child.last_words()}"
        delay_s = run.spec.restart.delay_s(run.restarts, code)
        if delay_s is None:
            self._fail(run, said)
        run.restarts += 1
        run.restart_at_s = time.monotonic() + delay_s
        self._change(run, State.WAITING, f"{said} (restart in {delay_s:g} s)")

    def _change(self, run: _Run, state: State, detail: str) -> None:
        run.state = state
        run.since_s = time.monotonic()
        self._on_change(Status(run.spec.name, state, run.child.pid, run.child.exit_code(), detail))

    def _fail(self, run: _Run, why: str) -> NoReturn:
        self._change(run, State.FAILED, why)
        raise Unavailable(why, f"its log is {run.child.log}")
