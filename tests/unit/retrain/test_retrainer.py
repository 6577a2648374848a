"""Runs from their alert to their end, with a real repository: modes, freezes, refusals, crashes at every step."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrain.announce import republish
from retrain.child import ChildFailed, Job, perform
from retrain.contest import Contest
from retrain.lifecycle import Run
from retrain.run import Stage
from serving.engine import LoadedModel
from serving.history import Change
from streams.errors import AccessDenied, Unavailable
from streams.events import Baseline, Drift, Mode, ModelEvent, ModelState, rfc3339
from tests.unit.retrain.loop import SETTINGS, Crash, Loop, alert, new_loop
from tests.unit.retrain.rows import SECOND_MS, START_MS, DeniedLog, concept, features, labelled
from tests.unit.retrain.test_lifecycle import run as a_run


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A loop in mode auto after a change of concept."""
    made = new_loop(tmp_path)
    made.live(changed=True)
    return made


def test_a_changed_concept_leads_to_a_promotion(loop: Loop) -> None:
    """candidate, then promoted: the new version serves, the old one is `previous`, and it is right about new rows."""
    run = loop.finish(loop.alerted())
    assert run.state == "promoted"
    assert loop.state.aliases == {"champion": "2", "previous": "1"}
    assert loop.announcer.kinds == ["registered", "candidate", "promoted"]
    told = loop.announcer.events[-1]
    assert told.state == loop.state
    assert (told.version, told.alias) == ("2", "champion")
    assert told.trigger["fingerprint"] == "f1"
    manifest = loop.repository.manifest("loans", 2)
    assert told.sha256 == manifest.sha256
    assert manifest.parent == 1
    assert manifest.trained_from["partitions"] == {"0": [0, 400]}
    rows = features(200, seed=99)
    said = LoadedModel(loop.repository.load("loans", 2), manifest).predict(rows).predictions
    assert sum(a == b for a, b in zip(said, concept(rows, changed=True), strict=True)) > 190


def test_the_new_version_brings_its_baseline_from_held_out_rows(loop: Loop) -> None:
    """30 % of 400 rows were not trained on; accuracy and its standard error come from them."""
    loop.finish(loop.alerted())
    measured = loop.state.baselines["2"]
    assert (measured.metric, measured.n) == ("accuracy", 120)
    assert measured.value > 0.9
    card = loop.repository.card("loans", 2)
    assert "ConceptDriftDetected" in card
    assert "against the champion's" in card


def test_a_challenger_that_is_no_better_is_rejected(tmp_path: Path) -> None:
    """A false alarm costs trainings and changes nothing: the challenger goes away again."""
    loop = new_loop(tmp_path)
    loop.live(changed=False, rows=1_000)
    run = loop.finish(loop.alerted())
    assert run.state == "rejected"
    assert run.reason is not None
    assert "not better" in run.reason
    assert loop.state.aliases == {"champion": "1"}
    assert "2" not in loop.state.baselines
    assert loop.announcer.kinds == ["registered", "rejected"]
    assert loop.announcer.events[-1].reason == run.reason
    assert loop.repository.versions("loans") == [1]


