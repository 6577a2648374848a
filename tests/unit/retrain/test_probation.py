"""After a promotion: confirmed, rolled back or released; poisoned labels; crashes at every step; cooldowns."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from retrain.announce import republish
from retrain.labels import LabelCounts
from retrain.lifecycle import Run
from retrain.probation import Probation, probation
from retrain.promotion import cooldown_end_ms, rigour, shadows_of
from retrain.retrainer import Retrainer
from retrain.tables import Table
from retrain.training import Floats
from retrain.triggers import labels_needed
from serving.history import Change
from streams.errors import AccessDenied, Unavailable
from streams.events import Drift, Mode, ModelEvent, ModelState, rfc3339
from streams.settings import RetrainSettings
from tests.unit.retrain.loop import SETTINGS, Crash, Loop, alert, new_loop
from tests.unit.retrain.rows import PROBLEM, START_MS, DeniedLog, concept, dataset, features, labelled
from tests.unit.retrain.test_lifecycle import run as a_run

HOUR_MS = 3_600_000


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[Loop, Run]:
    """A false alarm, then labels that are each the other class: version 2 has learnt them and was promoted."""
    return poison(new_loop(tmp_path))


def poison(loop: Loop) -> tuple[Loop, Run]:
    """Promote version 2 on 400 wrong labels."""
    loop.serve(400, wrong_labels=True)
    run = loop.finish(loop.alerted())
    assert (run.state, loop.state.aliases["champion"]) == ("promoted", "2")
    return loop, run


def test_a_version_that_does_no_worse_is_confirmed(tmp_path: Path) -> None:
    """The concept has changed: on the rows after the promotion the new version is right where the old one is not."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    loop.serve(SETTINGS.probation_rows + 100, wrong_labels=True)
    ended = loop.watch(run)
    assert (ended.state, ended.reason) == ("confirmed", "no worse on 600 rows")
    assert ended.shadows == ["1"]
    assert ended.probation["1"]["better"] > 550
    assert loop.state.aliases == {"champion": "2", "previous": "1"}


def test_wrong_labels_lead_to_a_rollback_with_its_evidence(poisoned: tuple[Loop, Run]) -> None:
    """The labels are right again: the old version would have been right. It serves again; everybody is told why."""
    loop, run = poisoned
    loop.serve(200)
    ended = loop.watch(run)
    assert ended.state == "rolled_back"
    assert loop.state.aliases == {"champion": "1"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.detail) == ("rolledback", "2", "to version 1")
    assert told.state == loop.state
    assert told.trigger == run.trigger
    assert told.reason == ended.reason
    assert "version 2 does worse than version 1 would have done: share wrong" in (ended.reason or "")
    assert "e-value" in (ended.reason or "")


def test_wrong_labels_hide_it_only_while_they_last(poisoned: tuple[Loop, Run]) -> None:
    """300 more wrong labels speak for the new version; what comes then is judged by bets that have not seen them."""
    loop, run = poisoned
    loop.serve(300, wrong_labels=True)
    loop.serve(200, seed=12)
    ended = loop.watch(run)
    assert ended.state == "rolled_back"
    assert ended.probation["1"]["since_row"] == pytest.approx(300, abs=5)


def test_what_comes_after_a_rollback_knows_since_when_the_version_was_worse(poisoned: tuple[Loop, Run]) -> None:
    """It had been right for 300 rows: the concept that it knew has gone since, and nobody has learnt the one that came.

    Rows of before would speak for nobody; no alert has told of this change, or one that cannot date it.
    """
    loop, run = poisoned
    loop.serve(300, wrong_labels=True)
    turned = len(loop.log.records)
    loop.serve(200, seed=12)
    ended = loop.watch(run)
    came = [max(row.prediction_ms, row.outcome_ms) for r in loop.log.records[turned:] for row in r.rows()]
    assert ended.worse_since_ms is not None
    assert came[0] - 5_000 <= ended.worse_since_ms <= came[5]
    assert f"it did better until {rfc3339(ended.worse_since_ms)}" in (ended.reason or "")
    loop.now_ms += HOUR_MS * 24
    bare = {"labels": {"alertname": "ModelAccuracyDropped", "model": "loans"}, "drift": None}
    assert loop.alerted(fingerprint="f9", **bare).since_ms == ended.worse_since_ms
    by_labels = loop.retrainer().start("loans", "labels")
    assert by_labels is not None
    assert by_labels.since_ms == ended.worse_since_ms


