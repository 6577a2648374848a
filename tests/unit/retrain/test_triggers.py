"""What starts a run, and what does not: alerts, new labels, a schedule, quiet hours."""

from typing import Any

import numpy as np
import pytest

from retrain.labels import LabelCounts
from retrain.lifecycle import Run, looks_in_vain, unbeaten_since_ms
from retrain.promotion import LOOKS, weariness
from retrain.triggers import concerns, due, labels_needed, quiet, rows_needed, run_by
from streams.events import Mode, ModelState
from streams.settings import RetrainSettings
from tests.unit.retrain.loop import alert
from tests.unit.retrain.rows import SECOND_MS, START_MS, labelled, pairs

SETTINGS = RetrainSettings(labels=500, minimum_rows=200, cooldown_s=60)


def run(**changed: Any) -> Run:
    """A run that ended a long time ago."""
    fields: dict[str, Any] = {"episode": "e", "model": "loans", "fingerprint": "f", "starts_at": "", "alertname": ""}
    fields |= {"state": "rejected", "champion": "1", "triggered_ms": 0, "updated_ms": START_MS}
    return Run(**{**fields, **changed})


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({}, True),
        ({"alerts": ["ModelAccuracyDropped"]}, False),
        ({"severities": ["critical"]}, False),
        ({"severities": ["warning"]}, True),
    ],
)
def test_alerts_start_runs_by_kind_and_severity(changed: dict[str, Any], starts: bool) -> None:
    """The policy names the alerts and the severities that may call for a new version."""
    labels = {"alertname": "ConceptDriftDetected", "model": "loans", "severity": "warning"}
    assert concerns(alert(labels=labels), SETTINGS.model_copy(update=changed)) is starts


@pytest.mark.parametrize(
    ("segment", "wanted", "starts"), [("north", True, True), ("north", False, False), ("", False, True)]
)
def test_an_alert_about_a_segment_starts_a_run_unless_told_otherwise(segment: str, wanted: bool, starts: bool) -> None:
    """The setting is about segments only."""
    labels = {"alertname": "ConceptDriftDetected", "model": "loans", "severity": "warning", "segment": segment}
    assert concerns(alert(labels=labels), SETTINGS.model_copy(update={"segment_alerts": wanted})) is starts


def test_new_labels_start_a_run_once_there_are_enough() -> None:
    """Counted from the last run, or from the first version."""
    assert due([], "1", 499, 0, SETTINGS, START_MS) is None
    assert due([], "1", 500, 0, SETTINGS, START_MS) == "labels"
    assert due([], "1", 10_000, 0, SETTINGS.model_copy(update={"labels": 0}), START_MS) is None


@pytest.mark.parametrize(("tested", "needed"), [(60, 140), (160, 80), (300, 150), (499, 250), (500, 500), (5_000, 500)])
def test_after_a_run_of_few_rows_the_next_one_comes_sooner(tested: int, needed: int) -> None:
    """What was not proven on few rows is looked at again on half as many more, as soon as something can be trained."""
    assert labels_needed([run(tested_rows=tested), run(updated_ms=0, tested_rows=9)], "1", SETTINGS) == needed
    dropped = run(updated_ms=START_MS + 1)
    assert labels_needed([run(tested_rows=tested), dropped], "1", SETTINGS) == needed, "it had looked at no row"
    assert labels_needed([dropped], "1", SETTINGS) == 500


@pytest.mark.parametrize(
    ("known", "share", "needed"),
    [(0, 0.02, 100), (5_000, 0.02, 100), (5_001, 0.02, 101), (20_000, 0.02, 400), (20_000, 0.0, 100)],
)
def test_the_more_rows_a_run_reads_the_more_new_ones_it_waits_for(known: int, share: float, needed: int) -> None:
    """What a label costs is bounded, however many there are."""
    often = SETTINGS.model_copy(update={"labels": 100, "labels_share": share})
    assert labels_needed([run(tested_rows=2_000, trained_from={"rows": known})], "1", often) == needed
    stopgap = run(tested_rows=90, trained_from={"rows": known, "trained_on": "all"}, stopgap=True)
    assert labels_needed([stopgap], "1", often) == often.archive_rows, "the share holds no haste up"


@pytest.mark.parametrize(("tested", "needed"), [(60, 200), (300, 200), (460, 230), (500, 500)])
def test_a_quick_challenger_is_improved_soon(tested: int, needed: int) -> None:
    """The rows that it was chosen by are no test of the next one: as many must come as something can be trained on."""
    won = run(state="watching", better=True, tested_rows=tested, trained_from={"trained_on": "all"})
    assert labels_needed([won], "1", SETTINGS) == needed


def test_no_run_by_labels_comes_before_something_can_be_trained() -> None:
    """However few are asked for: it would only ask the archive, and move the next one on."""
    often = SETTINGS.model_copy(update={"labels": 100})
    assert labels_needed([], "1", often) == often.minimum_rows
    learnt = run(state="watching", better=True, tested_rows=700, trained_from={"trained_on": "all"})
    assert labels_needed([learnt], "1", often) == often.minimum_rows
    returned = run(state="watching", better=True, tested_rows=62, trained_from={"to_ms": START_MS})
    assert labels_needed([returned], "1", often) == 138
    assert labels_needed([run(tested_rows=260)], "1", often) == 100


