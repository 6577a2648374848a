"""Workers that are killed, frozen, and come and go, while traffic flows."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import datetime
from itertools import cycle

from tests.faults.conftest import Note
from tests.faults.traffic import Shape
from tests.faults.trial import KILLED, RESTART_ME, Trial
from tests.support.driftline import Process, eventually
from tests.support.supervisor import Supervisor

KILLS, FULL_KILLS = 6, 300
WORKERS = 3
TAKEOVER_S = 2.0
"""A worker that was given partitions so recently is at its takeover."""
STAGES = ("steady", "takeover", "start-up")


def stage(worker: Process) -> str:
    """Where a worker's life has come to, by its log."""
    if not worker.ready.exists():
        return "start-up"
    taken = [*worker.events("partition.taken"), *worker.events("partitions.assigned")]
    if not taken:
        return "start-up"
    newest = max(datetime.fromisoformat(event["timestamp"]).timestamp() for event in taken)
    assigned = worker.events("partitions.assigned")
    if not assigned or time.time() - newest < TAKEOVER_S:
        return "takeover"
    return "steady" if assigned[-1]["inputs"] else "without partitions"


def test_kill_minus_nine(trial: Trial, full: bool, note: Note) -> None:
    """Killed at their work, while they take partitions, and while they start, workers lose and repeat nothing."""
    rng = random.Random(20)
    wanted = FULL_KILLS if full else KILLS
    killed: Counter[str] = Counter()
    trial.prepare()
    with Supervisor(trial.driftline, WORKERS) as supervisor, trial.traffic(Shape(rows_per_s=300)) as traffic:
        supervisor.started()
        trial.joined_more(500, "the first pairs")
        for wish in cycle(STAGES):
            victims = eventually(
                lambda: [each for each in supervisor.workers if stage(each) == wish],  # noqa: B023 - called at once
                f"a worker at its {wish}",
                poll_s=0.05,
            )
            time.sleep(rng.uniform(0, 1.0))
            victim = rng.choice(victims)
            at = stage(victim)
            victim.kill()
            killed[at] += victim.exit_code == KILLED  # it may have ended by itself just before
            if killed.total() % 50 == 0:
                note(f"{dict(killed)} so far, {trial.driftline.stored_counters().joined} pairs")
            if killed.total() == wanted:
                break
        supervisor.started()
        trial.joined_more(500, "the workers go on")
        verdict = trial.verify(supervisor, traffic, allowed=(KILLED, RESTART_ME))
        assert verdict.codes[KILLED] == wanted
        assert verdict.alerts
    note(f"{wanted} kills ({dict(killed)}); {verdict}")
