"""When a worker ends itself because it has stalled, and when it must not."""

from __future__ import annotations

import msgspec
import pytest

from streams.watchdog import Signs, Watchdog

LIMIT_S = 120.0


def signs(**told: float | bool) -> Signs:
    """A worker that owns partitions and has heard nothing since second 0, but for what is told."""
    quiet = {"answered_s": 0, "fetched_s": 0, "moved_s": 0, "waiting": False, "owns": True, "lagging": False}
    return msgspec.convert(quiet | told, Signs)


@pytest.mark.parametrize("owns", [True, False])
def test_a_broker_that_answers_nothing_ends_the_worker(owns: bool) -> None:
    """It shows no lag, so silence alone must do, with and without partitions; not before the limit."""
    watchdog = Watchdog(LIMIT_S, 0)
    assert watchdog.judge(signs(owns=owns), LIMIT_S) is None
    assert watchdog.judge(signs(owns=owns), LIMIT_S + 1) == "the broker has answered nothing for 121 s"


def test_a_worker_that_fetches_no_more_ends_although_its_group_lives() -> None:
    """Faust can stop reading for ever after a slow seek: heartbeats go on, no fetch is sent, no lag is known."""
    watchdog = Watchdog(LIMIT_S, 0)
    assert watchdog.judge(signs(answered_s=500, fetched_s=400), 500) is None
    assert watchdog.judge(signs(answered_s=600, fetched_s=400), 600) == "nothing has been fetched for 200 s"
    assert watchdog.judge(signs(answered_s=600, owns=False), 600) is None


def test_lag_without_progress_ends_the_worker() -> None:
    """Fetches that are answered are no progress while records wait; a topic without new records is no lag."""
    watchdog = Watchdog(LIMIT_S, 0)
    still = {"answered_s": 500.0, "fetched_s": 500.0, "moved_s": 300.0}
    assert watchdog.judge(signs(**still), 500) is None
    assert watchdog.judge(signs(**still, lagging=True), 500) == "there is lag, and nothing has moved for 200 s"
    assert watchdog.judge(signs(**still | {"moved_s": 450}, lagging=True), 500) is None


def test_a_store_that_does_not_answer_is_waited_for_however_long() -> None:
    """Neither during the pause nor just after it: the worker gets the whole limit to move again."""
    watchdog = Watchdog(LIMIT_S, 0)
    for now_s in range(0, 1000, 10):
        paused = signs(answered_s=now_s, waiting=True, lagging=True)
        assert watchdog.judge(paused, now_s) is None
    assert watchdog.judge(signs(answered_s=1100, lagging=True), 1100) is None
    assert watchdog.judge(signs(answered_s=1112, lagging=True), 1112) is not None


def test_a_paused_store_does_not_excuse_the_broker() -> None:
    """Heartbeats go on while the store is waited for, so a silent broker is seen all the same."""
    assert Watchdog(LIMIT_S, 0).judge(signs(waiting=True), LIMIT_S + 1) is not None