def test_a_challenger_that_does_not_win_yet_is_tried_again_with_more_rows(tmp_path: Path) -> None:
    """The change point was too early: rows of the old concept hide the new one until enough of it have come."""
    loop = new_loop(tmp_path)
    loop.live(changed=False, rows=300)
    loop.live(changed=True, rows=10)
    seen: list[tuple[int, float]] = []

    def watched(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        seen.append((len(job.dataset), job.significance))
        return perform(job, stage)

    def pause(seconds: float) -> None:
        loop.live(changed=True, rows=100, seed=len(loop.log.records))

    run = loop.retrainer(perform=watched).execute(loop.alerted(), lambda: None, pause)
    assert run.state == "promoted"
    assert run.version == 2
    assert [significance for _, significance in seen] == [0.05 / 2 ** (i + 1) for i in range(len(seen))]
    assert len(seen) > 1
    assert all(later >= 1.5 * earlier for (earlier, _), (later, _) in itertools.pairwise(seen))


def test_after_two_rollbacks_a_promotion_needs_more_of_a_proof(tmp_path: Path) -> None:
    """What seemed better twice and was not may be chance again."""
    loop = new_loop(tmp_path)
    for number in range(2):
        loop.runs.create(a_run("rolled_back", episode=f"e{number}", model="loans", updated_ms=number))
    loop.live(changed=True, rows=600)
    seen: list[float] = []

    def watched(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        seen.append(job.significance)
        return perform(job, stage)

    run = loop.retrainer(perform=watched).execute(loop.alerted(), lambda: None, lambda _: None)
    assert run.state == "promoted"
    assert seen == [0.05 / 2 / 4]


def test_a_run_that_does_not_win_makes_way_for_a_newer_episode(tmp_path: Path) -> None:
    """A newer alert knows a newer change point: waiting for more rows of the old one would only delay it."""
    loop = new_loop(tmp_path)
    loop.live(changed=False)
    first = loop.alerted()
    loop.alerted(fingerprint="f2", drift=Drift("adwin", change_at=rfc3339(START_MS + 1), version="1"))
    ended = loop.finish(first)
    assert ended.state == "rejected"
    assert loop.now_ms < START_MS + 60_000


def test_training_begins_after_the_second_of_the_change(loop: Loop) -> None:
    """A change dated to a whole second happened somewhere within it: its rows of the old concept stay out."""
    second = START_MS // 1_000 * 1_000
    dated = Drift("adwin", change_at=rfc3339(second), version="1")
    assert loop.alerted(fingerprint="whole", drift=dated).since_ms == second + 1_000
    exact = Drift("adwin", change_at=rfc3339(second + 250), version="1")
    assert loop.alerted(fingerprint="exact", drift=exact).since_ms == second + 250


def test_training_begins_where_the_alert_says_so(loop: Loop) -> None:
    """The date that is said to people is as likely too early, where it would mix in the old concept."""
    second = START_MS // 1_000 * 1_000
    later = rfc3339(second + 60_000)
    drift = Drift("e_detector", change_at=rfc3339(second), train_from=later, version="1")
    assert loop.alerted(fingerprint="sure", drift=drift).since_ms == second + 61_000


def test_an_alert_without_a_change_point_takes_the_one_that_is_known(loop: Loop) -> None:
    """An accuracy rule only says that it is bad; a detector has said since when. Who has learnt the change has none."""
    bare = {"labels": {"alertname": "ModelAccuracyDropped", "model": "loans"}, "drift": None}
    assert loop.alerted(fingerprint="f0", **bare).since_ms is None
    assert loop.alerted().since_ms == START_MS
    assert loop.alerted(fingerprint="f2", **bare).since_ms == START_MS
    loop.finish(loop.retrainer().unfinished()[0])
    assert loop.alerted(fingerprint="f3", **bare).since_ms is None
    loop.administration.promote("loans", 1)
    assert loop.alerted(fingerprint="f4", **bare).since_ms == START_MS, "the old one serves again"


def test_time_runs_out_for_a_challenger_that_does_not_win(tmp_path: Path) -> None:
    """After wait_s the verdict of the last one stands; no version was made of it."""
    loop = new_loop(tmp_path)
    loop.live(changed=False)
    run = loop.finish(loop.alerted())
    assert (run.state, run.rounds) == ("rejected", 1)
    assert "not better: all: accuracy" in (run.reason or "")
    assert loop.repository.versions("loans") == [1]
    assert loop.announcer.kinds == ["registered", "rejected"]


def test_an_episode_seen_twice_makes_one_run(loop: Loop) -> None:
    """A firing alert is sent again every few minutes, and Kafka may deliver twice."""
    run = loop.alerted()
    assert loop.retrainer().trigger(alert()) is None
    loop.finish(run)
    assert loop.retrainer().trigger(alert()) is None
    assert loop.announcer.kinds.count("promoted") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "resolved"},
        {"labels": {"alertname": "DataDriftDetected", "model": "loans"}},
        {"labels": {"alertname": "ConceptDriftDetected", "model": "unknown"}},
        {"labels": {"alertname": "ConceptDriftDetected", "model": "../loans"}},
        {"labels": {"alertname": "ConceptDriftDetected"}},
        {"drift": Drift("adwin", version="9")},
    ],
)
def test_other_alerts_start_nothing(loop: Loop, changed: dict[str, Any]) -> None:
    """Resolved, about something else, of a model that is not ours, or about a version that no longer serves."""
    assert loop.retrainer().trigger(alert(**changed)) is None
    assert loop.runs.of("loans") == []


