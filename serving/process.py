"""``driftline serve`` as a process: its parts wired, started and stopped in order, its end told by the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from serving.follow import ModelEventsFollower
from serving.metrics import ServeMetrics
from serving.publisher import PredictionPublisher
from serving.registry import ModelRegistry
from serving.repository import Repository
from serving.server import InferenceServer
from streams.configuration import masked
from streams.errors import Unavailable, WrongSetting
from streams.kafka import SafeProducer, TopicReader
from streams.permissions import require
from streams.settings import Settings
from streams.topics import TopicAdmin, Topics

GRACE_S = 30
BACKLOG = 2_048
KEEP_ALIVE_S = 75
"""Longer than load balancers keep an idle connection, so that they close it and never meet a closed one."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger()


def serve(settings: Settings, http: str | None = None, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises a :class:`streams.errors.DriftlineError` for what keeps it from starting, and
    :class:`streams.errors.RestartMe` when predictions could not be published.
    """
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise WrongSetting(f"the folder of --ready-file {ready_file} does not exist", "make it first")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(http or settings.serve.http))
        require(settings, "serve")
        admin = TopicAdmin(settings)
        admin.create()
        admin.verify()
        topics = Topics(settings.kafka.topic_prefix)
        metrics = ServeMetrics()
        repository = Repository(settings.repository)
        registry = ModelRegistry(repository, metrics, settings.serve.threads)
        failures = Failures()
        follower = ModelEventsFollower(TopicReader(settings.kafka, topics.model_events), registry, failures.add)
        stack.callback(follower.stop)
        follower.read_history(repository)
        publisher = PredictionPublisher(
            SafeProducer(settings.kafka),
            topics.predictions,
            metrics,
            failures.add,
            limit=settings.serve.max_in_flight,
            features=settings.serve.publish_features,
        )
        stack.callback(publisher.close)
        app = InferenceServer(registry, publisher, metrics, settings.serve).app()
        server = StoppableServer(app, listener, ready_file)
        failures.stops(server)
        follower.start()
        if not registry.models():
            log.warning("no model yet: not ready until one is promoted", repository=masked(settings.repository))
        server.run(sockets=[listener])
        failures.raise_first()


def listen(http: str) -> socket.socket:
    """A socket bound to HOST:PORT. Raises :class:`WrongSetting`, or :class:`Unavailable` for a port in use."""
    host, _, port = http.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise WrongSetting(f"{http!r} is not HOST:PORT", "for example --http 127.0.0.1:8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise _cannot_listen(http, error) from None
    return listener


def _cannot_listen(where: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"cannot listen on {where}: {os.strerror(error.errno) if error.errno else error}",
        "stop what uses the port, or choose another with --http",
    )


def url_of(listener: socket.socket) -> str:
    """The address that clients use."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class StoppableServer(uvicorn.Server):
    """uvicorn that says when it accepts connections, and whose stop by signal is a success."""

    def __init__(self, app: object, listener: socket.socket, ready_file: Path | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]  # uvicorn's own protocol types are stricter than Starlette's
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._url = url_of(listener)
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so. Raises :class:`Unavailable` if another process was faster on this port."""
        for listener in sockets or ():
            try:
                listener.listen(BACKLOG)  # uvloop would do it too, but tells nobody when it fails
            except OSError as error:
                raise _cannot_listen(self._url, error) from None
        await super().startup(sockets)
        log.info("serving", url=self._url)
        if self._ready_file is not None:
            aside = self._ready_file.with_name(f".{self._ready_file.name}.{os.getpid()}")
            aside.write_text(self._url + "\n")
            aside.replace(self._ready_file)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal. uvicorn's own raises it again afterwards, which would turn the exit code into 143."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Failures:
    """What went wrong in a thread: it stops the server, and ends the process with its exit code."""

    def __init__(self) -> None:
        self._found: list[Exception] = []
        self._server: uvicorn.Server | None = None

    def stops(self, server: uvicorn.Server) -> None:
        """Stop ``server`` at the first failure, one that has happened already included."""
        self._server = server
        if self._found:
            server.should_exit = True

    def add(self, error: Exception) -> None:
        """Note a failure. Called from any thread."""
        self._found.append(error)
        if self._server is not None:
            self._server.should_exit = True

    def raise_first(self) -> None:
        """Raise the first failure, if there is one."""
        if self._found:
            raise self._found[0]