@pytest.mark.parametrize(("tested", "needed"), [(30, 170), (62, 138), (190, 95), (500, 500)])
def test_rows_on_which_the_archive_won_count_for_the_next_run(tested: int, needed: int) -> None:
    """Nobody has learnt them: with those that come they are enough to train on."""
    won = run(state="watching", better=True, tested_rows=tested, trained_from={"to_ms": START_MS})
    assert labels_needed([won], "1", SETTINGS) == needed


@pytest.mark.parametrize(("chosen_by", "needed"), [(9, 90), (111, 111), (200, 200), (5_000, 200)])
def test_who_was_chosen_by_few_rows_is_challenged_on_as_few(chosen_by: int, needed: int) -> None:
    """The newest promotion of the version counts; one that no run promoted is as good as any."""
    before = run(episode="b", version=2, promoted_ms=START_MS, tested_rows=4_000)
    other = run(episode="o", version=3, promoted_ms=START_MS + 9, tested_rows=100)
    won = run(
        version=2, promoted_ms=START_MS + 5, tested_rows=chosen_by, better=True, trained_from={"trained_on": "all"}
    )
    assert rows_needed([other, won, before], "2", SETTINGS) == needed
    assert rows_needed([won], "1", SETTINGS) == SETTINGS.minimum_rows
    often = SETTINGS.model_copy(update={"labels": 60})
    assert labels_needed([won], "2", often) == needed


def test_behind_a_stopgap_the_archive_is_asked_soon() -> None:
    """It won against a champion that had collapsed, and nothing will page about it: it is as bad as it says."""
    won = run(state="watching", better=True, stopgap=True, tested_rows=90, trained_from={"trained_on": "all"})
    assert labels_needed([won], "1", SETTINGS) == SETTINGS.archive_rows
    looked = run(triggered_ms=START_MS + 1, updated_ms=START_MS + 2, tested_rows=60)
    assert labels_needed([won, looked], "1", SETTINGS) == 140


def test_after_a_rollback_the_archive_is_asked_soon() -> None:
    """What serves again was not good enough once; until a run has had rows since."""
    back = run(state="rolled_back", tested_rows=900, updated_ms=START_MS + 5)
    dropped = run(triggered_ms=START_MS + 1, updated_ms=START_MS + 6, tested_rows=90)
    assert labels_needed([back, dropped], "1", SETTINGS) == SETTINGS.archive_rows
    assert (
        labels_needed([back, run(triggered_ms=START_MS + 7, updated_ms=START_MS + 8, tested_rows=90)], "1", SETTINGS)
        == 110
    )


def test_a_run_under_way_and_a_recent_one_hold_the_next_one_back() -> None:
    """One at a time; none so soon after another."""
    assert due([run(state="collecting")], "1", 1_000, 0, SETTINGS, START_MS + 10**9) is None
    assert due([run()], "1", 1_000, 0, SETTINGS, START_MS + 59 * SECOND_MS) is None
    assert due([run()], "1", 1_000, 0, SETTINGS, START_MS + 60 * SECOND_MS) == "labels"


def look(at_ms: int, **changed: Any) -> Run:
    """A run by labels whose contest nobody won."""
    known = {"kind": "labels", "triggered_ms": at_ms, "updated_ms": at_ms + 1, "tested_rows": 500, "verdict": "no"}
    return run(**{**known, **changed})


def test_who_has_not_been_beaten_for_long_is_looked_at_less_often() -> None:
    """Between two looks passes a hundredth of that time at least: of a day 14 minutes."""
    hour_ms = 3_600 * SECOND_MS
    for hours, pause_s in ((1, 60), (24, 864), (24 * 7, 6_048)):
        last = look(START_MS + hours * hour_ms - 1)
        due_ms = START_MS + hours * hour_ms + pause_s * SECOND_MS
        assert due([last], "1", 500, START_MS, SETTINGS, due_ms - 1) is None
        assert due([last], "1", 500, START_MS, SETTINGS, due_ms) == "labels"
    asked = run(updated_ms=START_MS + 168 * hour_ms)
    assert due([look(START_MS + hour_ms), asked], "1", 500, START_MS, SETTINGS, asked.updated_ms + 60_000) == "labels"
    scheduled = SETTINGS.model_copy(update={"schedule_s": 120.0})
    assert due([last], "1", 0, START_MS, scheduled, last.updated_ms + 120_000) == "schedule", "somebody wants it so"