def test_observe_retrains_nothing(tmp_path: Path) -> None:
    """Mode observe leaves an alert to people."""
    assert new_loop(tmp_path, "observe").retrainer().trigger(alert()) is None


def test_recommend_ends_with_a_challenger_and_its_verdict(tmp_path: Path) -> None:
    """The champion stays; the challenger waits for whoever wants it."""
    loop = new_loop(tmp_path, "recommend")
    loop.live(changed=True)
    assert loop.finish(loop.alerted()).state == "recommended"
    assert loop.state.aliases == {"champion": "1", "challenger": "2"}
    assert loop.announcer.kinds == ["registered", "candidate"]
    assert loop.announcer.events[-1].detail == "recommended"
    assert "against the champion's" in (loop.announcer.events[-1].reason or "")


def test_approve_waits_for_a_person(tmp_path: Path) -> None:
    """The run waits in awaiting_approval, over a restart too, and ends when a person has promoted the challenger."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    run = loop.alerted()
    waits = 0

    def pause(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            raise Crash
        if waits == 3:
            loop.administration.approve("loans", 2)

    with pytest.raises(Crash):
        loop.retrainer().execute(run, lambda: None, pause)
    (left,) = loop.retrainer().unfinished()
    assert left.state == "awaiting_approval"
    assert loop.announcer.events[-1].detail == "awaiting-approval"
    assert loop.retrainer().execute(left, lambda: None, pause).state == "promoted"
    assert loop.state.aliases == {"champion": "2", "previous": "1"}
    assert loop.announcer.kinds == ["registered", "candidate", "promoted"]


def test_a_challenger_that_nobody_approves_makes_room(tmp_path: Path) -> None:
    """Its run ends with the reason, everybody is told, and the run of a newer alert is next."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    run = loop.alerted()
    newer = loop.alerted(fingerprint="f2")
    patient = SETTINGS.model_copy(update={"approval_s": 3_600.0})
    ended = loop.finish(run, settings=patient)
    assert (ended.state, ended.reason) == ("rejected", "nobody approved it within 3600 s")
    assert 3_600_000 <= loop.now_ms - START_MS < 3_700_000
    assert loop.state.aliases == {"champion": "1"}
    assert (loop.announcer.events[-1].kind, loop.announcer.events[-1].reason) == ("rejected", ended.reason)
    assert loop.retrainer().unfinished() == [newer]


def test_a_run_that_dies_while_it_makes_room_ends_with_the_same_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its challenger is gone already: the next process does not blame a person for that."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    run, save = loop.alerted(), loop.runs.save
    patient = SETTINGS.model_copy(update={"approval_s": 60.0})

    def dying(run: Run) -> None:
        if run.state == "rejected":
            raise Crash
        save(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop.runs, "save", dying)
        with pytest.raises(Crash):
            loop.finish(run, settings=patient)
    assert loop.state.aliases == {"champion": "1"}
    (left,) = loop.retrainer().unfinished()
    assert loop.finish(left, settings=patient).reason == "nobody approved it within 60 s"