def test_an_alert_behind_a_rollback_is_of_the_change_that_it_has_shown(poisoned: tuple[Loop, Run]) -> None:
    """The detectors of the version that serves again began with the rollback: what they date is too late, for as long
    as the pause lasts, or as soon behind the rollback as that was behind its change: labels may come later.
    """
    loop, run = poisoned
    loop.serve(300, wrong_labels=True)
    loop.serve(200, seed=12)
    ended = loop.watch(run)
    dated = Drift("adwin", change_at=rfc3339(loop.now_ms + HOUR_MS), version="1")
    assert loop.alerted(fingerprint="f8", drift=dated).since_ms == ended.worse_since_ms
    change_ms = loop.now_ms // 1_000 * 1_000 + 24 * HOUR_MS
    loop.now_ms = change_ms
    later = Drift("adwin", change_at=rfc3339(change_ms), version="1")
    assert loop.alerted(fingerprint="f9", drift=later).since_ms == change_ms + 1_000
    assert ended.worse_since_ms is not None and ended.worse_seen_ms is not None
    took_ms = ended.worse_seen_ms - ended.worse_since_ms
    soon = Drift("adwin", change_at=rfc3339(ended.worse_seen_ms + took_ms - 1_000), version="1")
    assert took_ms > 2_000
    assert loop.alerted(fingerprint="f10", drift=soon).since_ms == ended.worse_since_ms


def test_an_alert_behind_what_has_learnt_the_change_is_of_another(poisoned: tuple[Loop, Run]) -> None:
    """A version was promoted since the rollback, and taken back by a person: nothing is known of when it changed."""
    loop, run = poisoned
    loop.serve(300, wrong_labels=True)
    loop.serve(200, seed=12)
    ended = loop.watch(run)
    assert ended.worse_since_ms is not None and ended.worse_seen_ms is not None
    learnt = msgspec.structs.replace(run, episode="e9", state="released", promoted_ms=ended.updated_ms + 1)
    assert loop.runs.create(learnt)
    soon = Drift("adwin", change_at=rfc3339(ended.worse_seen_ms + 1_500), version="1")
    since_ms = loop.alerted(fingerprint="f10", drift=soon).since_ms
    assert since_ms is not None and since_ms > ended.worse_seen_ms


def test_a_version_that_was_never_better_dates_no_change(poisoned: tuple[Loop, Run]) -> None:
    """It was wrong from its first row on: what changed is the version, not the world."""
    loop, run = poisoned
    loop.serve(200)
    ended = loop.watch(run)
    assert ended.state == "rolled_back"
    assert (ended.probation["1"]["since_row"], ended.worse_since_ms) == (0, None)


def test_labels_of_one_class_only_promote_nothing(tmp_path: Path) -> None:
    """A feed that reports only defaults, say: no challenger comes of it, and the reason names the class balance."""
    loop = new_loop(tmp_path)
    loop.serve(400)
    for record in loop.log.records:
        record.outcomes = np.ones(400).tobytes()
    ended = loop.finish(loop.alerted())
    assert ended.state == "rejected"
    assert "one class only" in (ended.reason or "")
    assert loop.state.aliases == {"champion": "1"}


class Waiting(Exception):
    """A run or a probation waits for rows."""


def waiting(_: float) -> None:
    raise Waiting


def play(loop: Loop, retrainer: Retrainer, counts: LabelCounts, rows: int, wrong: bool, seed: int) -> None:
    """So many rows go by with their labels, and the loop does what it does of its own accord."""
    loop.serve(rows, wrong_labels=wrong, seed=seed)
    loop.now_ms += rows * 1_000
    counts.add(loop.log.records[-1])
    retrainer.look(counts)
    for run in retrainer.unfinished():
        with contextlib.suppress(Waiting):
            retrainer.execute(run, lambda: None, waiting)
    for run in retrainer.on_probation():
        with contextlib.suppress(Waiting):
            probation(retrainer, run, lambda: None, waiting)


