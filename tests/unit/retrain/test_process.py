"""Training in a child process, and the threads that runs are in."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from retrain.active import ActiveRuns
from retrain.champion import problem_of
from retrain.child import ChildFailed, Job, Kept, perform_in_child
from retrain.contest import Contest
from retrain.lease import Leases
from retrain.lifecycle import move
from retrain.metrics import RetrainMetrics
from retrain.retrainer import Retrainer
from retrain.run import Stage
from retrain.training import Refused
from streams.errors import Unavailable
from streams.events import Drift, rfc3339
from tests.unit.retrain.loop import SETTINGS, Crash, Loop, new_loop
from tests.unit.retrain.rows import START_MS, concept, dataset, features

BOUND_S = 60.0


def job(loop: Loop, **settings: Any) -> Job:
    """A training on the changed concept."""
    manifest = loop.repository.manifest("loans", 1)
    rows = features(400, seed=7)
    return Job(
        dataset(rows, concept(rows, changed=True)),
        problem_of(manifest),
        2,
        SETTINGS.model_copy(update=settings),
        significance=0.05,
        archive_significance=0.0,
        champion=Kept(loop.repository.load("loans", 1), manifest),
        fresh=0,
        change=None,
        minimum=200,
    )


def test_a_child_trains_and_tells_its_stages(tmp_path: Path) -> None:
    """The answer and each stage come over the pipe, and the parent is asked in between."""
    stages: list[Stage] = []
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1

    found = perform_in_child(job(new_loop(tmp_path)), stages.append, check)
    assert found.challenger is not None
    assert found.rivals[0].comparison.better
    assert stages == ["training", "exporting", "verifying"]
    assert checks > 1


def test_a_refusal_in_the_child_is_a_refusal_here(tmp_path: Path) -> None:
    """The reason crosses the pipe."""
    with pytest.raises(Refused, match="no row is left to test on"):
        perform_in_child(job(new_loop(tmp_path), test_share=0.0001), lambda _: None, lambda: None)


def child_of_ours() -> psutil.Process | None:
    """The training process, if there is one."""
    servers = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return next((child for server in servers for child in server.children()), None)


def test_a_killed_child_is_a_failure_and_not_a_wait(tmp_path: Path) -> None:
    """Out of memory: the parent learns it at once."""

    def kill() -> None:
        if (child := child_of_ours()) is not None:
            child.kill()

    with pytest.raises(ChildFailed, match="exit code -9"):
        perform_in_child(job(new_loop(tmp_path), trees=5_000, depth=20), lambda _: None, kill)


def test_an_abort_leaves_no_child_behind(tmp_path: Path) -> None:
    """A stop ends the training at once."""

    def abort() -> None:
        if child_of_ours() is not None:
            raise Crash

    with pytest.raises(Crash):
        perform_in_child(job(new_loop(tmp_path), trees=5_000, depth=20), lambda _: None, abort)
    assert child_of_ours() is None


class FakeLeases(Leases):
    """Leases in memory that tests take away."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.away = False

    def take(self, model: str) -> bool:
        if model in self.held:
            return False
        self.held.add(model)
        return True

    def renew(self, model: str) -> bool:
        if self.away:
            raise Unavailable("away", "")
        return model in self.held

    def release(self, model: str) -> None:
        self.held.discard(model)


