"""A challenger that won answers beside the champion: better, worse, undecided, and whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrain.announce import republish
from retrain.commands import _stands
from retrain.lifecycle import Run
from retrain.live_shadow import live_errors
from retrain.promotion import dismissed, promoted, returned, with_candidate
from retrain.retrainer import Retrainer
from retrain.shadow import ShadowRows, worth_keeping
from streams.events import Baseline, Mode, ModelState, ShadowAnswer, rfc3339
from streams.settings import ModelRetrainSettings, ModelSettings, Settings
from tests.unit.retrain.loop import SETTINGS, Crash, Loop, alert, new_loop
from tests.unit.retrain.rows import PROBLEM, SECOND_MS, START_MS, MemoryLog, features, labelled, pairs, prediction
from tests.unit.retrain.test_crash_boundaries import (
    BOUNDARIES,
    POINTS,
    TRAINED,
    BurningAnnouncer,
    BurningStorage,
    Fuse,
    promotions,
    require_whole,
)
from tests.unit.retrain.test_probation import loop_table

SHADOW = SETTINGS.model_copy(update={"shadow": True, "shadow_rows": 600, "shadow_s": 600.0})
BASELINE = Baseline("accuracy", 0.9, 100)


class Waiting(Exception):
    """The run waits for rows."""


def waiting(_: float) -> None:
    raise Waiting


def shadowing(tmp_path: Path, mode: Mode = "auto") -> tuple[Loop, Run]:
    """A changed concept, and a challenger that won on 400 rows and answers beside the champion from now on."""
    loop = new_loop(tmp_path, mode)
    loop.serve(400, wrong_labels=True)
    with pytest.raises(Waiting):
        retrainer(loop).execute(loop.alerted(), lambda: None, waiting)
    (run,) = loop.retrainer().unfinished()
    assert run.state == "shadowing"
    return loop, run


def retrainer(loop: Loop, **changed: Any) -> Retrainer:
    return loop.retrainer(**{"settings": SHADOW, "perform": TRAINED, **changed})


def finish(loop: Loop, run: Run, **changed: Any) -> Run:
    """A new process takes the run to its end; waiting makes the clock go on."""
    return retrainer(loop, **changed).execute(run, lambda: None, loop.pause)


def test_without_the_setting_there_is_no_shadow(tmp_path: Path) -> None:
    """Off unless asked for: what won is promoted at once, and no alias asks a server for more."""
    loop = new_loop(tmp_path)
    loop.serve(400, wrong_labels=True)
    assert loop.finish(loop.alerted(), perform=TRAINED).state == "promoted"
    assert "shadow" not in loop.announcer.events[1].state.aliases


def test_a_model_may_have_a_shadow_of_its_own() -> None:
    """`[models.NAME.retrain]` asks for it where `[retrain]` does not."""
    own = ModelSettings(retrain=ModelRetrainSettings(shadow=True, shadow_rows=50))
    settings = Settings(models={"loans": own})
    assert (settings.retrain_of("loans").shadow, settings.retrain_of("loans").shadow_rows) == (True, 50)
    assert not settings.retrain_of("other").shadow


def test_a_challenger_that_won_is_told_to_be_the_shadow(tmp_path: Path) -> None:
    """The champion goes on serving; servers learn of the shadow by the state, people by the event's detail."""
    loop, run = shadowing(tmp_path)
    assert loop.state.aliases == {"champion": "1", "challenger": "2", "shadow": "2"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.detail) == ("candidate", "2", "shadow")
    assert told.state == loop.state
    assert "no row with both answers has its label yet" in _stands(run)


def test_a_better_shadow_is_promoted_with_its_evidence(tmp_path: Path) -> None:
    """The changed concept lasts: its answers were right where the champion's were not. The audit trail says so."""
    loop, run = shadowing(tmp_path)
    loop.serve_beside(200, wrong_labels=True)
    ended = finish(loop, run)
    assert (ended.state, ended.shadowed) == ("promoted", True)
    assert loop.state.aliases == {"champion": "2", "previous": "1"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.by, told.reason) == ("promoted", "driftline retrain", ended.verdict)
    assert "better in shadow: share wrong 0." in (ended.verdict or "")
    assert "on 200 live rows" in (ended.verdict or "")
    why = list(loop.repository.history("loans"))[-1].change
    assert why is not None
    assert (why.what, why.reason) == ("promoted", ended.verdict)
    assert ended.shadow_evidence["better"]["rows"] == 200


