"""Steady traffic at a rate, as a process of its own: predictions of one model and, some rows later, their outcomes."""

from __future__ import annotations

import argparse
import signal
import time

from bench.workloads import Workload, Writer
from streams.settings import load

STEP_S = 0.02


def main() -> None:
    """Write until SIGTERM; the deployment's topics must exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--rate", type=float, required=True, help="pairs a second")
    parser.add_argument("--shuffle", type=int, default=10_000)
    options = parser.parse_args()
    flags = {"kafka.bootstrap": options.bootstrap, "kafka.topic_prefix": options.prefix}
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    writer = Writer(load(environ={}, flags=flags)[0], Workload("traffic", "", 0, options.shuffle), linger_ms=5)
    began, written = time.monotonic(), 0
    while not stop:
        due = int((time.monotonic() - began) * options.rate)
        writer.predictions(due - written, flush=False)
        written = due
        time.sleep(STEP_S)
    writer.outcomes()


if __name__ == "__main__":
    main()