@pytest.mark.parametrize(("labels", "state"), [(0, "rolled_back"), (500, "released")])
def test_2000_wrong_labels_after_a_false_alarm_do_no_lasting_harm(tmp_path: Path, labels: int, state: str) -> None:
    """With the loop's own settings, runs by labels or not: what learnt them is taken back within its probation.

    By the probation, or by a run by labels that comes first and finds the archive's version better on the newest rows.
    """
    loop, counts = new_loop(tmp_path), LabelCounts()
    changed = {"trees": 10, "depth": 3, "parity_rows": 500, "labels": labels}
    retrainer = loop.retrainer(settings=RetrainSettings().model_copy(update=changed))
    assert retrainer.trigger(alert()) is not None
    for hundred in range(20):
        play(loop, retrainer, counts, 100, wrong=True, seed=100 + hundred)
    poisonous = [run for run in loop.runs.of("loans") if run.promoted_ms is not None]
    assert poisonous, "labels that are wrong alike look like a change, and nothing can tell before they end"
    for hundred in range(6):
        play(loop, retrainer, counts, 100, wrong=False, seed=200 + hundred)
    assert loop.state.aliases["champion"] == "1"
    ended = loop.runs.load("loans", poisonous[-1].episode)
    assert ended.state == state
    if state == "released":
        assert ended.reason == "version 1 took its place"
        (back,) = [run for run in loop.runs.of("loans") if run.version == 1 and run.promoted_ms is not None]
        assert (back.verdict or "").startswith("version 1: accuracy")
        return
    assert ended.probation["1"]["rows"] <= RetrainSettings().probation_rows
    assert "does worse than version 1 would have done" in (ended.reason or "")
    assert loop.announcer.events[-1].reason == ended.reason


def test_a_feed_that_loses_a_class_promotes_nothing(tmp_path: Path) -> None:
    """From some row on only defaults are reported. The older rows have both classes, which must not hide it."""
    loop, counts = new_loop(tmp_path), LabelCounts()
    retrainer = loop.retrainer(settings=SETTINGS.model_copy(update={"labels": 300, "cooldown_s": 1.0}))
    play(loop, retrainer, counts, 250, wrong=False, seed=100)
    for hundred in range(8):
        loop.serve(100, seed=200 + hundred)
        whole = loop.log.records.pop()
        loop.log.records.append(labelled([row for row in whole.rows() if row.outcome == 1]))
        loop.now_ms += 100_000
        counts.add(loop.log.records[-1])
        retrainer.look(counts)
        for run in retrainer.unfinished():
            with contextlib.suppress(Waiting):
                retrainer.execute(run, lambda: None, waiting)
    ended = loop.runs.of("loans")
    assert [run.state for run in ended] == ["rejected"] * len(ended)
    assert "class 0 has none of the newest 100 outcomes" in (ended[-1].reason or "")
    assert loop.state.aliases == {"champion": "1"}


def test_labels_that_are_wrong_at_random_stop_the_run(tmp_path: Path) -> None:
    """A person who clicks through: every third label is wrong. The reason says so, and that a setting allows it."""
    loop = new_loop(tmp_path)
    loop.serve(1_000)
    whole = loop.log.records.pop()
    wrong = np.random.default_rng(1).random(1_000) < 0.3
    rows = whole.rows()
    for row in np.flatnonzero(wrong):
        rows[row].outcome = 1 - int(rows[row].outcome)
    loop.log.records.append(labelled(rows))
    run = loop.alerted()
    ended = loop.finish(run)
    assert ended.state == "rejected"
    assert "of the newest 1000 labels are probably wrong" in (ended.reason or "")
    assert loop.announcer.events[-1].reason == ended.reason
    assert loop.state.aliases == {"champion": "1"}
    again = loop.alerted(fingerprint="f2")
    allowed = loop.finish(again, settings=SETTINGS.model_copy(update={"label_errors": 1.0}))
    assert "probably wrong" not in (allowed.reason or "")