def test_what_a_person_approved_leaves_the_loop_its_week(tmp_path: Path) -> None:
    """One automatic promotion a week is allowed: the approval before it was none."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    run = loop.retrainer().execute(loop.alerted(), lambda: None, lambda _: approve(loop))
    assert (run.state, run.approved) == ("promoted", True)
    loop.administration.set_mode("loans", "auto")
    loop.live(changed=False, rows=600, seed=11)
    drift = Drift("adwin", change_at=rfc3339(START_MS + 400_000), version="2")
    once = SETTINGS.model_copy(update={"max_promotions_per_week": 1})
    later = loop.finish(loop.alerted(fingerprint="f2", drift=drift), settings=once)
    assert (later.state, later.approved) == ("promoted", False)


@pytest.mark.parametrize(
    ("mode", "ends"), [("auto", "promoted"), ("recommend", "nobody approved it, and the mode is recommend")]
)
def test_a_run_that_waits_for_a_person_goes_by_the_mode_of_the_hour(tmp_path: Path, mode: Mode, ends: str) -> None:
    """Who sets mode auto need not approve, too; in a mode without approvals it makes room."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)

    def set_mode(seconds: float) -> None:
        loop.administration.set_mode("loans", mode)

    run = loop.retrainer().execute(loop.alerted(), lambda: None, set_mode)
    assert ends in (run.state, run.reason)


def test_a_newer_change_is_not_kept_waiting_for_an_approval(tmp_path: Path) -> None:
    """An alert names a change behind the challenger's rows: nobody needs it any more."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    newer: list[Run] = []

    def alerted(seconds: float) -> None:
        drift = Drift("adwin", change_at=rfc3339(START_MS + 500_000), version="1")
        newer.append(loop.alerted(fingerprint="f2", drift=drift))

    run = loop.retrainer().execute(loop.alerted(), lambda: None, alerted)
    assert run.state == "rejected"
    assert "the world changed again" in (run.reason or "")
    assert loop.retrainer().unfinished() == newer


def approve(loop: Loop) -> None:
    """A person approves the challenger."""
    loop.administration.approve("loans")


def freeze(loop: Loop, every: bool, frozen: bool) -> None:
    """One model, or all of them."""
    if every:
        loop.administration.freeze_all(frozen)
    else:
        loop.administration.freeze("loans", frozen)


@pytest.mark.parametrize("every", [False, True])
def test_a_frozen_model_waits_and_its_alert_is_not_lost(loop: Loop, every: bool) -> None:
    """One model or all of them: the run begins once the freeze is lifted."""
    freeze(loop, every, True)
    run = loop.alerted()
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        assert loop.runs.load("loans", run.episode).state == "triggered"
        assert loop.retrainer().start("loans", "labels") is None
        if len(waited) == 3:
            freeze(loop, every, False)

    assert loop.retrainer().execute(run, lambda: None, pause).state == "promoted"
    assert len(waited) == 3


@pytest.mark.parametrize("every", [False, True])
def test_a_freeze_ends_a_run_that_is_under_way(loop: Loop, every: bool) -> None:
    """With that reason, before its promotion."""
    run = loop.alerted()

    def frozen_meanwhile(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        freeze(loop, every, True)
        return perform(job, stage)

    ended = loop.finish(run, perform=frozen_meanwhile)
    assert (ended.state, ended.reason) == ("rejected", "frozen")
    assert loop.state.aliases == {"champion": "1"}


@pytest.mark.parametrize("every", [False, True])
def test_a_freeze_in_the_middle_of_a_promotion_wins(loop: Loop, every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promotion has looked, a person freezes, the promotion writes: it finds its revision taken and is refused."""
    change = loop.repository.change

    def raced(model: str, update: Callable[[ModelState], ModelState], why: Change) -> ModelState:
        frozen = False

        def then_freeze(state: ModelState) -> ModelState:
            nonlocal frozen
            changed = update(state)
            if not frozen and changed.aliases.get("champion") == "2":
                frozen = True
                monkeypatch.setattr(loop.repository, "change", change)
                freeze(loop, every, True)
            return changed

        return change(model, then_freeze, why)

    run = loop.alerted()
    monkeypatch.setattr(loop.repository, "change", raced)
    ended = loop.finish(run)
    assert (ended.state, ended.reason) == ("rejected", "frozen")
    assert loop.state.aliases == {"champion": "1"}


