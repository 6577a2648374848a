"""Runs that labels, a person or a returning concept lead to, from their trigger to their end."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from retrain.child import Job, perform
from retrain.contest import Contest
from retrain.labels import LabelCounts
from retrain.lifecycle import Run
from retrain.retrainer import Retrainer
from retrain.triggers import run_by
from streams.events import Drift, rfc3339
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import SECOND_MS, START_MS


def by_labels(loop: Loop, **changed: Any) -> Retrainer:
    """A retrainer that begins a run after 300 labels."""
    return loop.retrainer(settings=SETTINGS.model_copy(update={"labels": 300, "cooldown_s": 60.0, **changed}))


def counts(loop: Loop) -> LabelCounts:
    """What a process has counted of the log."""
    found = LabelCounts()
    for record in loop.log.records:
        found.add(record)
    return found


def started(loop: Loop, retrainer: Retrainer) -> Run:
    """The run that a look starts."""
    (run,) = retrainer.look(counts(loop))
    return run


def test_enough_new_labels_lead_to_a_promotion_without_any_alert(tmp_path: Path) -> None:
    """What no detector pages for is found by looking; the manifest says what led to it, and on what it was trained."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    retrainer = by_labels(loop)
    run = retrainer.execute(started(loop, retrainer), lambda: None, loop.pause)
    assert (run.kind, run.state, run.tested_rows) == ("labels", "promoted", 400)
    manifest = loop.repository.manifest("loans", 2)
    assert manifest.trigger["kind"] == "labels"
    assert manifest.trained_from["trained_on"] == "all"
    assert retrainer.labels_from_ms(LabelCounts()) == START_MS + 399 * SECOND_MS + 1