def test_a_worse_shadow_is_rejected_with_its_evidence(tmp_path: Path) -> None:
    """The labels were wrong for a while: on live rows the challenger would have done harm, and never serves."""
    loop, run = shadowing(tmp_path)
    loop.serve_beside(200, wrong_labels=False)
    ended = finish(loop, run)
    assert ended.state == "rejected"
    assert "worse in shadow: share wrong" in (ended.reason or "")
    assert "on 200 live rows, better on 0 and worse on 200 of them" in (ended.reason or "")
    assert loop.state.aliases == {"champion": "1"}
    assert (loop.announcer.events[-1].kind, loop.announcer.events[-1].reason) == ("rejected", ended.reason)


def test_a_shadow_that_is_no_better_is_rejected_after_its_rows(tmp_path: Path) -> None:
    """The same answers as the champion's on 600 rows are no reason to change anything."""
    loop, run = shadowing(tmp_path)
    loop.serve_beside(900, wrong_labels=False)
    for event in loop.log.partitions[0][400:]:
        if event is not None:
            event.shadow = ShadowAnswer("2", event.prediction)
    ended = finish(loop, run)
    assert ended.state == "rejected"
    assert "not better in shadow on 600 rows" in (ended.reason or "")
    assert ended.shadow_evidence["better"]["rows"] == 600


def test_a_shadow_without_labels_is_rejected_when_its_time_is_over(tmp_path: Path) -> None:
    """Rows without a shadow's answer are no evidence, and the reason says what may be missing."""
    loop, run = shadowing(tmp_path)
    loop.serve(900, wrong_labels=True)
    ended = finish(loop, run)
    assert ended.state == "rejected"
    assert "not better in shadow within 600 s" in (ended.reason or "")
    assert "driftline serve" in (ended.reason or "")
    assert loop.state.aliases == {"champion": "1"}


def test_a_shadow_that_has_few_rows_waits_for_more(tmp_path: Path) -> None:
    """Nothing is decided on eight rows; how it stands can be asked."""
    loop, run = shadowing(tmp_path)
    loop.serve_beside(8, wrong_labels=True)
    with pytest.raises(Waiting):
        retrainer(loop).execute(run, lambda: None, waiting)
    (run,) = loop.retrainer().unfinished()
    assert run.state == "shadowing"
    assert "version 2 beside version 1" in _stands(run)
    assert "on 8 live rows" in _stands(run)


@pytest.mark.parametrize(("mode", "state"), [("approve", "awaiting_approval"), ("recommend", "recommended")])
def test_what_follows_a_better_shadow_is_up_to_the_mode(tmp_path: Path, mode: Mode, state: str) -> None:
    """A person who approves has the live evidence before him; the shadow itself is over."""
    loop, run = shadowing(tmp_path, mode)
    loop.serve_beside(200, wrong_labels=True)
    if mode == "approve":
        with pytest.raises(Waiting):
            retrainer(loop).execute(run, lambda: None, waiting)
    else:
        finish(loop, run)
    (run,) = loop.runs.of("loans")
    assert run.state == state
    assert loop.state.aliases == {"champion": "1", "challenger": "2"}
    told = loop.announcer.events[-1]
    assert told.kind == "candidate"
    assert told.detail == state.replace("_", "-")
    assert "better in shadow" in (told.reason or "")