def test_too_few_rows_are_waited_for_and_then_refused(tmp_path: Path) -> None:
    """Without enough labels within wait_s the run ends and says how many there were."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=20)
    run = loop.finish(loop.alerted())
    assert run.state == "rejected"
    assert run.reason == "20 labelled rows since the change, 30 are needed"
    assert loop.now_ms >= START_MS + 60_000
    assert loop.announcer.events[-1].version is None


def test_rows_that_come_while_it_waits_are_used(tmp_path: Path) -> None:
    """Labels are late: the run goes on as soon as there are enough. For a champion that is always wrong 30 are."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=20)

    def pause(seconds: float) -> None:
        loop.live(changed=True, rows=10, seed=len(loop.log.records))

    run = loop.retrainer().execute(loop.alerted(), lambda: None, pause)
    assert run.state == "promoted"
    assert run.trained_from["rows"] == 30


def test_a_champion_that_has_not_collapsed_serves_until_there_are_rows_enough(tmp_path: Path) -> None:
    """It is wrong on a third of them: nothing is trained on less than minimum_rows, and nothing ends the run before."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=20)
    kept: list[tuple[int, int, str]] = []

    def pause(seconds: float) -> None:
        run = loop.runs.of("loans")[0]
        kept.append((run.tested_rows, run.trainings, run.verdict or ""))
        loop.live(changed=len(loop.log.records) > 1, rows=130, seed=len(loop.log.records))

    run = loop.retrainer().execute(loop.alerted(), lambda: None, pause)
    assert kept[:2] == [(0, 0, ""), (150, 0, "150 labelled rows since the change, 200 are needed")]
    assert run.tested_rows >= 250
    assert run.state == "promoted"


def test_a_champion_that_collapsed_slowly_is_challenged_as_soon(tmp_path: Path) -> None:
    """The first rows of a gradual change are of the old concept: the newer half tells what the champion is worth."""
    loop = new_loop(tmp_path)
    loop.live(changed=False, rows=40)
    loop.live(changed=True, rows=80, seed=8)
    run = loop.finish(loop.alerted())
    assert (run.state, run.tested_rows, run.rounds) == ("promoted", 120, 0)


def test_a_champion_that_knows_nothing_any_more_is_challenged_on_ninety_rows(tmp_path: Path) -> None:
    """Another feature decides now: it is right about half of the rows, as anybody would be who always says the same."""
    loop = new_loop(tmp_path)

    def pause(seconds: float) -> None:
        seed = 1 + len(loop.log.records)
        loop.live(changed=False, rows=30, seed=seed)
        rows = loop.log.records.pop().rows()
        for row, values in zip(rows, features(30, seed), strict=True):
            row.outcome = int(values[1] > 0.5)
        loop.log.records.append(labelled(rows))

    run = loop.retrainer().execute(loop.alerted(), lambda: None, pause)
    assert (run.state, run.tested_rows, run.trainings) == ("promoted", 90, 0)


@pytest.mark.parametrize(("achieves", "stopgap"), [(0.5, True), (0.9, False)])
def test_a_run_says_whether_its_winner_is_more_than_a_stopgap(loop: Loop, achieves: float, stopgap: bool) -> None:
    """The champion was right about nearly all of its own test rows, and is wrong about all of these."""

    def poor(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        found = perform(job, stage)
        assert found.challenger is not None
        achieved = Baseline("accuracy", achieves, 60, 0.05)
        return dataclasses.replace(found, challenger=dataclasses.replace(found.challenger, baseline=achieved))

    run = loop.retrainer(perform=poor).execute(loop.alerted(), lambda: None, lambda _: None)
    assert (run.state, run.stopgap) == ("promoted", stopgap)


def returned(loop: Loop, *parts: bool) -> Run:
    """Version 2 has learnt the changed concept; then come 20 rows of each part, of the changed one or the old. The run
    of an alert about version 2.
    """
    assert loop.finish(loop.alerted()).version == 2
    since_ms = START_MS + len(loop.log.partitions[0]) * SECOND_MS
    for part, changed in enumerate(parts):
        loop.live(changed=changed, rows=20, seed=40 + part)
    return loop.alerted(fingerprint="f2", drift=Drift("adwin", change_at=rfc3339(since_ms), version="2"))


def test_a_champion_that_has_collapsed_gives_way_to_the_archive_at_once(loop: Loop) -> None:
    """The old concept is back, and version 2 always wrong: 40 rows tell that version 1 is right."""
    run = loop.finish(returned(loop, False, False))
    assert (run.state, run.version, run.tested_rows, run.trainings) == ("promoted", 1, 40, 0)


def test_any_other_champion_is_not_compared_with_the_archive_on_a_few_rows(loop: Loop) -> None:
    """Version 2 is right on half of 40 rows: the archive is asked on 60, and what was not asked costs it nothing."""
    kept: list[tuple[int, int, str]] = []

    def pause(seconds: float) -> None:
        now = loop.runs.of("loans")[-1]
        kept.append((now.tested_rows, now.rounds, now.verdict or ""))
        loop.live(changed=len(kept) < 3, rows=20, seed=50 + len(kept))

    run = loop.retrainer().execute(returned(loop, True, False), lambda: None, pause)
    assert kept[0] == (40, 0, "40 labelled rows since the change, 200 are needed")
    assert [each[:2] for each in kept[1:3]] == [(60, 1), (60, 1)]
    assert run.ended or run.state == "promoted"


def test_rows_without_features_say_so(tmp_path: Path) -> None:
    """A producer that publishes no features makes retraining impossible; the reason says which rows were dropped."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    for event in loop.log.partitions[0]:
        if event is not None:
            event.features = None
    run = loop.finish(loop.alerted())
    assert run.reason == "0 labelled rows since the change, 30 are needed (dropped: 400 no_features)"


