"""The process of a stream worker: started, watched, stopped within its bound."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import structlog

from native.library import state as inner_loops
from streams.allocator import keep_memory
from streams.app import build
from streams.cli import report
from streams.engine import Engine
from streams.errors import DriftlineError, RestartMe
from streams.exposition import MetricsPage, process_registry
from streams.metrics import WorkerMetrics
from streams.settings import Settings
from streams.stopping import STOP_GRACE_S
from streams.transport import require_versions

UNFINISHED = "nothing is lost: the next owner reads on from the checkpoint before"

log = structlog.get_logger(__name__)


def die(error: BaseException) -> None:
    """End the process at once: everything that matters is in the store, and a clean stop could hang on a bad state."""
    if isinstance(error, DriftlineError):
        report(error)
        code = error.exit_code
    else:
        log.error("worker.failed", exc_info=error)
        code = DriftlineError.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(settings: Settings, ready_file: Path | None = None, *, accept_loss: bool = False) -> None:
    """Run a worker until SIGTERM or SIGINT. Raises :class:`DriftlineError` if it cannot start.

    ``accept_loss``: a partition whose state neither the store nor the log has any more begins again from nothing.
    """
    require_versions()
    keep_memory()
    registry = process_registry()
    page = MetricsPage(settings.worker.http, registry, "worker.http")
    log.info("metrics.serving", port=page.port)
    try:
        with tempfile.TemporaryDirectory(prefix="driftline-worker-") as data_dir:
            metrics = WorkerMetrics(registry)
            asyncio.run(_run(settings, metrics, data_dir, ready_file, page.port, accept_loss=accept_loss))
    finally:
        page.close()


async def _run(
    settings: Settings,
    metrics: WorkerMetrics,
    data_dir: str,
    ready_file: Path | None,
    port: int,
    *,
    accept_loss: bool,
) -> None:
    engine = Engine(settings, metrics, die, accept_loss=accept_loss)
    app = build(settings, engine, data_dir, die)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watching = asyncio.create_task(engine.watch(lambda: app.crash_reason if app.crashed else None))
    # Faust has started once it has its partitions, for which it may have to wait: a stop must not wait with it.
    starting, stopped = asyncio.create_task(app.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        await starting
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)  # batches are large and acyclic: the default walks them for nothing
        if ready_file is not None:
            ready_file.write_text(f"http://127.0.0.1:{port}/metrics\n")
        kafka, loops = settings.kafka.bootstrap, inner_loops()
        log.info("worker.started", group=settings.worker.group, bootstrap=kafka, inner_loops=loops)
        await stopped
    log.info("worker.stopping")
    deadline = threading.Timer(STOP_GRACE_S, die, [RestartMe(f"not stopped after {STOP_GRACE_S:g} s", UNFINISHED)])
    deadline.daemon = True
    deadline.start()
    watching.cancel()
    await app.stop()
    await starting
    engine.close()
    deadline.cancel()
    log.info("worker.stopped")
    if engine.unfinished is not None:
        raise RestartMe(f"the last checkpoint was not taken: {engine.unfinished.message}", UNFINISHED)