def test_rows_that_are_not_fit_count_as_used(tmp_path: Path) -> None:
    """A feed of one class stops a run; the next one waits for as many new labels, and does not try the same again."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    loop.log.records[0].outcomes = np.ones(400).tobytes()
    retrainer = by_labels(loop)
    ended = retrainer.execute(started(loop, retrainer), lambda: None, loop.pause)
    assert ended.state == "rejected"
    assert "one class only" in (ended.reason or "")
    assert ended.tested_rows == 400
    loop.now_ms += 3_600_000
    assert by_labels(loop).look(counts(loop)) == []
    loop.live(changed=True, rows=300)
    assert len(by_labels(loop).look(counts(loop))) == 1


def test_labels_of_an_earlier_run_do_not_count_again(tmp_path: Path) -> None:
    """After a restart too: the run itself tells up to where it had them. The next one waits for its own number."""
    loop = new_loop(tmp_path)
    loop.live(changed=False)
    retrainer = by_labels(loop)
    ended = retrainer.execute(started(loop, retrainer), lambda: None, loop.pause)
    assert ended.state == "rejected"
    loop.now_ms += 3_600_000
    assert by_labels(loop).look(counts(loop)) == []
    loop.live(changed=False, rows=299)
    assert by_labels(loop).look(counts(loop)) == []
    loop.live(changed=False, rows=1)
    assert by_labels(loop).look(counts(loop)) != []


def test_runs_that_lose_leave_nothing_behind_and_share_a_number(tmp_path: Path) -> None:
    """No version, no event in a topic that is kept for ever, no wait for more rows: the next run is soon."""
    loop = new_loop(tmp_path)
    for _ in range(2):
        loop.live(changed=False, rows=300, seed=len(loop.log.records))
        retrainer, began_ms = by_labels(loop), loop.now_ms
        ended = retrainer.execute(started(loop, retrainer), lambda: None, loop.pause)
        assert (ended.state, ended.version, ended.rounds) == ("rejected", 2, 0)
        assert "not better" in (ended.reason or "")
        assert loop.now_ms == began_ms
        loop.now_ms += 60_000
    assert loop.repository.versions("loans") == [1]
    assert loop.announcer.kinds == ["registered"]
    loop.live(changed=True, rows=600, seed=99)
    promoted = loop.finish(loop.alerted(drift=Drift("adwin", change_at=rfc3339(START_MS + 600_000), version="1")))
    assert (promoted.state, promoted.version) == ("promoted", 2)


def returned(loop: Loop) -> Run:
    """The run that takes version 1 back: its concept returns after version 2 has learnt another one."""
    loop.live(changed=True)
    assert loop.finish(loop.alerted()).state == "promoted"
    loop.live(changed=False, rows=100, seed=11)
    back = Drift("adwin", change_at=rfc3339(START_MS + 400 * SECOND_MS), version="2")
    return loop.finish(loop.alerted(fingerprint="f2", drift=back))


def test_a_concept_that_comes_back_is_answered_by_the_version_that_knows_it(tmp_path: Path) -> None:
    """A hundred rows are too few to train on, and enough to take an archived version back as it is."""
    loop = new_loop(tmp_path)
    run = returned(loop)
    assert (run.state, run.version, run.tested_rows) == ("promoted", 1, 100)
    assert "version 1: accuracy" in (run.verdict or "")
    assert loop.state.aliases == {"champion": "1", "previous": "2"}
    assert loop.repository.versions("loans") == [1, 2]
    assert loop.announcer.kinds[-2:] == ["candidate", "promoted"]
    assert loop.announcer.events[-1].version == "1"


@pytest.mark.parametrize(
    ("rows", "why"), [(99, "99 labelled rows since the change, 100 are needed"), (100, "not better: since the change")]
)
def test_who_won_on_few_rows_is_challenged_on_as_few(tmp_path: Path, rows: int, why: str) -> None:
    """A first version waits for `minimum_rows` (200), one that was chosen by 100 rows for 100 of its own."""
    loop = new_loop(tmp_path)
    assert returned(loop).version == 1
    loop.live(changed=False, rows=rows, seed=12)
    again = Drift("adwin", change_at=rfc3339(START_MS + 500 * SECOND_MS), version="1")
    alone = SETTINGS.model_copy(update={"archive_versions": 0, "wait_s": 1.0})
    ended = loop.finish(loop.alerted(fingerprint="f3", drift=again), settings=alone)
    assert ended.state == "rejected"
    assert (ended.reason or "").startswith(why)


def test_quiet_hours_hold_a_run_back_and_not_a_person(tmp_path: Path) -> None:
    """A run on an alert begins when they are over; a command begins at once."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    quiet = SETTINGS.model_copy(update={"quiet_hours": "22:00-22:30"})  # it is 22:13:20
    asked = loop.retrainer(settings=quiet)
    run = asked.start("loans", "command")
    assert run is not None
    assert asked.execute(run, lambda: None, loop.pause).state == "promoted"
    assert loop.now_ms == START_MS
    loop.live(changed=False, rows=400, seed=11)
    back = Drift("adwin", change_at=rfc3339(START_MS + 400 * SECOND_MS), version="2")
    ended = loop.finish(loop.alerted(fingerprint="f2", drift=back), settings=quiet)
    assert ended.state == "promoted"
    assert loop.now_ms >= START_MS + 1_000_000 - 1  # 22:30:00


def test_quiet_hours_hold_a_promotion_back_too(tmp_path: Path) -> None:
    """A run that began before them, and waited for rows, promotes when they are over."""
    loop = new_loop(tmp_path)
    run = loop.alerted()
    quiet = SETTINGS.model_copy(update={"quiet_hours": "22:14-22:30", "wait_s": 3_600})  # it is 22:13:20

    def pause(seconds: float) -> None:
        if not loop.log.records and loop.now_ms > START_MS + 100 * SECOND_MS:
            loop.live(changed=True)
        loop.now_ms += int(seconds * 1000)

    ended = loop.retrainer(settings=quiet).execute(run, lambda: None, pause)
    assert ended.state == "promoted"
    assert loop.log.records
    assert (ended.promoted_ms or 0) >= START_MS + 1_000_000 - 1  # 22:30:00