def test_an_alert_about_a_replaced_champion_is_rejected(loop: Loop) -> None:
    """Two alerts of one drift: the first run replaces the version that the second was about."""
    first = loop.alerted()
    second = loop.alerted(fingerprint="f2")
    assert [r.episode for r in loop.retrainer().unfinished()] == [first.episode]
    loop.finish(first)
    assert [r.episode for r in loop.retrainer().unfinished()] == [second.episode]
    ended = loop.finish(second)
    assert ended.state == "rejected"
    assert "no longer the champion" in (ended.reason or "")
    assert loop.state.aliases["champion"] == "2"


def test_the_weekly_maximum_stops_promotions(loop: Loop) -> None:
    """Whatever alarms, a model changes at most so often without a person; a week later it may again."""
    settings = SETTINGS.model_copy(update={"max_promotions_per_week": 1})
    assert loop.finish(loop.alerted(), settings=settings).state == "promoted"
    loop.live(changed=False, rows=600, seed=11)
    since = rfc3339(START_MS + 400_000)
    again = {"drift": Drift("adwin", change_at=since, version="2")}
    second = loop.finish(loop.alerted(fingerprint="f2", **again), settings=settings)
    assert second.reason == "1 promotions within a week, at most 1 are allowed"
    loop.now_ms += 8 * 86_400_000
    third = loop.finish(loop.alerted(fingerprint="f3", **again), settings=settings)
    assert third.state == "promoted"


# Crashes ----------------------------------------------------------------------------------------------------------


