"""A worker as the command line starts it, that notes where the measured part begins.

The one hook is before Faust starts: imports, settings and the check of the topics are behind it, joining the group,
taking the partitions and all work are ahead. With ``--stages`` it has the timers of :mod:`bench.stages` too; a SIGUSR1
then writes their totals.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import psutil

from bench import stages
from bench.process import own_cpu_s, write_json
from streams.app import WorkerApp


def main() -> None:
    """Run ``driftline`` with the arguments after ``--``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--begin", type=Path, required=True, help="where the state at the beginning is written")
    parser.add_argument("--stages", type=Path, help="where SIGUSR1 writes the time by stage and thread")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    stopwatch = stages.Stopwatch()
    if options.stages is not None:
        stages.install(stopwatch)
        cost_s = stages.call_cost_s()
    start = WorkerApp.start  # inherited from mode.Service

    async def started(app: WorkerApp) -> None:
        before = stages.thread_cpu_s()
        if options.stages is not None:

            def report(*_: object) -> None:
                names = stages.named_threads()
                threads = [
                    (names.get(tid, name), cpu - before.get(tid, ("", 0.0))[1])
                    for tid, (name, cpu) in stages.thread_cpu_s().items()
                ]
                write_json(options.stages, {"stages": stopwatch.totals(), "threads": threads, "call_cost_s": cost_s})

            signal.signal(signal.SIGUSR1, report)
        write_json(
            options.begin,
            {
                "pid": os.getpid(),
                "cpu_s": own_cpu_s(),
                "at_s": time.monotonic(),
                "rss": psutil.Process().memory_info().rss,
            },
        )
        await start(app)

    setattr(WorkerApp, "start", started)  # noqa: B010 - an assignment is an error to mypy
    sys.argv = ["driftline", *[each for each in options.arguments if each != "--"]]
    runpy.run_module("driftline", run_name="__main__")


if __name__ == "__main__":
    main()
