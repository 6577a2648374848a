"""The whole of Driftline on one machine: an embedded broker and store, and the three processes of ours beside them."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from stack.broker import EmbeddedBroker
from stack.ports import choose_port
from stack.store import EmbeddedStore
from stack.supervisor import ProcessSpec, State, Status, Supervisor
from streams.settings import load
from streams.topics import TopicAdmin

PROBE_S = 1.0
READY_WITHIN_S = 180.0
"""Importing and compiling on a busy machine takes its time."""
BROKER_LINGER_MS = 50
"""The embedded broker's fetches take longer with each batch that a partition holds: make fewer of them."""
SESSION_S, HEARTBEAT_S = 6, 1
"""A member joins the embedded broker's groups after half its session timeout."""

Progress = Callable[[str], None]


class EmbeddedStack:
    """Broker, store, worker, serve and retrain, with all data below ``data_dir``.

    ``arguments`` are settings for the processes (``--set`` pairs), on top of where the servers are. Everything is
    stopped on exit, and by the kernel if this process is killed. Start and stop it in the main thread.
    """

    def __init__(
        self, data_dir: Path, arguments: Sequence[str] = (), processes: Sequence[str] = ("worker", "serve", "retrain")
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.broker = EmbeddedBroker(self.data_dir)
        self.store = EmbeddedStore(self.data_dir, keep=self.broker.persistent)
        self.repository = self.data_dir / "models"
        self._extra = list(arguments)
        self._processes = processes
        self._exit = ExitStack()
        self.supervisor: Supervisor | None = None
        self.addresses: dict[str, str] = {}

    @property
    def arguments(self) -> list[str]:
        """The arguments that point a ``driftline`` command at this stack."""
        settings = {
            "kafka.bootstrap": self.broker.bootstrap,
            "kafka.linger_ms": BROKER_LINGER_MS,
            "kafka.session_timeout_s": SESSION_S,
            "kafka.heartbeat_s": HEARTBEAT_S,
            "redis.url": self.store.url,
            "repository": self.repository,
            **{f"{name}.http": address for name, address in self.addresses.items()},
        }
        return [*self._extra, *(part for name, value in settings.items() for part in ("--set", f"{name}={value}"))]

    @property
    def serve_url(self) -> str:
        """Where the inference server listens."""
        return f"http://{self.addresses['serve']}"

    def start(self, progress: Progress) -> None:
        """Start the servers, then the processes; returns when all are ready.

        Main thread only. Raises :class:`streams.errors.Unavailable` if one does not come up, KeyboardInterrupt at
        SIGINT or SIGTERM; everything is stopped again then.
        """
        try:
            for server in (self.broker, self.store):
                server.start(progress)
                self._exit.callback(server.stop)
            self.addresses = {name: f"127.0.0.1:{choose_port(0, name)}" for name in ("worker", "serve", "retrain")}
            self.supervisor = Supervisor(self.data_dir, self._specs(), lambda status: _tell(status, progress))
            self._exit.callback(self.supervisor.stop)
            self._create_topics()
            # An exception out of a signal handler may surface where Python drops it: the Ctrl-C would be lost.
            with self.supervisor.signals():
                self.supervisor.start(together=True)
            if self.supervisor.stop_asked:
                raise KeyboardInterrupt
        except BaseException:
            self.stop()
            raise

    def _create_topics(self) -> None:
        """Before the processes: three of them at once would ask for the same."""
        pairs = self.arguments
        flags = dict(pair.split("=", 1) for at, pair in enumerate(pairs) if at and pairs[at - 1] == "--set")
        TopicAdmin(load(flags=flags)[0]).create()

    def _specs(self) -> list[ProcessSpec]:
        probes = {"worker": "/metrics", "serve": "/v2/health/live", "retrain": "/metrics"}
        ready_files = {name: self.data_dir / "run" / f"{name}.ready" for name in self._processes}
        specs = []
        for name in self._processes:
            ready_files[name].parent.mkdir(parents=True, exist_ok=True)
            ready_files[name].unlink(missing_ok=True)
            specs.append(
                ProcessSpec(
                    name,
                    [sys.executable, "-m", "driftline", *self.arguments, name, "--ready-file", str(ready_files[name])],
                    dict(os.environ),
                    _probe(f"http://{self.addresses[name]}{probes[name]}", ready_files[name]),
                    ready_within_s=READY_WITHIN_S,
                )
            )
        return specs

    def poll(self) -> None:
        """Look after everything once. Raises :class:`streams.errors.Unavailable` when something has ended for good."""
        self.broker.check()
        self.store.check()
        if self.supervisor is not None:
            self.supervisor.poll()

    def stop(self) -> None:
        """Stop everything, in reverse order."""
        self._exit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _probe(url: str, ready_file: Path) -> Callable[[], bool]:
    def ready() -> bool:
        if not ready_file.exists():
            return False
        try:
            with urllib.request.urlopen(url, timeout=PROBE_S) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return ready


def _tell(status: Status, progress: Progress) -> None:
    if status.state in (State.STARTING, State.READY, State.WAITING, State.FAILED):
        progress(status.detail)
