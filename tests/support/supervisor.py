"""A supervisor of workers, as README's table of exit codes tells one to be: restarts what a restart helps."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.driftline import Driftline, Process, eventually

RESTART = frozenset({69, 70, 75})
"""Exit codes after which a restart helps. A process that a signal killed is started again too."""
POLL_S = 0.05
START_BOUND_S = 400.0
"""A worker imports for some seconds, and much longer while others use the machine."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that ended by itself or by a signal: its exit code, negative for a signal, and its log's end."""

    name: str
    code: int
    said: str


class Supervisor:
    """Keeps ``workers`` processes of a deployment running.

    Works in a thread of its own, in which the processes are started, so that they end with it. Thread-safe.
    """

    def __init__(self, driftline: Driftline, workers: int, **changes: str | int | float) -> None:
        self.ended: list[Ended] = []
        self._driftline = driftline
        self._changes = changes
        self._wanted = workers
        self._running: list[Process] = []
        self._given_up: list[Ended] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._wanted = 0
            for worker in self._running:
                worker.kill()
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(POLL_S):
                with self._lock:
                    self._tend()
        except BaseException as error:  # noqa: BLE001 - told to whoever asks next
            self._failure = error

    def _tend(self) -> None:
        for worker in [each for each in self._running if not each.is_running]:
            self._running.remove(worker)
            ended = Ended(worker.name, worker.exit_code, worker.said())
            self.ended.append(ended)
            if ended.code >= 0 and ended.code not in RESTART:
                self._given_up.append(ended)
                self._wanted -= 1
        while len(self._running) < self._wanted:
            self._running.append(self._driftline.daemon("worker", **self._changes))

    @property
    def workers(self) -> list[Process]:
        """The processes that run now, oldest first. Raises what went wrong in the thread."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return [each for each in self._running if each.is_running]

    def started(self, workers: int | None = None) -> list[Process]:
        """Wait until all of them (or ``workers``) are ready."""

        def ready() -> list[Process]:
            found = [each for each in self.workers if each.ready.exists()]
            return found if len(found) >= (self._wanted if workers is None else workers) else []

        return eventually(ready, "the workers are ready", START_BOUND_S)

    def add(self) -> None:
        """One more worker."""
        with self._lock:
            self._wanted += 1

    def leave(self, worker: Process) -> int:
        """SIGTERM one for good → its exit code."""
        with self._lock:
            self._running.remove(worker)
            self._wanted -= 1
        return worker.terminate()

    def end(self) -> list[int]:
        """SIGTERM all of them at once, once all have started → their exit codes.

        One that is restarted just then and has not come to its handlers yet would be ended by the signal itself.
        """
        self.started()
        with self._lock:
            workers = [each for each in self._running if each.is_running]
            self._running.clear()
            self._wanted = 0
        for worker in workers:
            worker.signal_termination()
        return [worker.wait() for worker in workers]

    def given_up(self) -> list[Ended]:
        """Workers whose exit code says that a restart does not help."""
        with self._lock:
            return list(self._given_up)

    def codes(self) -> Counter[int]:
        """How the workers have ended, by exit code."""
        with self._lock:
            return Counter(each.code for each in self.ended)