@pytest.mark.parametrize(
    ("other", "began_ms"),
    [
        ({"state": "watching", "promoted_ms": START_MS + 40}, START_MS + 40),
        ({"state": "confirmed", "promoted_ms": START_MS + 40}, START_MS + 40),
        ({"state": "rolled_back", "promoted_ms": START_MS + 10, "updated_ms": START_MS + 40}, START_MS + 40),
        ({"state": "rejected", "updated_ms": START_MS + 40}, START_MS + 40),
        ({"state": "collecting", "updated_ms": START_MS + 40}, START_MS),
    ],
)
def test_looks_in_vain_count_from_whatever_else_happened_last(other: dict[str, Any], began_ms: int) -> None:
    """A promotion, a way back, an alert's run; when a probation ended tells nothing of who serves."""
    known = [look(START_MS + at) for at in range(0, 100, 20)]
    runs = [*known, run(episode="o", **{"updated_ms": START_MS + 70, **other})]
    assert unbeaten_since_ms(runs, START_MS) == began_ms
    assert looks_in_vain(runs) == (5 if began_ms == START_MS else 3)


@pytest.mark.parametrize("kept_back", [{"verdict": None}, {"better": True, "reason": "frozen"}])
def test_a_look_that_told_nothing_of_the_champion_was_not_in_vain(kept_back: dict[str, Any]) -> None:
    """Rows that were not fit, and a winner that a freeze held back."""
    assert looks_in_vain([look(START_MS), look(START_MS + 9, **kept_back)]) == 1


def test_a_champion_that_nobody_beats_needs_more_of_a_proof_with_each_look() -> None:
    """From the twentieth on: the sum of what all looks spend is bounded, however long it serves."""
    known = [look(START_MS + at) for at in range(5_000)]
    assert [weariness(known[:n]) for n in (0, 20, 40, 200)] == [1.0, 1.0, 4.0, 100.0]
    spent = np.cumsum([1 / max(1.0, n / LOOKS) ** 2 for n in range(5_000)])
    assert spent[-1] < 2 * LOOKS + 1


def test_a_schedule_starts_a_run_so_long_after_the_last_one() -> None:
    """Or after the first version was made, without one."""
    daily = SETTINGS.model_copy(update={"schedule_s": 86_400.0})
    assert due([], "1", 0, START_MS, daily, START_MS + 86_399 * SECOND_MS) is None
    assert due([], "1", 0, START_MS, daily, START_MS + 86_400 * SECOND_MS) == "schedule"
    assert due([run()], "1", 0, 0, daily, START_MS + 86_400 * SECOND_MS) == "schedule"
    assert due([run()], "1", 0, 0, daily, START_MS + 86_399 * SECOND_MS) is None


@pytest.mark.parametrize(
    ("hours", "at", "is_quiet"),
    [
        ("", "03:00", False),
        ("22:00-06:00", "23:59", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("09:00-17:30", "17:29", True),
        ("09:00-17:30", "17:30", False),
        ("09:00-17:30", "08:59", False),
    ],
)
def test_quiet_hours_may_pass_midnight(hours: str, at: str, is_quiet: bool) -> None:
    """In UTC, the end not included."""
    hour, minute = map(int, at.split(":"))
    assert quiet(hours, START_MS - START_MS % 86_400_000 + (60 * hour + minute) * 60_000) is is_quiet


def state(mode: Mode = "auto", **aliases: str) -> ModelState:
    """A model of that mode."""
    return ModelState("loans", 1, "binary", aliases=aliases, mode=mode)


def test_two_processes_name_a_run_by_labels_alike() -> None:
    """Whoever records it first has it; it knows the newest change that an alert has dated."""
    runs = [run(since_ms=7), run(since_ms=9), run()]
    one = run_by("labels", state(champion="3"), runs, START_MS + 1)
    other = run_by("labels", state(champion="3"), runs, START_MS + 2)
    assert isinstance(one, Run)
    assert isinstance(other, Run)
    assert (one.episode, one.champion, one.since_ms, one.kind) == (other.episode, "3", 9, "labels")
    later = run_by("labels", state(champion="3"), [*runs, one], START_MS + 3)
    assert isinstance(later, Run)
    assert later.episode != one.episode
    assert one.trigger == {"fingerprint": "labels", "startsAt": "2023-11-14T22:13:20.001Z", "kind": "labels"}


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (None, "not in the repository"),
        (state(), "no champion"),
        (state("observe", champion="1"), "observe"),
    ],
)
def test_a_model_that_cannot_be_retrained_says_why(known: ModelState | None, reason: str) -> None:
    """The reason goes to whoever asked."""
    found = run_by("command", known, [], START_MS)
    assert isinstance(found, str)
    assert reason in found


def test_labels_are_counted_by_model_from_when_they_count() -> None:
    """What an earlier run had is forgotten; records of other models, and of before, do not count."""
    counts = LabelCounts()
    counts.add(labelled(pairs([1, 0, 1, 0]), models=["loans"]))
    counts.add(labelled(pairs([1, 0]), models=["other"]))
    assert (counts.count("loans"), counts.count("other"), counts.count("none")) == (4, 2, 0)
    counts.forget("loans", START_MS + 2 * SECOND_MS - 1)
    assert counts.count("loans") == 2
    counts.add(labelled(pairs([1, 0, 1])))
    assert counts.count("loans") == 3
    counts.forget("loans", 0)
    assert counts.count("loans") == 3