# Meanwhile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [False, True])
def test_a_freeze_stops_the_promotion_of_a_better_shadow(tmp_path: Path, every: bool) -> None:
    """The comparison goes on, the promotion does not come: it is one like any other."""
    loop, run = shadowing(tmp_path)
    if every:
        loop.administration.freeze_all(True)
    else:
        loop.administration.freeze("loans", True)
    loop.serve_beside(200, wrong_labels=True)
    ended = finish(loop, run)
    assert (ended.state, ended.reason) == ("rejected", "frozen")
    assert "better in shadow" in (ended.verdict or "")
    assert loop.state.aliases == {"champion": "1"}


def test_mode_observe_ends_the_shadow(tmp_path: Path) -> None:
    """The loop may change nothing any more."""
    loop, run = shadowing(tmp_path)
    loop.administration.set_mode("loans", "observe")
    loop.serve_beside(200, wrong_labels=True)
    ended = finish(loop, run)
    assert (ended.state, ended.reason) == ("rejected", "the mode is observe")
    assert loop.state.aliases == {"champion": "1"}


def test_a_person_need_not_wait(tmp_path: Path) -> None:
    """The shadow is the challenger: `models approve` promotes it, and its probation follows."""
    loop, run = shadowing(tmp_path)
    loop.administration.approve("loans")
    assert loop.state.aliases == {"champion": "2", "previous": "1"}
    ended = finish(loop, run)
    assert (ended.state, ended.shadowed) == ("promoted", False)
    assert loop.announcer.kinds.count("promoted") == 1
    assert loop.retrainer().on_probation() == [ended]


def test_a_person_may_reject_it(tmp_path: Path) -> None:
    """`models reject` ends the shadow on the servers at once, and the run at its next look."""
    loop, run = shadowing(tmp_path)
    loop.administration.reject("loans")
    assert loop.state.aliases == {"champion": "1"}
    assert finish(loop, run).reason == "a person rejected it"


def test_another_champion_ends_the_shadow(tmp_path: Path) -> None:
    """After a rollback or a promotion by hand the evidence is of a champion that serves no more."""
    loop, run = shadowing(tmp_path)
    loop.serve_beside(200, wrong_labels=True)
    third, _ = loop.administration.register(loop_table(features(300, seed=21)), SETTINGS, trained_from={"file": "new"})
    loop.administration.promote("loans", third.version)
    assert "shadow" not in loop.state.aliases
    ended = finish(loop, run)
    assert ended.state == "rejected"
    assert "version 1, which the run is about, is no longer the champion" in (ended.reason or "")
    assert loop.state.aliases == {"champion": str(third.version), "previous": "1"}


def test_a_run_about_a_newer_change_ends_the_shadow(tmp_path: Path) -> None:
    """The challenger's rows end before the change that the next run is about: it is in the archive then."""
    loop, run = shadowing(tmp_path)
    behind = rfc3339(START_MS + 500 * SECOND_MS)
    drift = alert().drift
    assert drift is not None
    drift.change_at = behind
    other = loop.alerted(fingerprint="f2", drift=drift)
    assert loop.retrainer().unfinished() == [run]
    ended = finish(loop, run)
    assert ended.state == "rejected"
    assert "the world changed again" in (ended.reason or "")
    assert loop.retrainer().unfinished() == [other]
    assert 2 in loop.repository.versions("loans")


def test_an_alert_about_the_same_change_waits_for_the_shadow(tmp_path: Path) -> None:
    """A second alert about what the challenger has learnt is no reason to begin again."""
    loop, run = shadowing(tmp_path)
    loop.alerted(fingerprint="f2")
    loop.serve_beside(200, wrong_labels=True)
    assert finish(loop, run).state == "promoted"


# Effects on the state ---------------------------------------------------------------------------------------------


def state(**aliases: str) -> ModelState:
    return ModelState("loans", 1, "binary", [0, 1], 1, aliases)


def test_no_change_leaves_a_shadow_that_is_no_challenger() -> None:
    """Whoever becomes challenger or champion, the old shadow answers no more."""
    before = state(champion="1", challenger="2", shadow="2")
    assert with_candidate(before, "3", BASELINE, None).aliases == {"champion": "1", "challenger": "3"}
    both = with_candidate(before, "3", BASELINE, None, shadow=True).aliases
    assert both == {"champion": "1", "challenger": "3", "shadow": "3"}
    assert dismissed(before, "2").aliases == {"champion": "1"}
    assert dismissed(before, "3").aliases == before.aliases
    assert promoted(before, "2", all_frozen=False).aliases == {"champion": "2", "previous": "1"}
    assert "shadow" not in promoted(before, "3", all_frozen=False).aliases
    assert "shadow" not in returned(before, "0").aliases


