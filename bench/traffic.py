"""Steady traffic at a rate, in a process of its own: predictions of one model and, some rows later, their outcomes."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.deployment import Deployment
from bench.runs import STOP_S, RunFailed, clean_environment
from bench.workloads import Workload, Writer
from streams.settings import load

STEP_S = 0.02
FIRST = 1_000_000_000
"""Its pairs are numbered from here: a deployment may hold those of a workload already."""


@contextmanager
def traffic(deployment: Deployment, rate: float, shuffle: int = 10_000) -> Iterator[None]:
    """Background traffic of ``rate`` pairs a second, none at 0, whose outcomes lag ``shuffle`` predictions behind.

    Raises :class:`RunFailed` if it has ended before its time.
    """
    if not rate:
        yield
        return
    command = [sys.executable, "-m", "bench.traffic", "--bootstrap", deployment.settings.kafka.bootstrap]
    command += ["--prefix", deployment.settings.kafka.topic_prefix, "--rate", str(rate), "--shuffle", str(shuffle)]
    path = deployment.folder / "traffic.log"
    with path.open("w") as log:
        process = subprocess.Popen(command, env=clean_environment(), stdout=log, stderr=log)
    try:
        yield
        if process.poll() is not None:
            raise RunFailed(f"the traffic ended: {path.read_text()[-1_000:]}")
    finally:
        process.terminate()
        process.wait(STOP_S)


def main() -> None:
    """Write until SIGTERM; the deployment's topics must exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--rate", type=float, required=True, help="pairs a second")
    parser.add_argument("--shuffle", type=int, required=True)
    options = parser.parse_args()
    flags = {"kafka.bootstrap": options.bootstrap, "kafka.topic_prefix": options.prefix}
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    workload = Workload("traffic", "", 0, options.shuffle)
    writer = Writer(load(environ={}, flags=flags)[0], workload, first=FIRST, linger_ms=5)
    began, written = time.monotonic(), 0
    while not stop:
        due = int((time.monotonic() - began) * options.rate)
        writer.predictions(due - written, flush=False)
        written = due
        time.sleep(STEP_S)
    writer.outcomes()


if __name__ == "__main__":
    main()
