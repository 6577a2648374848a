"""A server process of the tests: started until it answers, signalled, and never left behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

START_ATTEMPTS = 5
STOP_BOUND_S = 60.0
POLL_S = 0.05
LOG_TAIL_LINES = 25
PORT_TAKEN = ("Address already in use", "Address in use")


class ServerError(RuntimeError):
    """A server did not start, or a verb was used in the wrong state."""


class Server(ABC):
    """One server on 127.0.0.1 with its data in `directory`; a start after `stop` or `kill` finds data and port again.

    The kernel kills the process when the *thread* that started it ends (so that nothing survives a killed pytest):
    start servers from the main thread.
    """

    name: str
    start_bound_s: float

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / f"{self.name}.log"
        self.log.touch()
        self.port = free_port() if port is None else port
        self._may_move = port is None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Write the configuration for `self.port`; returns the command line."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether every part that a client needs answers; called until it does."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until ready. Until the first success, a port that another process took is replaced."""
        if self.is_running:
            raise ServerError(f"{self.name} runs already: stop it first")
        for attempt in range(1, START_ATTEMPTS + 1):
            log_start = self.log.stat().st_size
            try:
                self._start_once()
            except BaseException as error:
                self.kill()
                retry = isinstance(error, ServerError) and self._may_move and attempt < START_ATTEMPTS
                if retry and any(words in self._log_since(log_start) for words in PORT_TAKEN):
                    self.port = free_port()
                    continue
                raise
            self._may_move = False  # clients know the port from now on
            return

    def stop(self) -> None:
        """Stop in an orderly way (SIGTERM); nothing happens if it does not run."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)  # a paused process does not see SIGTERM
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_BOUND_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash does; nothing happens if it does not run."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop in an orderly way and start on the same data and port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers, as in a network partition."""
        os.killpg(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        os.killpg(self._running().pid, signal.SIGCONT)

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The end of what the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_once(self) -> None:
        command = self._prepare()
        # setpriv, not a preexec_fn: Python between fork and exec can deadlock once a client library has threads.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [executable("setpriv", "util-linux"), "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.start_bound_s
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServerError(
                    f"{self.name} ended at start with exit code {self._process.returncode}; its log ends:\n"
                    f"{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} on {self.address} not ready in {self.start_bound_s:.0f} s; its log ends:\n"
                    f"{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.name} does not run: start it first; its log ends:\n{self.log_tail()}")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _log_since(self, offset: int) -> str:
        return self.log.read_bytes()[offset:].decode(errors="replace")


def executable(name: str, debian_package: str) -> str:
    """The path of a command that the tests need, or an error that says how to get it."""
    path = shutil.which(name)
    if path is None:
        raise ServerError(f"{name} is not on the PATH: install it (Debian: apt-get install {debian_package})")
    return path
