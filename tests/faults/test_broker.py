"""A broker that dies, and one that answers nothing, while traffic flows."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Note
from tests.faults.trial import RESTART_ME, UNAVAILABLE, Trial
from tests.support.driftline import eventually
from tests.support.supervisor import Supervisor

WATCHDOG_S = 10
SILENT = ("the broker has answered nothing", "nothing has been fetched", "there is lag, and nothing has moved")
"""What the watchdog says; which of them is a matter of what came to its limit first."""


@pytest.mark.long
def test_a_broker_that_is_killed_and_comes_back(trial: Trial, full: bool, note: Note) -> None:
    """SIGKILL, some seconds of nothing, a recovery of its log: workers wait or are started again."""
    kills = 5 if full else 1
    trial.prepare()
    with Supervisor(trial.driftline, 2) as supervisor, trial.traffic() as traffic:
        supervisor.started()
        for _ in range(kills):
            trial.joined_more(1_000, "the work goes on")
            trial.broker.kill()
            time.sleep(2.0)
            trial.broker.start()
        trial.joined_more(1_000, "the work goes on")
        verdict = trial.verify(supervisor, traffic, allowed=(RESTART_ME, UNAVAILABLE))
    note(f"{kills} kills of the broker; {verdict}")


@pytest.mark.long
@pytest.mark.parametrize("store_too", [False, True], ids=["alone", "with the store"])
def test_a_broker_that_answers_nothing(trial: Trial, full: bool, store_too: bool, note: Note) -> None:
    """It stands still with its connections open: the watchdog ends the workers, and those after them cannot start.

    A store that stands still too, as in a partition of the network, is no excuse.
    """
    if store_too and not full:
        pytest.skip("one silent broker is enough here; make faults has this one")
    trial.prepare()
    with Supervisor(trial.driftline, 2, worker__watchdog_s=WATCHDOG_S) as supervisor, trial.traffic() as traffic:
        workers = supervisor.started()
        trial.joined_more(1_000, "the first pairs")
        began = time.monotonic()
        trial.broker.pause()
        try:
            if store_too:
                trial.store.pause()
            eventually(lambda: not any(each.is_running for each in workers), "the watchdog ends both")
            eventually(lambda: supervisor.codes()[UNAVAILABLE], "a new worker says that no broker answers")
            time.sleep(max(0.0, (100 if full else 0) - (time.monotonic() - began)))
        finally:
            trial.broker.resume()
            if store_too:
                trial.store.resume()
        assert {worker.exit_code for worker in workers} == {RESTART_ME}
        assert all(any(what in worker.said() for what in SILENT) for worker in workers), [w.said() for w in workers]
        silent_s = time.monotonic() - began
        trial.joined_more(1_000, "the work goes on")
        verdict = trial.verify(supervisor, traffic, allowed=(RESTART_ME, UNAVAILABLE))
    note(f"silent for {silent_s:.0f} s; {verdict}")