def test_late_labels_of_the_old_version_count(poisoned: tuple[Loop, Run]) -> None:
    """Outcomes are late: the first ones after the promotion are of rows that the old version predicted."""
    loop, run = poisoned
    loop.live(changed=False, rows=200, seed=13)  # predicted by version 1
    assert loop.watch(run).state == "rolled_back"


def test_rows_that_the_version_was_made_of_say_nothing(poisoned: tuple[Loop, Run]) -> None:
    """Trained or compared on: they are not evidence, so nothing is confirmed and the time runs out."""
    loop, run = poisoned
    ended = loop.watch(run)
    assert ended.state == "released"
    assert ended.reason == "0 of 600 rows could be compared within 600 s, and it was not found worse on them"
    assert loop.state.aliases["champion"] == "2"
    bare = {"labels": {"alertname": "ModelAccuracyDropped", "model": "loans"}, "drift": None}
    assert loop.alerted(fingerprint="f9", **bare).since_ms is None, "it has learnt the change"


def test_rows_without_features_are_left_out(poisoned: tuple[Loop, Run]) -> None:
    """What cannot be scored is no evidence for either."""
    loop, run = poisoned
    loop.serve(200)
    for event in loop.log.partitions[0]:
        if event is not None and event.version == "2":
            event.features = None
    assert loop.watch(run).state == "released"


@pytest.mark.parametrize("every", [False, True])
def test_a_freeze_does_not_stop_a_rollback(poisoned: tuple[Loop, Run], every: bool) -> None:
    """A freeze stops what is new; a rollback takes something new away."""
    loop, run = poisoned
    if every:
        loop.administration.freeze_all(True)
    else:
        loop.administration.freeze("loans", True)
    loop.serve(200)
    assert loop.watch(run).state == "rolled_back"
    assert loop.state.aliases["champion"] == "1"


@pytest.mark.parametrize("mode", ["observe", "recommend"])
def test_where_the_loop_may_not_act_it_says_what_it_found(poisoned: tuple[Loop, Run], mode: Mode) -> None:
    """Mode observe or recommend since the promotion: the finding and the command are in the reason."""
    loop, run = poisoned
    loop.administration.set_mode("loans", mode)
    loop.serve(200)
    ended = loop.watch(run)
    assert ended.state == "released"
    assert "does worse than version 1" in (ended.reason or "")
    assert "driftline models rollback loans" in (ended.reason or "")
    assert loop.state.aliases["champion"] == "2"


def test_another_champion_ends_the_probation(poisoned: tuple[Loop, Run]) -> None:
    """A person promotes: whatever served before is not watched any more, and not brought back."""
    loop, run = poisoned
    loop.administration.promote("loans", 1)
    loop.serve(200)
    ended = loop.watch(run)
    assert (ended.state, ended.reason) == ("released", "version 1 took its place")
    assert loop.state.aliases["champion"] == "1"