def test_a_person_s_run_ends_the_waiting_of_the_one_before_it(tmp_path: Path) -> None:
    """An alert's run waits for the end of quiet hours; a person asks for a run: one is under way at once."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.alerted()
    quiet = loop.retrainer(settings=SETTINGS.model_copy(update={"quiet_hours": "22:00-22:30"}))

    def asked(seconds: float) -> None:
        loop.pause(seconds)
        quiet.start("loans", "command")

    assert quiet.execute(run, lambda: None, asked).state == "promoted"
    assert loop.now_ms < START_MS + 10 * SECOND_MS  # as soon as it is seen


def taken_back(loop: Loop) -> None:
    """A person takes back what an alert's run promoted, and its labels go on as before."""
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    loop.administration.rollback("loans", reason="the labels are wrong")
    loop.watch(run)
    loop.live(changed=True, rows=300, seed=31)


def test_what_a_person_took_back_is_not_promoted_again(tmp_path: Path) -> None:
    """Not while the pause behind a rollback lasts, and that version never again: a challenger of new rows may be."""
    loop = new_loop(tmp_path)
    taken_back(loop)
    policy = SETTINGS.model_copy(update={"rollback_cooldown_s": 600.0})
    retrainer = loop.retrainer(settings=policy)
    assert retrainer.start("loans", "labels") is None
    assert (retrainer.cooldown("loans") or "").startswith("a version was rolled back")
    loop.now_ms += 600_000
    run = retrainer.start("loans", "labels")
    assert run is not None
    ended = retrainer.execute(run, lambda: None, loop.pause)
    assert (ended.state, ended.version) == ("promoted", 3)
    assert loop.state.barred == ["2"]


def test_what_a_person_rejected_is_not_taken_from_the_archive(tmp_path: Path) -> None:
    loop = new_loop(tmp_path, mode="approve")
    loop.live(changed=True)
    run = loop.alerted()

    def rejected(seconds: float) -> None:
        loop.administration.reject("loans", 2, "unfair")

    loop.retrainer().execute(run, lambda: None, rejected)
    assert loop.runs.load("loans", run.episode).reason == "a person rejected it"
    loop.administration.set_mode("loans", "auto")
    loop.live(changed=True, rows=300, seed=31)
    loop.now_ms += 60_000
    retrainer = by_labels(loop)
    again = retrainer.execute(started(loop, retrainer), lambda: None, loop.pause)
    assert (again.state, again.version) == ("promoted", 3)


def test_who_chooses_a_version_lifts_the_bar(tmp_path: Path) -> None:
    """By a promotion, or by going back to it."""
    loop = new_loop(tmp_path)
    taken_back(loop)
    loop.administration.promote("loans", 2)
    assert loop.state.barred == []
    loop.administration.rollback("loans")
    assert loop.state.barred == ["2"]
    loop.administration.rollback("loans", to=2)
    assert loop.state.barred == ["1"]


def test_a_person_need_not_wait_for_the_end_of_the_pause(tmp_path: Path) -> None:
    """Who asks for a run after a rollback gets one."""
    loop = new_loop(tmp_path)
    taken_back(loop)
    retrainer = loop.retrainer(settings=SETTINGS.model_copy(update={"archive_versions": 0}))
    asked = run_by("command", loop.state, loop.runs.of("loans"), loop.now_ms)
    assert isinstance(asked, Run)
    assert loop.runs.create(asked)
    asked_ms = loop.now_ms
    assert retrainer.execute(asked, lambda: None, loop.pause).state == "promoted"
    assert loop.now_ms == asked_ms


def test_a_model_s_own_policy_comes_first(tmp_path: Path) -> None:
    """One model without runs by labels among others that have them."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    retrainer = loop.retrainer(settings=SETTINGS.model_copy(update={"labels": 300}), own_settings={"loans": SETTINGS})
    assert retrainer.look(counts(loop)) == []


def test_a_command_without_rows_says_so_at_once(tmp_path: Path) -> None:
    """A person waits for the answer; nothing else comes of it."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=20)
    run = loop.retrainer().start("loans", "command")
    assert run is not None
    ended = loop.finish(run)
    assert ended.reason == "20 labelled rows since the change, 30 are needed"
    assert loop.now_ms == START_MS


