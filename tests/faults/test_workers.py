"""Workers that are killed, frozen, and come and go, while traffic flows."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import datetime
from itertools import cycle

import pytest

from tests.faults.conftest import Note
from tests.faults.traffic import Shape
from tests.faults.trial import KILLED, RESTART_ME, Trial
from tests.support.driftline import Process, eventually
from tests.support.supervisor import Supervisor

WORKERS = 3
TAKEOVER_S = 2.0
"""A worker that was given partitions so recently is at its takeover."""
STAGE_BOUND_S = 400.0
ATTEMPTS = 8
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


def test_kill_minus_nine(trial: Trial, kills: int, note: Note) -> None:
    """Killed at their work, while they take partitions, and while they start, workers lose and repeat nothing."""
    rng = random.Random(20)
    killed: Counter[str] = Counter()
    trial.prepare()
    with Supervisor(trial.driftline, WORKERS) as supervisor, trial.traffic(Shape(rows_per_s=300)) as traffic:
        supervisor.started()
        trial.joined_more(500, "the first pairs")
        for wish in cycle(STAGES):
            if wish == "steady":
                trial.joined_more(100, "between the kills work is done", STAGE_BOUND_S)
            victims = eventually(
                lambda: [each for each in supervisor.workers if stage(each) == wish],  # noqa: B023 - called at once
                f"a worker at its {wish}",
                STAGE_BOUND_S,
                poll_s=0.05,
            )
            time.sleep(rng.uniform(0, 1.0))
            victim = rng.choice(victims)
            at = stage(victim)
            victim.kill()
            killed[at] += victim.exit_code == KILLED  # it may have ended by itself just before
            if killed.total() % 20 == 0:
                note(f"{dict(killed)} so far, {trial.driftline.stored_counters().joined} pairs")
            if killed.total() == kills:
                break
        supervisor.started()
        trial.joined_more(500, "the workers go on")
        verdict = trial.verify(supervisor, traffic, allowed=(KILLED, RESTART_ME))
        assert verdict.codes[KILLED] == kills
        assert verdict.alerts
    note(f"{kills} kills ({dict(killed)}); {verdict}")


def test_a_zombies_writes_are_refused(trial: Trial, full: bool, note: Note) -> None:
    """Frozen past its session with work in hand, a worker is fenced when it goes on: nothing is counted twice.

    One that learns of the rebalance before it writes has nothing to be refused, and is frozen again.
    """
    wanted, refused, frozen = (5 if full else 1), 0, 0
    trial.prepare()
    with Supervisor(trial.driftline, 2) as supervisor, trial.traffic() as traffic:
        supervisor.started()
        while refused < wanted:
            assert frozen < ATTEMPTS * wanted, "it never wrote"
            zombie = eventually(lambda: [w for w in supervisor.workers if stage(w) == "steady"], "a worker at work")[0]
            (heir,) = [each for each in supervisor.workers if each is not zombie]
            inherited, fenced, taken = takes(heir), fences(zombie), takes(zombie)
            zombie.freeze()
            try:
                eventually(lambda: takes(heir) > inherited, "its heir has its partitions")  # noqa: B023 - called at once
                trial.joined_more(1_000, "its heir goes on")
            finally:
                zombie.thaw()
            eventually(lambda: takes(zombie) > taken, "it has partitions of its own again")  # noqa: B023
            frozen += 1
            refused += fences(zombie) > fenced
            trial.joined_more(500, "both go on")
        verdict = trial.verify(supervisor, traffic)
    note(f"frozen {frozen} times, refused {refused} times; {verdict}")


def takes(worker: Process) -> int:
    """How often it was assigned partitions."""
    return len(worker.events("partitions.assigned"))


def fences(worker: Process) -> int:
    """How many partitions it was refused to write."""
    return len(worker.events("partition.fenced"))


@pytest.mark.long
def test_a_storm_of_rebalances(trial: Trial, full: bool, note: Note) -> None:
    """Workers that join and leave every five seconds: the work goes on, and each leaves with exit code 0."""
    rng = random.Random(3)
    rounds, left = (24 if full else 6), 0
    trial.prepare()
    with Supervisor(trial.driftline, 1) as supervisor, trial.traffic() as traffic:
        supervisor.started()
        for _ in range(rounds):
            if len(supervisor.workers) < WORKERS and (left == 0 or rng.random() < 0.6):
                supervisor.add()
            elif len(ready := [each for each in supervisor.workers if each.ready.exists()]) > 1:
                leaver = rng.choice(ready)
                assert supervisor.leave(leaver) == 0, leaver.tail()
                left += 1
            time.sleep(5.0)
        verdict = trial.verify(supervisor, traffic, allowed=(RESTART_ME,))
    note(f"{rounds} rounds, {left} workers left; {verdict}")
