"""A crash at every write, rename and publication from the alert to the rollback, and two loops at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retrain.announce import republish
from retrain.child import Job, perform
from retrain.lifecycle import Run
from retrain.run import Stage
from retrain.runs import RunStore, Superseded
from serving.history import Change
from serving.storage import LocalStorage
from streams.events import ModelEvent, ModelState
from tests.unit.retrain.loop import Crash, Loop, alert, new_loop

POINTS = ("before", "aside", "after")
"""Of a write: before it, with the new file written aside but not in place, and right after it."""
BOUNDARIES = 40
"""More than there are: the last ones check that the enumeration reaches the end."""


@dataclass
class Fuse:
    """Burns down by one with each effect; at the end the process dies at ``point`` of it."""

    left: int
    point: str
    burnt: bool = False

    def dies(self) -> bool:
        self.left -= 1
        self.burnt = self.burnt or self.left < 0
        return self.left == -1


class BurningStorage(LocalStorage):
    """A folder whose every write may be the last."""

    def __init__(self, root: Path, fuse: Fuse) -> None:
        super().__init__(root)
        self._folder = root
        self._fuse = fuse

    def create(self, path: str, data: bytes) -> None:
        self._effect(path, data, super().create)

    def replace(self, path: str, data: bytes) -> None:
        self._effect(path, data, super().replace)

    def _effect(self, path: str, data: bytes, write: Callable[[str, bytes], None]) -> None:
        if not self._fuse.dies():
            return write(path, data)
        if self._fuse.point == "aside":
            self._write_aside(path, data)
        elif self._fuse.point == "after":
            write(path, data)
        raise Crash


class BurningAnnouncer:
    """Publications that may be the last: lost, or acknowledged to nobody."""

    def __init__(self, loop: Loop, fuse: Fuse) -> None:
        self._announcer = loop.announcer
        self._fuse = fuse

    def publish(self, event: ModelEvent) -> None:
        if not self._fuse.dies():
            return self._announcer.publish(event)
        if self._fuse.point == "after":
            self._announcer.publish(event)
        raise Crash

    def last_states(self) -> dict[str, ModelState]:
        return self._announcer.last_states()


class Remembered:
    """Trains once for all the enumeration: what is tested here is what is done with the answer."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def __call__(self, job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Any:
        key = job.dataset.sha256
        if key not in self._known:
            self._known[key] = perform(job, lambda _: None)
        for at in ("training", "exporting", "verifying"):
            stage(at)
        return self._known[key]


TRAINED = Remembered()


def live(loop: Loop, announcer: Any) -> None:
    """A process from its start on: what is unpublished, the alert (once more), the run, its probation."""
    republish(loop.repository, announcer, "now")
    loop.retrainer(announcer=announcer).trigger(alert())
    for run in loop.retrainer().unfinished():
        loop.finish(run, announcer=announcer, perform=TRAINED)
    if loop.state.aliases["champion"] != "1" and len(loop.log.records) == 1:
        loop.serve(200)  # the labels are right again
    for run in loop.retrainer().on_probation():
        loop.watch(run, announcer=announcer)


def require_whole(loop: Loop) -> None:
    """Every version that can be seen is complete, and every alias names one."""
    for version in loop.repository.versions("loans"):
        loop.repository.load("loans", version)
        assert loop.repository.card("loans", version)
    for version_named in loop.state.aliases.values():
        assert int(version_named) in loop.repository.versions("loans")


def promotions(loop: Loop) -> int:
    """How often the episode's run made a version the champion."""
    return sum(r.change is not None and r.change.what == "promoted" for r in loop.repository.history("loans"))


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_effect_ends_in_one_promotion_and_one_rollback(tmp_path: Path, point: str) -> None:
    """Cut once at each effect in turn: nothing half-written is seen, and the next process makes it good."""
    reached_the_end = False
    for boundary in range(BOUNDARIES):
        folder = tmp_path / str(boundary)
        loop = new_loop(folder)
        loop.serve(400, wrong_labels=True)
        fuse = Fuse(boundary, point)
        storage = BurningStorage(folder, fuse)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.repository, "_storage", storage)
            patch.setattr(loop.runs, "_storage", storage)
            try:
                live(loop, BurningAnnouncer(loop, fuse))
            except Crash:
                require_whole(loop)
        require_whole(loop)
        live(loop, loop.announcer)
        require_whole(loop)
        assert [run.state for run in loop.runs.of("loans")] == ["rolled_back"], boundary
        assert loop.state.aliases == {"champion": "1"}, boundary
        assert promotions(loop) == 1, boundary
        told = [event.state.revision for event in loop.announcer.events if event.kind == "promoted"]
        assert len(set(told)) == 1, boundary
        assert loop.announcer.last_states()["loans"] == loop.state, boundary
        if not fuse.burnt:
            reached_the_end = True
            break
    assert reached_the_end
    assert boundary > 15