@pytest.mark.parametrize("kind", ["labels", "command"])
def test_no_other_run_of_its_own_begins_while_one_is_at_work(kind: Any, tmp_path: Path) -> None:
    """One run a model; a second one by labels is not even recorded."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    retrainer = by_labels(loop)
    assert retrainer.start("loans", kind) is not None
    loop.now_ms += 3_600_000
    assert retrainer.look(counts(loop)) == []


@pytest.mark.parametrize(("kind", "share"), [("labels", 1 / 4), ("command", 1.0)])
def test_looks_in_vain_make_the_next_one_stricter_and_not_what_somebody_asks_for(
    kind: Any, share: float, tmp_path: Path
) -> None:
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    asked = loop.retrainer().start("loans", "labels")
    assert asked is not None
    lost = msgspec.structs.replace(asked, state="rejected", verdict="not better")
    for at in range(1, 40):
        loop.runs.create(msgspec.structs.replace(lost, episode=f"e{at}", triggered_ms=START_MS + at))
    loop.runs.save(msgspec.structs.replace(lost, step=1))
    spent: list[float] = []

    def recorded(job: Job, stage: Any, check: Any) -> Contest:
        spent.append(job.significance)
        return perform(job, stage)

    run = by_labels(loop).start("loans", kind)
    assert run is not None
    assert loop.finish(run, perform=recorded).state == "promoted"
    assert spent == [SETTINGS.significance * share]


def test_runs_that_came_to_nothing_are_forgotten_in_the_end(tmp_path: Path) -> None:
    """Those that nobody asked for, the oldest first; a rejected alert, a promotion and what is at work stay.

    So does one that won and was rejected: its challenger is in the audit trail, and only the run tells all of it.
    """
    loop = new_loop(tmp_path)
    first = loop.retrainer().start("loans", "labels")
    assert first is not None
    known: list[dict[str, Any]] = [
        {"state": "rejected"},
        {"state": "rejected"},
        {"state": "rejected", "kind": "alert"},
        {"state": "confirmed"},
        {"state": "collecting"},
        {"state": "rejected"},
        {"state": "rejected", "better": True, "offered": True},
        {"state": "rejected"},
    ]
    for at, changed in enumerate(known, 1):
        loop.runs.create(msgspec.structs.replace(first, episode=f"e{at}", triggered_ms=START_MS + at, **changed))
    loop.runs.save(msgspec.structs.replace(first, state="rejected", step=1))
    loop.runs.forget("loans", keep=2)
    assert [run.episode for run in loop.runs.of("loans")] == ["e3", "e4", "e5", "e6", "e7", "e8"]


def test_a_champion_whose_manifest_is_damaged_holds_up_no_other_model(tmp_path: Path) -> None:
    """It gets no run by labels, which is told once for each cause, not every two seconds; once it is mended it does."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    shutil.copytree(tmp_path / "loans", tmp_path / "loans2")
    for path in (tmp_path / "loans2").rglob("*.json"):
        path.write_text(path.read_text().replace('"model": "loans"', '"model": "loans2"'))
    path = tmp_path / "loans2/1/manifest.json"
    sound = path.read_text()
    retrainer, labels = by_labels(loop), counts(loop)

    def told() -> list[str]:
        with capture_logs() as lines:
            for _ in range(3):
                assert retrainer.labels_from_ms(labels) == START_MS
                retrainer.look(labels)
        return [line["reason"] for line in lines if line["event"] == "no runs by labels or schedule"]

    path.write_text("{broken")
    (reason,) = told()
    assert "loans2/1/manifest.json is not served" in reason
    assert [run.kind for run in loop.runs.of("loans")] == ["labels"]
    path.unlink()
    (reason,) = told()
    assert "does not exist" in reason
    path.write_text(sound.replace('"created_at": "', '"created_at": "the year '))
    (reason,) = told()
    assert "version 1 does not say when it was made" in reason
    path.write_text(sound)
    assert told() == []