def crash_on_save(loop: Loop, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die right before the n-th step of a run is written."""
    save, steps = loop.runs.save, iter(range(at + 1))

    def dying(run: Run) -> None:
        if next(steps, at) == at:
            raise Crash
        save(run)

    monkeypatch.setattr(loop.runs, "save", dying)


@pytest.mark.parametrize("at", range(6))
def test_a_crash_before_any_step_is_written_resumes(loop: Loop, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the process dies, the next one brings the run to the same end, with one promotion."""
    run = loop.alerted()
    with monkeypatch.context() as patch:
        crash_on_save(loop, at, patch)
        with pytest.raises(Crash):
            loop.finish(run)
    (left,) = loop.retrainer().unfinished()
    ended = loop.finish(left)
    assert ended.state == "promoted"
    assert loop.state.aliases["previous"] == "1"
    assert loop.state.aliases["champion"] == str(ended.version)
    assert loop.retrainer().unfinished() == []


@pytest.mark.parametrize("kind", ["candidate", "promoted"])
def test_a_crash_between_a_change_and_its_event_is_made_good(loop: Loop, kind: str) -> None:
    """The state was changed and nobody told: the next start tells it, and the run ends as it should."""

    class Dying:
        def publish(self, event: ModelEvent) -> None:
            if event.kind == kind:
                raise Crash
            loop.announcer.publish(event)

        def last_states(self) -> dict[str, ModelState]:
            return loop.announcer.last_states()

    with pytest.raises(Crash):
        loop.finish(loop.alerted(), announcer=Dying())
    assert loop.announcer.last_states()["loans"].revision < loop.state.revision
    assert republish(loop.repository, loop.announcer, "now") == ["loans"]
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.state) == (kind, "2", loop.state)
    assert republish(loop.repository, loop.announcer, "now") == []
    (left,) = loop.retrainer().unfinished()
    assert loop.finish(left).state == "promoted"
    assert loop.announcer.last_states()["loans"] == loop.state


def test_a_training_that_keeps_dying_is_given_up(loop: Loop) -> None:
    """Out of memory three times is an answer: the run ends, and the loop is free for the next episode."""
    tried = 0

    def dies(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        nonlocal tried
        tried += 1
        raise ChildFailed("exit code -9")

    run = loop.finish(loop.alerted(), perform=dies)
    assert (run.state, tried) == ("rejected", 3)
    assert "3 times" in (run.reason or "")


def test_a_training_that_dies_once_is_tried_again(loop: Loop) -> None:
    """A child that was killed by chance costs nothing but time."""
    tried = 0

    def once(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        nonlocal tried
        tried += 1
        if tried == 1:
            stage("exporting")
            raise ChildFailed("exit code -9")
        return perform(job, stage)

    assert loop.finish(loop.alerted(), perform=once).state == "promoted"


def test_a_gone_service_ends_the_process_and_not_the_run(loop: Loop) -> None:
    """A broker that is away is no reason to reject: the run stays where it is."""

    class Gone:
        def publish(self, event: ModelEvent) -> None:
            raise Unavailable("no broker", "")

        def last_states(self) -> dict[str, ModelState]:
            return {}

    with pytest.raises(Unavailable):
        loop.finish(loop.alerted(), announcer=Gone())
    (left,) = loop.retrainer().unfinished()
    assert loop.finish(left).state == "promoted"


def test_denied_access_ends_the_process_and_not_the_run(loop: Loop) -> None:
    """A right that was taken away is no verdict: a person gives it back, and the run goes on."""
    with pytest.raises(AccessDenied):
        loop.finish(loop.alerted(), log=DeniedLog())
    (left,) = loop.retrainer().unfinished()
    assert loop.finish(left).state == "promoted"


def test_a_lost_lease_stops_before_anything_else_is_written(loop: Loop) -> None:
    """Each step looks first: a run that may be another process's now writes nothing more."""
    run = loop.alerted()
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks > 4:
            raise Crash

    before = loop.state
    with pytest.raises(Crash):
        loop.retrainer().execute(run, check, loop.pause)
    assert loop.state == before


def test_a_champion_that_cannot_be_loaded_is_the_reason(loop: Loop, tmp_path: Path) -> None:
    """A damaged repository rejects the run with what is wrong; it does not end the loop of the other models."""
    (tmp_path / "loans" / "1" / "model.onnx").write_bytes(b"damaged")
    run = loop.finish(loop.alerted())
    assert run.state == "rejected"
    assert "SHA-256" in (run.reason or "")
