"""What the embedded broker and the embedded store share: a server child on a free port of 127.0.0.1."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from stack.child import ChildProcess
from stack.folder import FolderLock
from stack.ports import choose_port
from streams.errors import Unavailable

START_ATTEMPTS = 5
POLL_S = 0.05
PORT_TAKEN = ("address already in use", "address in use", "addrinuse")
INSTALL_HINT = "pip install 'driftline[embedded]'"

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody wants to see."""


class EmbeddedServer(ABC):
    """One server for one data folder: a second owner of the folder is refused, a crash leaves nothing in the way.

    Call :meth:`start` from a thread that lives as long as the server should (see :class:`ChildProcess`).
    """

    name: str
    start_within_s = 30.0
    grace_s = 10.0

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        self.folder = data_dir.resolve() / self.name
        self._wanted_port = port
        self._port: int | None = None
        self._lock = FolderLock(self.folder)
        self._child = ChildProcess(
            self.name, data_dir.resolve() / "logs" / f"{self.name}.log", self.folder / "process.json"
        )

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """The command line that listens on ``port``; raises if the server is not installed."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """The whole environment of the server."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether every part that a client needs answers; called until it does."""

    @abstractmethod
    def _prepare_data(self, progress: Progress) -> None:
        """What the server's data needs before it starts; the folder is ours."""

    @property
    def address(self) -> str:
        """``host:port`` of the running server."""
        if self._port is None:
            raise RuntimeError(f"the {self.name} is not started")
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self._child.log

    def start(self, progress: Progress = silent) -> None:
        """Start and wait until clients can use it.

        Raises :class:`Unavailable` if it is not installed, does not get ready, its port is taken or its folder in use.
        """
        if self.pid is not None:
            raise RuntimeError(f"the {self.name} runs already")
        self._command(0)  # not installed? say so before anything is touched
        self._lock.acquire()
        try:
            self._prepare_data(progress)
            self._start(progress)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raise :class:`Unavailable` if the server has ended by itself."""
        code = self._child.exit_code()
        if self._port is not None and code is not None:
            raise Unavailable(f"the {self.name} ended with exit code {code}: {self._child.last_words()}", f"{self.log}")

    def stop(self) -> None:
        """Stop it and give the folder up; nothing happens if it does not run."""
        self._child.stop(self.grace_s)
        self._port = None
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, progress: Progress) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = choose_port(self._wanted_port, self.name)
            progress(f"starting the {self.name} on {self.address}")
            self._child.start(self._command(self._port), self._environment(), cwd=self.folder)
            if self._wait_until_ready():
                progress(f"the {self.name} is ready on {self.address}")
                return
            output = self._child.output().lower()
            if attempt < START_ATTEMPTS and not self._wanted_port and any(words in output for words in PORT_TAKEN):
                continue  # another process took the port between our choice and the server's use of it
            raise Unavailable(
                f"the {self.name} ended at start with exit code {self._child.exit_code()}: {self._child.last_words()}",
                f"its log is {self.log}",
            )

    def _wait_until_ready(self) -> bool:
        """True once it is ready, False if it ended."""
        deadline = time.monotonic() + self.start_within_s
        while not self._is_ready():
            if self._child.pid is None:
                return False
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the {self.name} on {self.address} is not ready after {self.start_within_s:g} s",
                    f"its log is {self.log}",
                )
            time.sleep(POLL_S)
        # Ready, but is it ours? A stranger on the same port would answer after our own process failed to bind.
        return self._child.pid is not None
