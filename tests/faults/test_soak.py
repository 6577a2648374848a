"""Faults at random for minutes: memory stays level, and in the end everything is accounted for."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.faults.conftest import Note
from tests.faults.traffic import Shape
from tests.faults.trial import KILLED, RESTART_ME, UNAVAILABLE, Trial
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.supervisor import Supervisor

SECONDS = "SOAK_S"
"""`SOAK_S=600` (make soak) says how long."""
SEED = "SOAK_SEED"
WARM_UP_SHARE = 0.5
"""Of a worker's life."""
APART_S = 60.0
"""How far apart two samples of a worker's memory are at least, to say how it grows."""
EVERY_S = 15
LEVEL_MB_PER_MIN = 2.0
MEMORY: dict[str, str | int | float] = {"worker__dedupe_s": 30, "worker__watchdog_s": 60}
"""Rows are forgotten within the warm-up, so that whatever grows afterwards is a leak."""


class Faults:
    """Breaks one thing at a time and mends it. The eldest worker is never killed: its memory is measured."""

    def __init__(self, trial: Trial, supervisor: Supervisor, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._trial = trial
        self._supervisor = supervisor
        self._rng = rng

    def one(self) -> str:
        """→ what was broken."""
        name = self._rng.choice(("kill", "kill", "freeze", "join", "store", "restart", "broker"))
        getattr(self, f"_{name}")()
        self.done[name] += 1
        return name

    def _kill(self) -> None:
        if len(workers := self._supervisor.workers) > 1:
            workers[-1].kill()

    def _freeze(self) -> None:
        worker = self._rng.choice(self._supervisor.workers)
        worker.freeze()
        time.sleep(self._rng.uniform(1, 8))
        worker.thaw()

    def _join(self) -> None:
        self._supervisor.add()
        time.sleep(self._rng.uniform(5, 15))
        self._supervisor.leave(self._supervisor.workers[-1])

    def _store(self) -> None:
        self._trial.store.pause()
        time.sleep(self._rng.uniform(1, 12))
        self._trial.store.resume()

    def _restart(self) -> None:
        self._trial.store.kill()
        self._trial.store.start()

    def _broker(self) -> None:
        self._trial.broker.pause()
        time.sleep(self._rng.uniform(1, 6))
        self._trial.broker.resume()


class Memory:
    """What each worker has in use over its life, in MB: the allocator keeps what it once had, so resident memory only
    tells of the largest backlog.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._samples: dict[int, list[tuple[float, float]]] = {}

    def sample(self) -> None:
        """Ask every worker that runs."""
        for worker in self._supervisor.workers:
            try:
                used = worker.metric("driftline_memory_used_bytes") / 1e6
            except OSError:
                continue  # it has ended just now, or does not serve yet
            self._samples.setdefault(worker.pid, []).append((time.monotonic(), used))

    def __str__(self) -> str:
        running = [
            (self._samples[each.pid][-1][1], psutil.Process(each.pid).memory_info().rss / 1e6)
            for each in self._supervisor.workers
            if each.pid in self._samples and psutil.pid_exists(each.pid)
        ]
        return " and ".join(f"{used:.0f} of {resident:.0f}" for used, resident in running) + " MB in use"

    def slope(self) -> tuple[float, float]:
        """Of the worker that lived longest, after its warm-up: (seconds looked at, MB a minute).

        The median over all pairs of samples (Theil–Sen): a backlog comes and goes, a leak grows all the time.
        """
        longest = max(self._samples.values(), key=lambda samples: samples[-1][0] - samples[0][0])
        warm = np.array(longest[int(WARM_UP_SHARE * len(longest)) :])
        at_s, used = warm[:, 0] - warm[0, 0], warm[:, 1]
        first, then = np.nonzero(at_s[None, :] - at_s[:, None] >= APART_S)
        return float(at_s[-1]), 60 * float(np.median((used[then] - used[first]) / (at_s[then] - at_s[first])))


@pytest.mark.skipif(SECONDS not in os.environ, reason="ten minutes: make soak")
def test_soak(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, note: Note) -> None:
    """Two workers, one fault a quarter of a minute from a seed: the law holds, memory does not grow."""
    seconds, seed = float(os.environ[SECONDS]), int(os.environ.get(SEED) or time.time())
    note(f"{seconds:g} s with seed {seed} ({SEED}={seed} does it again)")
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, **MEMORY)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor:
            trial.prepare()
            with trial.traffic(Shape(rows_per_s=300, seed=seed)) as traffic:
                supervisor.started()
                faults, memory = Faults(trial, supervisor, random.Random(seed)), Memory(supervisor)
                began = time.monotonic()
                while (elapsed_s := time.monotonic() - began) < seconds:
                    what = faults.one()
                    for _ in range(EVERY_S):
                        memory.sample()
                        time.sleep(1.0)
                    joined = trial.driftline.stored_counters().joined
                    note(f"{elapsed_s:.0f} s: {what}; {joined} pairs, {memory}")
                verdict = trial.verify(supervisor, traffic, allowed=(KILLED, RESTART_ME, UNAVAILABLE))
    lived_s, slope = memory.slope()
    note(f"{dict(faults.done)}; {slope:+.2f} MB/min over {lived_s:.0f} s; {verdict}")
    assert abs(slope) < LEVEL_MB_PER_MIN