# Rows -------------------------------------------------------------------------------------------------------------


def test_only_rows_with_both_answers_and_an_outcome_count() -> None:
    """Another version's answer, none, or a class that the model does not have say nothing."""
    log = MemoryLog(partitions={0: [prediction(i, [0.1, 0.2, 0.3], 1) for i in range(5)]})
    events = [event for event in log.partitions[0] if event is not None]
    for i, answer in ((0, 0), (1, 1), (3, "maybe")):
        events[i].shadow = ShadowAnswer("2", answer)
    events[4].shadow = ShadowAnswer("3", 0)
    record = labelled(pairs([1, 0, 1, 1, 1]))
    rows = ShadowRows(log, "loans", "1", 0)
    rows.add(record)
    ours, _ = rows.take(10)
    champion, shadow = live_errors(ours, PROBLEM, "2", log.predictions, lambda: None)
    assert champion.tolist() == [0.0, 1.0]
    assert shadow.tolist() == [1.0, 1.0]


def test_the_rows_that_wait_are_compared_in_batches_and_later_ones_when_they_come() -> None:
    log = MemoryLog([labelled(pairs([1] * 1_200))])
    rows = ShadowRows(log, "loans", "1", 0)
    taken = [[reference.prediction_offset for reference in ours] for ours, _ in rows.batches(lambda: None)]
    assert taken == [list(range(500)), list(range(500, 1_000)), list(range(1_000, 1_200))]
    log.records.append(labelled(pairs([1] * 1_300)[1_100:]))
    (later,) = rows.batches(lambda: None)
    assert [reference.prediction_offset for reference in later[0]] == list(range(1_200, 1_300))


# Crashes ----------------------------------------------------------------------------------------------------------


def live(loop: Loop, announcer: Any, better: bool) -> None:
    """A process from its start on: what is unpublished, the alert (once more), the run, as far as it goes."""
    republish(loop.repository, announcer, "now")
    retrainer(loop, announcer=announcer).trigger(alert())
    for run in loop.retrainer().unfinished():
        step: Callable[[float], None] = waiting if len(loop.log.records) == 1 else loop.pause
        try:
            retrainer(loop, announcer=announcer).execute(run, lambda: None, step)
        except Waiting:
            loop.serve_beside(200, wrong_labels=better)
            live(loop, announcer, better)


def test_evidence_is_persisted_each_time_it_rests_on_a_fifth_more_rows() -> None:
    """A step of the run is a write and an event; rows without usable features are none."""
    assert [worth_keeping(*rows) for rows in ((0, 0), (1, 0), (119, 100), (120, 100))] == [False, True, False, True]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("better", [True, False])
def test_a_crash_at_any_effect_of_a_shadow_ends_as_without_one(tmp_path: Path, point: str, better: bool) -> None:
    """Cut once at each effect in turn: one promotion with the evidence, or none; nothing half-written is seen."""
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
                live(loop, BurningAnnouncer(loop, fuse), better)
            except Crash:
                require_whole(loop)
        live(loop, loop.announcer, better)
        require_whole(loop)
        (run,) = loop.runs.of("loans")
        assert run.state == ("promoted" if better else "rejected"), boundary
        expected = {"champion": str(run.version), "previous": "1"} if better else {"champion": "1"}
        assert loop.state.aliases == expected, boundary
        assert promotions(loop) == int(better), boundary
        assert ("better in shadow" if better else "worse in shadow") in f"{run.verdict} {run.reason}", boundary
        assert loop.announcer.last_states()["loans"] == loop.state, boundary
        if not fuse.burnt:
            break
    assert not fuse.burnt
    assert boundary > 12