def test_a_person_who_is_faster_than_the_rollback_wins(
    poisoned: tuple[Loop, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the verdict and the change a third version is promoted: it stays."""
    loop, run = poisoned
    rows = features(300, seed=21)
    table = loop_table(rows)
    third, _ = loop.administration.register(table, SETTINGS, trained_from={"file": "new.csv"})
    loop.serve(200)
    change = loop.repository.change

    def raced(model: str, update: Callable[[ModelState], ModelState], why: Change) -> ModelState:
        monkeypatch.setattr(loop.repository, "change", change)
        loop.administration.promote("loans", third.version)
        return change(model, update, why)

    monkeypatch.setattr(loop.repository, "change", raced)
    ended = loop.watch(run)
    assert ended.state == "released"
    assert f"but version {third.version} took its place" in (ended.reason or "")
    assert loop.state.aliases["champion"] == str(third.version)


def test_a_lost_old_version_ends_the_probation_with_the_reason(poisoned: tuple[Loop, Run], tmp_path: Path) -> None:
    """What cannot be loaded is nothing to go back to."""
    loop, run = poisoned
    (tmp_path / "loans" / "1" / "model.onnx").write_bytes(b"damaged")
    loop.serve(200)
    ended = loop.watch(run)
    assert ended.state == "released"
    assert "nothing to compare it with" in (ended.reason or "")
    assert "SHA-256" in (ended.reason or "")


def test_a_gone_service_leaves_the_probation_where_it_is(poisoned: tuple[Loop, Run]) -> None:
    """A broker that is away when the rollback is told ends the process; the next one tells it."""
    loop, run = poisoned
    loop.serve(200)

    class Gone:
        def publish(self, event: ModelEvent) -> None:
            raise Unavailable("no broker", "")

        def last_states(self) -> dict[str, ModelState]:
            return {}

    with pytest.raises(Unavailable):
        loop.watch(run, announcer=Gone())
    (left,) = loop.retrainer().on_probation()
    assert loop.watch(left).state == "rolled_back"
    assert loop.announcer.kinds[-1] == "rolledback"


# Several promotions in a row --------------------------------------------------------------------------------------


def loop_table(rows: Floats) -> Table:
    """A table of the old concept."""
    return Table(PROBLEM, dataset(rows, concept(rows, changed=False)))


def test_promotions_on_promotions_are_compared_with_what_was_there_before_all_of_them(
    poisoned: tuple[Loop, Run],
) -> None:
    """Wrong labels promote version 2, then 3 on 2; only version 1 shows what both do, and it returns."""
    loop, first = poisoned
    loop.serve(300, wrong_labels=True)
    second = third_version(loop)
    assert loop.watch(first).reason == "version 3 took its place"
    loop.serve(200, seed=12)
    ended = loop.watch(second)
    assert ended.shadows == ["2", "1"]
    assert ended.state == "rolled_back"
    assert loop.state.aliases["champion"] == "1"


def third_version(loop: Loop) -> Run:
    """A run that promoted version 3 in the place of version 2, with the same wrong idea."""
    rows = features(500, seed=31)
    table = Table(PROBLEM, dataset(rows, concept(rows, changed=True)))
    manifest, _ = loop.administration.register(table, SETTINGS, trained_from={"file": "more.csv"})
    loop.now_ms += 1_000
    run = a_run(
        "promoted",
        episode="e3",
        champion="2",
        version=manifest.version,
        better=True,
        promoted_ms=loop.now_ms,
        trained_from={"to_ms": START_MS + 700_000},
    )
    loop.administration.promote("loans", manifest.version)
    loop.runs.create(run)
    return run


def test_the_chain_of_shadows_ends_at_what_was_confirmed() -> None:
    """Nearest first, no further than a version that was confirmed, and no more than are asked for."""

    def promoted(version: int, champion: str, state: str = "released") -> Run:
        made = {"episode": f"e{version}", "version": version, "champion": champion, "promoted_ms": version}
        return a_run(state, **made)  # type: ignore[arg-type]  # names from the table

    two, three, four = promoted(2, "1"), promoted(3, "2"), promoted(4, "3", "promoted")
    assert shadows_of(four, [two, three, four], 3) == ["3", "2", "1"]
    assert shadows_of(four, [two, three, four], 2) == ["3", "2"]
    assert shadows_of(four, [promoted(2, "1", "confirmed"), three, four], 3) == ["3", "2"]
    assert shadows_of(four, [two, promoted(3, "2", "confirmed"), four], 3) == ["3"]
    back = promoted(5, "4", "promoted")
    assert shadows_of(back, [promoted(4, "5"), back], 3) == ["4"]


# Cooldown ---------------------------------------------------------------------------------------------------------


def test_after_a_rollback_alerts_wait(poisoned: tuple[Loop, Run]) -> None:
    """The old champion alarms again: its run is recorded, and begins in six hours, with all the time it may take.

    The alert is not sent again for hours: were it dropped, a champion that fails would serve on for as long.
    """
    loop, run = poisoned
    loop.serve(200)
    rolled_back_ms = loop.watch(run).updated_ms
    loop.now_ms += HOUR_MS
    again = alert(fingerprint="f2", drift=Drift("adwin", change_at=rfc3339(START_MS), version="1"))
    waiting = loop.retrainer().trigger(again)
    assert waiting is not None
    assert loop.retrainer().trigger(again) is None, "the same episode"
    ended = loop.finish(waiting)
    assert rolled_back_ms + 6 * HOUR_MS <= (ended.begun_ms or 0) < rolled_back_ms + 7 * HOUR_MS
    assert (ended.state, ended.rounds) == ("rejected", 1), "it had an hour for more rows, which did not come"
    assert loop.state.aliases["champion"] == "1"


def test_an_alert_that_waited_is_about_the_rows_that_came_meanwhile(poisoned: tuple[Loop, Run]) -> None:
    """The world has changed during the pause: what is trained behind it has learnt that."""
    loop, run = poisoned
    loop.serve(200)
    loop.watch(run)
    loop.live(changed=True, rows=900, seed=13)
    changed_ms = START_MS + 600_000
    drift = Drift("adwin", change_at=rfc3339(changed_ms), version="1")
    waiting = loop.retrainer().trigger(alert(fingerprint="f2", drift=drift))
    assert waiting is not None
    assert loop.finish(waiting).state == "promoted"


def test_after_a_look_at_the_archive_something_is_trained_as_soon_as_it_can_be(poisoned: tuple[Loop, Run]) -> None:
    """185 rows are enough to ask the archive. The next look is at 200, from which on challengers are trained, and not
    at half as many rows again.
    """
    loop, run = poisoned
    loop.serve(200)
    loop.watch(run)
    loop.now_ms += 7 * HOUR_MS
    since_ms = START_MS + len(loop.log.partitions[0]) * 1_000
    loop.live(changed=False, rows=185, seed=21)
    looks: list[tuple[int, int]] = []

    def pause(seconds: float) -> None:
        now = loop.runs.of("loans")[-1]
        looks.append((now.tested_rows, now.trainings))
        loop.live(changed=False, rows=15, seed=22 + len(looks))
        loop.now_ms += 1_000

    drift = Drift("adwin", change_at=rfc3339(since_ms), version="1")
    waiting = loop.retrainer().trigger(alert(fingerprint="f2", drift=drift))
    assert waiting is not None
    loop.retrainer().execute(waiting, lambda: None, pause)
    assert looks[:2] == [(185, 0), (200, 1)]


def test_a_run_that_was_waiting_does_not_promote_within_the_cooldown(poisoned: tuple[Loop, Run]) -> None:
    """At work before the rollback: it ends with the reason, and the champion stays."""
    loop, run = poisoned
    loop.serve(300, seed=12)
    waiting = a_run(
        "collecting", episode="e9", champion="1", triggered_ms=loop.now_ms, since_ms=START_MS + 1, better=None
    )
    loop.runs.create(waiting)
    assert loop.watch(run).state == "rolled_back"
    loop.live(changed=True, rows=900, seed=13)
    ended = loop.finish(waiting)
    assert ended.state == "rejected"
    assert "a version was rolled back: no automatic promotion before" in (ended.reason or "")
    assert loop.state.aliases["champion"] == "1"


def test_a_model_may_have_its_own_probation_and_cooldown(tmp_path: Path) -> None:
    """200 rows are enough for this one, and after a rollback its alerts wait a minute, not six hours."""
    loop, run = poison(new_loop(tmp_path))
    own = {"loans": SETTINGS.model_copy(update={"rollback_cooldown_s": 60.0, "probation_rows": 200})}
    loop.serve(200)
    assert loop.watch(run, own_settings=own).state == "rolled_back"
    drift = Drift("adwin", change_at=rfc3339(START_MS), version="1")
    second = loop.retrainer(own_settings=own).trigger(alert(fingerprint="f2", drift=drift))
    assert second is not None
    loop.live(changed=True, rows=900, seed=13)
    rolled_back_ms = loop.now_ms
    promoted = loop.finish(second, own_settings=own)
    assert rolled_back_ms + 60_000 <= (promoted.begun_ms or 0) < rolled_back_ms + HOUR_MS
    loop.serve(200, wrong_labels=True, seed=14)
    ended = loop.watch(promoted, own_settings=own)
    assert (ended.state, ended.reason) == ("confirmed", "no worse on 200 rows")


def test_people_are_not_kept_waiting(poisoned: tuple[Loop, Run]) -> None:
    """In mode approve a person decides: alerts start runs, and a promotion by hand is no automatic one."""
    loop, run = poisoned
    loop.serve(200)
    loop.watch(run)
    loop.administration.set_mode("loans", "approve")
    drift = Drift("adwin", change_at=rfc3339(START_MS), version="1")
    assert loop.retrainer().trigger(alert(fingerprint="f2", drift=drift)) is not None
    loop.administration.promote("loans", 2)
    assert loop.state.aliases["champion"] == "2"


def test_rollbacks_in_a_row_ask_for_more_proof_and_are_forgotten() -> None:
    """Each behind the first divides the significance by four, up to four times; a confirmed promotion ends the row.

    The pause after one stays as it is: a champion that fails is not kept for days because of those that failed before.
    """

    def ended(state: str, at: int) -> Run:
        return a_run(state, episode=f"e{at}", updated_ms=at)  # type: ignore[arg-type]  # names from the table

    assert (cooldown_end_ms([], 10), rigour([])) == (0, 1)
    rollbacks = [ended("rolled_back", 1_000 * i) for i in range(1, 8)]
    found = [(cooldown_end_ms(rollbacks[:n], 10), rigour(rollbacks[:n])) for n in range(1, 8)]
    assert found == [
        (1_000 * n + 10_000, factor) for n, factor in zip(range(1, 8), (1, 4, 16, 64, 256, 256, 256), strict=True)
    ]
    released = [*rollbacks, ended("released", 8_000)]
    assert (cooldown_end_ms(released, 10), rigour(released)) == (17_000, 256)
    confirmed = [*released, ended("confirmed", 9_000)]
    assert (cooldown_end_ms(confirmed, 10), rigour(confirmed)) == (0, 1)
    again = [ended("rolled_back", 10_000), *confirmed]
    assert (cooldown_end_ms(again, 10), rigour(again)) == (20_000, 1)


# Crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("at", range(3))
def test_a_crash_beside_any_write_resumes(
    poisoned: tuple[Loop, Run], at: int, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the process dies, before or after what it writes, the next one ends with the same single rollback."""
    loop, run = poisoned
    loop.serve(200)
    save, writes = loop.runs.save, itertools.count()

    def dying(step: Run) -> None:
        last = next(writes) == at
        if last and not written:
            raise Crash
        save(step)
        if last:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(loop.runs, "save", dying)
        with pytest.raises(Crash):
            loop.watch(run)
    for left in loop.retrainer().on_probation():
        loop.watch(left)
    assert [r.state for r in loop.runs.of("loans")] == ["rolled_back"]
    assert loop.state.aliases == {"champion": "1"}
    assert loop.state.revision == loop.announcer.last_states()["loans"].revision


def test_a_rollback_that_was_not_told_is_told_at_the_next_start(poisoned: tuple[Loop, Run]) -> None:
    """The state was changed and the process died: what is published again says what it was."""
    loop, run = poisoned
    loop.serve(200)

    class Dying:
        def publish(self, event: ModelEvent) -> None:
            raise Crash

        def last_states(self) -> dict[str, ModelState]:
            return loop.announcer.last_states()

    with pytest.raises(Crash):
        loop.watch(run, announcer=Dying())
    assert republish(loop.repository, loop.announcer, "now") == ["loans"]
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.state) == ("rolledback", "2", loop.state)
    (left,) = loop.retrainer().on_probation()
    assert loop.watch(left).state == "rolled_back"


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{broken"), lambda path: path.unlink()])
def test_a_damaged_version_is_told_of_at_the_next_start(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A process that cannot read a version's manifest starts, and tells of the state without its details."""
    loop, _ = poison(new_loop(tmp_path))
    loop.administration.rollback("loans")
    told = loop.announcer.events.pop()
    damage(tmp_path / "loans" / "2" / "manifest.json")
    assert republish(loop.repository, loop.announcer, "now") == ["loans"]
    again = loop.announcer.events[-1]
    assert (again.kind, again.version, again.uri, again.state) == ("rolledback", "2", told.uri, told.state)
    assert again.sha256 is None


def test_a_version_whose_manifest_breaks_before_the_way_back_is_rolled_back(
    poisoned: tuple[Loop, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probation ends as what it is, and everybody is told: not released after the state was changed."""
    loop, run = poisoned
    loop.serve(200)
    change = loop.repository.change

    def breaking(model: str, update: Callable[[ModelState], ModelState], why: Change | None = None) -> ModelState:
        (tmp_path / "loans" / "2" / "manifest.json").write_text("{broken")
        return change(model, update, why)

    monkeypatch.setattr(loop.repository, "change", breaking)
    assert loop.watch(run).state == "rolled_back"
    assert loop.announcer.events[-1].kind == "rolledback"
    assert loop.announcer.last_states()["loans"] == loop.state


def test_denied_access_is_no_verdict_on_a_probation(poisoned: tuple[Loop, Run]) -> None:
    """A right that was taken away ends the process, which says so; the probation goes on once it is given back."""
    loop, run = poisoned
    with pytest.raises(AccessDenied):
        loop.watch(run, log=DeniedLog())
    (left,) = loop.retrainer().on_probation()
    assert loop.watch(left).state == "released"


def test_a_promotion_that_a_person_took_back_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process died between the promotion and its record, a person goes back: there is no second promotion."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    save = loop.runs.save

    def dying(run: Run) -> None:
        if run.state == "promoted":
            raise Crash
        save(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop.runs, "save", dying)
        with pytest.raises(Crash):
            loop.finish(loop.alerted())
    assert loop.state.aliases["champion"] == "2"
    loop.administration.promote("loans", 1)
    (left,) = loop.retrainer().unfinished()
    ended = loop.finish(left)
    assert (ended.state, ended.reason) == ("rejected", "version 2 is no longer the challenger")
    assert loop.state.aliases["champion"] == "1"


def test_a_step_reads_no_further_than_the_log_reaches(poisoned: tuple[Loop, Run]) -> None:
    """A probation is looked at step by step: between two of them the run is persisted as it stands."""
    loop, run = poisoned
    watched = Probation(loop.retrainer(), run, lambda: None)
    assert watched.step().state == "watching"
    assert watched.step().probation == {}
    loop.serve(10)
    assert watched.step().probation["1"]["rows"] == 10
    assert loop.runs.of("loans")[0].probation["1"]["rows"] == 10
    watched.close()


PATIENT = SETTINGS.model_copy(update={"probation_significance": 1e-60, "labels": 500})


def test_a_collapse_that_the_monitor_cannot_see_yet_makes_a_run_due(tmp_path: Path) -> None:
    """The labels that come after a promotion are of what its predecessor answered, and version 2 would be wrong on all
    of the newest 100. Bets that find nothing stand for a predecessor that is no better.
    """
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    loop.live(changed=True, rows=100, seed=60)
    turned_ms = START_MS + len(loop.log.partitions[0]) * 1_000
    loop.live(changed=False, rows=100, seed=61)
    watched = Probation(loop.retrainer(settings=PATIENT), run, lambda: None)
    watched.step()
    kept = watched.step()
    watched.close()
    assert kept.state == "watching"
    assert kept.worse_since_ms is not None
    assert abs(kept.worse_since_ms - turned_ms) <= 5_000
    assert labels_needed(loop.runs.of("loans"), "1", PATIENT) == PATIENT.archive_rows
    by_labels = loop.retrainer().start("loans", "labels")
    assert by_labels is not None
    assert by_labels.since_ms == kept.worse_since_ms
    learnt = loop.finish(by_labels)
    assert (learnt.state, learnt.champion) == ("promoted", "2")
    runs = [each for each in loop.runs.of("loans") if each.episode != learnt.episode]
    assert labels_needed([*runs, learnt], "1", PATIENT) > PATIENT.archive_rows, "it is learnt now"


def test_a_version_that_is_right_now_and_then_has_not_collapsed(tmp_path: Path) -> None:
    """On a third of the newest rows: that may be an hour, and is a matter for the detectors."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    for part, changed in enumerate([True, False, True, False, False, True, False, False]):
        loop.live(changed=changed, rows=15, seed=60 + part)
    watched = Probation(loop.retrainer(settings=PATIENT), run, lambda: None)
    watched.step()
    assert watched.step().worse_since_ms is None
    watched.close()
