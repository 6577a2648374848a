"""One run of each program on a filled deployment: started, watched until its last pair, stopped, and what it used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import redis

from bench.deployment import Deployment
from bench.process import Usage, cpu_s, peak_rss_bytes
from bench.workloads import Workload, expected_errors
from streams.records import Counters
from streams.settings import Settings

BOUND_S = 900.0
STOP_S = 60.0
POLL_S = 0.02
ROOT = Path(__file__).resolve().parent.parent


class RunFailed(RuntimeError):
    """A program ended, hung, or did not do its work; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """One run of the worker.

    ``usage`` counts CPU until the detectors have seen every pair, and wall time until the last pair is in a checkpoint:
    the detectors wait for the watermark, which on an idle input is a second or two behind by design. ``joined`` is what
    the worker's own counters say.
    """

    usage: Usage
    joined: int
    joined_cpu_s: float
    redis_cpu_s: float
    cores: dict[str, float]


class Worker:
    """A worker process of a deployment, from its start on; ``began`` is what it noted before it joined the group."""

    def __init__(self, deployment: Deployment, name: str = "worker", stages: Path | None = None) -> None:
        self.deployment = deployment
        self.log = deployment.folder / f"{name}.log"
        self.stages = stages
        self._begin = deployment.folder / f"{name}.begin"
        self._begin.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.ours", "--begin", str(self._begin)]
        if stages is not None:
            stages.unlink(missing_ok=True)
            command += ["--stages", str(stages)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--", "--log", "info", *deployment.arguments, "worker"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                cwd=deployment.folder,
            )
        try:
            self.until(self._begin.exists, "the worker starts")
        except BaseException:
            self.stop()
            raise
        self.began: dict[str, float] = json.loads(self._begin.read_text())

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def until(self, condition: Callable[[], bool], what: str, bound_s: float = BOUND_S) -> None:
        """Poll until the condition holds. Raises :class:`RunFailed` if the worker ends or the time is over."""
        deadline = time.monotonic() + bound_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                state = (
                    f"the worker ended with {self.process.returncode}" if self.process.poll() is not None else "late"
                )
                raise RunFailed(f"{what}: {state}: {self.log.read_text()[-2_000:]}")
            time.sleep(POLL_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of one event."""
        lines = (msgspec.json.decode(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == name]

    def metrics_url(self) -> str:
        """Where its metrics page is."""
        return f"http://127.0.0.1:{self.events('metrics.serving')[-1]['port']}/metrics"

    def profile(self) -> dict[str, Any]:
        """Its CPU by stage and thread so far (only with ``stages``)."""
        if self.stages is None:
            raise RunFailed("the worker was started without timers")
        self.stages.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        self.until(self.stages.exists, "the worker writes its profile", STOP_S)
        found: dict[str, Any] = json.loads(self.stages.read_text())
        return found

    def stop(self) -> None:
        """SIGTERM; SIGKILL if that does not help."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(deployment: Deployment, name: str = "worker", stages: Path | None = None) -> Iterator[Worker]:
    """A worker that is stopped in the end."""
    worker = Worker(deployment, name, stages)
    try:
        yield worker
    finally:
        worker.stop()


def clean_environment() -> dict[str, str]:
    """Our own environment without settings, and with this folder on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def counters(client: redis.Redis, settings: Settings) -> Counters:
    """What the join's partitions have counted as of their last checkpoints."""
    total = Counters()
    for partition in range(settings.kafka.partitions):
        raw = client.hget(f"{settings.redis.prefix}:{{join:{partition}}}:meta", "counters")
        if isinstance(raw, bytes):
            found = msgspec.json.decode(raw, type=Counters)
            for name in Counters.__struct_fields__:
                setattr(total, name, getattr(total, name) + getattr(found, name))
    return total


def seen(client: redis.Redis, settings: Settings) -> int:
    """How many outcomes the detectors have been fed with, over all models."""
    reports = client.hvals(f"{settings.redis.prefix}:status")
    return sum(version["outcomes"] for report in reports for version in msgspec.json.decode(report)["versions"])


def redis_cpu_s(client: redis.Redis) -> float:
    """CPU-seconds of the store since its start."""
    info: dict[str, Any] = client.info("cpu")
    return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


def worker_run(deployment: Deployment, workload: Workload) -> WorkerRun:
    """Run a worker over the whole workload."""
    with deployment.store.client() as client:
        redis_s = redis_cpu_s(client)
        servers = {"broker": deployment.kafka.pid, "redis": deployment.store.pid}
        before = {name: cpu_s(pid) for name, pid in servers.items()}
        with running(deployment) as worker:
            began = worker.began
            worker.until(lambda: counters(client, deployment.settings).joined >= workload.pairs, "every pair is joined")
            joined_s, wall_s = cpu_s(worker.pid) - began["cpu_s"], time.monotonic() - began["at_s"]
            cores = {name: (cpu_s(pid) - before[name]) / wall_s for name, pid in servers.items()}
            worker.until(lambda: seen(client, deployment.settings) >= workload.pairs, "the detectors have seen all")
            used = Usage(cpu_s(worker.pid) - began["cpu_s"], wall_s, int(began["rss"]), peak_rss_bytes(worker.pid))
            cores["worker"] = joined_s / wall_s
            found = counters(client, deployment.settings)
        if (found.predictions, found.outcomes, found.joined) != (workload.pairs,) * 3:
            raise RunFailed(f"{workload.pairs} pairs were written, and the worker counts {found}")
        return WorkerRun(used, found.joined, joined_s, redis_cpu_s(client) - redis_s, cores)


def bare_run(deployment: Deployment, workload: Workload) -> Usage:
    """Run the bare loop over the whole workload."""
    return _baseline("bench.bare", deployment, workload, ["--models", str(workload.models)])


def faust_run(deployment: Deployment, workload: Workload) -> Usage:
    """Run the stock Faust app over the whole workload."""
    return _baseline("bench.stock_faust", deployment, workload, ["--data-dir", str(deployment.folder / "faust")])


def _baseline(module: str, deployment: Deployment, workload: Workload, more: list[str]) -> Usage:
    settings = deployment.settings
    out = deployment.folder / f"{module}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, "--bootstrap", settings.kafka.bootstrap, "--redis", settings.redis.url]
    command += ["--prefix", settings.kafka.topic_prefix, "--pairs", str(workload.pairs), "--out", str(out), *more]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=BOUND_S
    )
    if done.returncode or not out.exists():
        raise RunFailed(f"{module} ended with {done.returncode}: {done.stdout[-1_000:]}{done.stderr[-1_000:]}")
    told = json.loads(out.read_text())
    if told["errors"] != expected_errors(workload):
        raise RunFailed(f"{module} found {told['errors']} wrong pairs, {expected_errors(workload)} were written")
    return Usage(told["cpu_s"], told["wall_s"], told["rss_begin"], told["rss_peak"])