# Two loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["collecting", "training", "exporting", "verifying"])
def test_a_loop_that_lost_its_run_without_knowing_changes_nothing(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped for longer than its lease, at any step; another took over and promoted: its next step is taken."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.alerted()
    save = loop.runs.save

    def overtaken(step: Run) -> None:
        save(step)
        if step.state == at:
            monkeypatch.setattr(loop.runs, "save", save)
            other = Loop(loop.repository, loop.runs, loop.log, loop.announcer, loop.now_ms)
            other.finish(loop.runs.load("loans", run.episode), perform=TRAINED)

    monkeypatch.setattr(loop.runs, "save", overtaken)
    with pytest.raises(Superseded):
        loop.finish(run, perform=TRAINED)
    (left,) = loop.runs.of("loans")
    assert left.state == "promoted"
    assert loop.state.aliases == {"champion": str(left.version), "previous": "1"}
    assert promotions(loop) == 1


@pytest.mark.parametrize("what", ["candidate", "promoted"])
def test_no_change_is_made_for_a_run_that_went_on_without_it(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped right before a change; meanwhile another promoted the version, and it was rolled back."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.alerted()
    change = loop.repository.change

    def stopped(model: str, update: Callable[[ModelState], ModelState], why: Change) -> ModelState:
        if why.what == what:
            monkeypatch.setattr(loop.repository, "change", change)
            other = Loop(loop.repository, RunStore(str(tmp_path)), loop.log, loop.announcer, loop.now_ms)
            done = other.finish(other.runs.load("loans", run.episode), perform=TRAINED)
            other.serve(300, seed=21)
            assert other.watch(done).state == "rolled_back"
        return change(model, update, why)

    monkeypatch.setattr(loop.repository, "change", stopped)
    with pytest.raises(Superseded):
        loop.finish(run, perform=TRAINED)
    assert loop.state.aliases == {"champion": "1"}
    assert promotions(loop) == 1
    assert loop.announcer.last_states()["loans"] == loop.state


@pytest.mark.parametrize("file", ["model.onnx", "MODEL_CARD.md", "manifest.json"])
def test_a_version_is_written_by_one(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped right before a file of it; meanwhile another made a version of the same run, of more rows."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.alerted()

    class Stopping(LocalStorage):
        def create(self, path: str, data: bytes) -> None:
            self._go_on(path)
            super().create(path, data)

        def replace(self, path: str, data: bytes) -> None:
            self._go_on(path)
            super().replace(path, data)

        def _go_on(self, path: str) -> None:
            if not path.endswith(file):
                return
            monkeypatch.setattr(loop.repository, "_storage", storage)
            loop.live(changed=True, rows=300, seed=77)
            other = Loop(loop.repository, RunStore(str(tmp_path)), loop.log, loop.announcer, loop.now_ms)
            assert other.finish(other.runs.load("loans", run.episode)).state == "promoted"

    storage = loop.repository._storage
    monkeypatch.setattr(loop.repository, "_storage", Stopping(tmp_path))
    with pytest.raises(Superseded):
        loop.finish(run)
    require_whole(loop)
    (left,) = loop.runs.of("loans")
    assert loop.state.aliases == {"champion": str(left.version), "previous": "1"}
    assert loop.repository.manifest("loans", left.version or 0).trained_from["rows"] == 700
    assert promotions(loop) == 1


def test_a_number_that_somebody_wrote_under_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process whose run has ended without it: the next run, which got the same number, trains once more."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    reserve = loop.repository.reserve_version

    def also_another(model: str) -> int:
        version = reserve(model)
        if version == 2:
            loop.repository._storage.create("loans/2/model.onnx", b"of another")
        return version

    monkeypatch.setattr(loop.repository, "reserve_version", also_another)
    ended = loop.finish(loop.alerted())
    assert (ended.state, ended.version) == ("promoted", 3)
    require_whole(loop)


def test_a_step_is_taken_once(tmp_path: Path) -> None:
    """Of two that save the same step one succeeds; the other learns it, and what the first wrote stays."""
    loop = new_loop(tmp_path)
    run = loop.alerted()
    ours, theirs = loop.retrainer().record(run, lambda: None), loop.retrainer().record(run, lambda: None)
    theirs.move("collecting")
    for late in (
        lambda: ours.move("rejected", reason="too late"),
        lambda: ours.change(lambda state: state, "candidate"),
        lambda: ours.tell("rejected", loop.state, reason="too late"),
    ):
        with pytest.raises(Superseded, match="another process"):
            late()
    assert len(loop.repository.history("loans")) == 1
    assert loop.runs.of("loans") == [theirs.run]