def eventually(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(loop: Loop) -> Retrainer:
    """A loop whose training waits until it is interrupted."""

    def perform(_: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        while True:
            check()
            time.sleep(0.01)

    return loop.retrainer(perform=perform)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A loop after a change of concept."""
    made = new_loop(tmp_path)
    made.live(changed=True)
    return made


def test_a_run_starts_under_its_lease_and_gives_it_back(loop: Loop) -> None:
    """One run a model: a second start does nothing, an end frees the lease and is counted."""
    leases, metrics = FakeLeases(), RetrainMetrics()
    active = ActiveRuns(loop.retrainer(), leases, metrics)
    run = loop.alerted()
    active.start([run])
    active.start([run])
    assert leases.held == {"loans"}
    eventually(active.reap)
    assert leases.held == set()
    assert loop.state.aliases["champion"] == "2"
    assert metrics.registry.get_sample_value("driftline_retrain_runs_total", {"result": "promoted"}) == 1
    assert metrics.registry.get_sample_value("driftline_promotions_total", {"model": "loans"}) == 1
    assert metrics.registry.get_sample_value("driftline_retrain_active", {"model": "loans"}) is None


def test_a_run_that_another_process_ended_is_not_started_again(loop: Loop) -> None:
    """What was read before the lease was taken may be old."""
    leases = FakeLeases()
    active = ActiveRuns(loop.retrainer(), leases, RetrainMetrics())
    old = loop.alerted()
    loop.finish(old)
    active.start([old])
    assert leases.held == set()
    assert not active.reap()


def test_a_model_whose_lease_is_taken_is_left_alone(loop: Loop) -> None:
    """Another process runs it."""
    leases = FakeLeases()
    leases.take("loans")
    active = ActiveRuns(loop.retrainer(), leases, RetrainMetrics())
    active.start([loop.alerted()])
    assert not active.reap()
    assert [run.state for run in loop.runs.of("loans")] == ["triggered"]


def test_a_probation_goes_on_beside_a_run(loop: Loop) -> None:
    """It has a lease of its own: a new alert's run need not wait a week, and both are counted apart."""
    leases, metrics = FakeLeases(), RetrainMetrics()
    promoted = loop.finish(loop.alerted())
    loop.live(changed=True, rows=300, seed=11)
    active = ActiveRuns(waiting(loop), leases, metrics)
    active.watch([promoted])
    active.watch([promoted])
    drift = Drift("adwin", change_at=rfc3339(START_MS), version="2")
    active.start([loop.alerted(fingerprint="f2", drift=drift)])
    assert leases.held == {"loans", "loans/probation"}
    eventually(lambda: sorted(run.state for run in loop.runs.of("loans")) == ["training", "watching"])
    loop.serve(SETTINGS.probation_rows, wrong_labels=True)
    eventually(lambda: active.reap() and leases.held == {"loans"})
    labels = {"model": "loans", "result": "confirmed"}
    assert metrics.registry.get_sample_value("driftline_probations_total", labels) == 1
    assert metrics.registry.get_sample_value("driftline_probation_active", {"model": "loans"}) is None
    assert metrics.registry.get_sample_value("driftline_retrain_active", {"model": "loans"}) == 1
    active.stop()
    assert leases.held == set()


def test_a_probation_that_another_process_ended_is_not_started_again(loop: Loop) -> None:
    """What was read before the lease was taken may be old."""
    leases = FakeLeases()
    active = ActiveRuns(loop.retrainer(), leases, RetrainMetrics())
    promoted = loop.finish(loop.alerted())
    loop.serve(SETTINGS.probation_rows, wrong_labels=True)
    loop.watch(promoted)
    active.watch([promoted])
    assert leases.held == set()
    assert not active.reap()


@pytest.mark.parametrize("away", [False, True])
def test_a_lost_lease_ends_the_run_and_not_the_process(loop: Loop, away: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost, or not known to be held for as long as it lasts: the run stops without an effect, resumable."""
    monkeypatch.setattr("retrain.active.RENEW_S", 0.0)
    monkeypatch.setattr("retrain.active.LEASE_MS", 0)
    leases = FakeLeases()
    active = ActiveRuns(waiting(loop), leases, RetrainMetrics())
    active.start([loop.alerted()])
    eventually(lambda: loop.runs.of("loans")[0].state == "training")
    leases.held.clear()
    leases.away = away
    active.renew()
    eventually(active.reap)
    assert loop.state.aliases == {"champion": "1"}
    assert not loop.runs.of("loans")[0].ended


def test_a_stop_interrupts_and_gives_the_leases_back(loop: Loop) -> None:
    """The next process need not wait for the lease to run out."""
    leases = FakeLeases()
    active = ActiveRuns(waiting(loop), leases, RetrainMetrics())
    active.start([loop.alerted()])
    active.stop()
    assert leases.held == set()
    assert not [t for t in threading.enumerate() if t.name == "run-loans"]


def test_what_a_run_fails_with_is_not_swallowed(loop: Loop) -> None:
    """A bug, or a broker that is away, ends the process with its own error."""

    def fails(*_: Any) -> Contest:
        raise Crash

    active = ActiveRuns(loop.retrainer(perform=fails), FakeLeases(), RetrainMetrics())
    active.start([loop.alerted()])

    def reaped() -> bool:
        with pytest.raises(Crash):
            while not active.reap():
                time.sleep(0.01)
        return True

    eventually(reaped)


def test_metrics_tell_since_when_a_run_is_in_its_state(tmp_path: Path) -> None:
    """Whoever works on it: a rule tells of the one that takes no step. What has moved on or ended is no longer told."""
    loop, metrics = new_loop(tmp_path), RetrainMetrics()
    run = loop.alerted()
    metrics.at_work([run])
    name = "driftline_retrain_step_timestamp_seconds"
    labels = {"model": "loans", "state": "triggered"}
    assert metrics.registry.get_sample_value(name, labels) == run.updated_ms / 1000
    metrics.at_work([move(run, "collecting", run.updated_ms + 5_000)])
    assert metrics.registry.get_sample_value(name, labels) is None
    assert metrics.registry.get_sample_value(name, {**labels, "state": "collecting"}) == run.updated_ms / 1000 + 5
    metrics.at_work([])
    assert metrics.registry.get_sample_value(name, {**labels, "state": "collecting"}) is None
