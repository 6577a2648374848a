"""Feeds of outcomes that mislead, through the monitor: what pages, what is withheld, and when the verdict is back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streams.catalog import Catalog
from streams.events import Alert
from streams.settings import Settings
from tests.unit.streams.label_traffic import (
    DAY_S,
    MIDNIGHT_S,
    NEVER,
    Traffic,
    at_minute,
    log_of,
    told,
    traffic,
    watched,
)
from tests.unit.streams.monitor_log import champion, events, registered

HOUR_S = 3_600
DAY = 1_440
ERRORS = (0.01, 0.25)
"""Of the predicted classes: the positives, a fifth, are much less certain."""
ACCURACY = 0.942
END_S = MIDNIGHT_S + 22 * HOUR_S
DRIFTED = (0.2, 0.4)


def settings(**monitor: object) -> Settings:
    """Defaults, but nothing is told twice."""
    return Settings.model_validate({"monitor": {"repeat_minutes": 0, "outcomes_missing_minutes": 3_000, **monitor}})


def alerts(found: Traffic, ends_s: int, **monitor: object) -> list[Alert]:
    """The alerts of a registered model."""
    return told(log_of(found, ends_s), settings(**monitor), registered(champion(accuracy=ACCURACY)))


def names(found: list[Alert]) -> list[tuple[str, str]]:
    return [(each.labels["alertname"], each.reason) for each in found]


def about_the_model(found: list[Alert]) -> list[Alert]:
    return [each for each in found if not each.labels["alertname"].startswith("Outcomes")]


def feed(days: float, a_minute: int = 4, **more: object) -> Traffic:
    return traffic(round(days * DAY), ERRORS, positive=0.2, a_minute=a_minute, **more)  # type: ignore[arg-type]


def sorted_dump(found: Traffic, by: str) -> Traffic:
    """A dump of a day over three minutes, which begins with everything of one kind."""
    wrong = found.predicted != found.actual
    key = {"class": -found.predicted, "error": ~wrong, "time": found.at_s}[by]
    day = found.at_s // DAY_S
    order = np.lexsort((found.at_s, key, day))
    known = np.empty(len(order), dtype=np.int64)
    for each in np.unique(day):
        rows = order[day[order] == each]
        known[rows] = (each + 1) * DAY_S + 2 * HOUR_S + np.arange(len(rows)) * 180 // len(rows)
    return replace(found, known_s=known)


LONG = pytest.mark.long


KINDS = ("time", "class", "error")


@pytest.mark.parametrize(("by", "days"), [("error", 6), *(pytest.param(by, 30, marks=LONG) for by in KINDS)])
def test_nights_of_dumps_page_nobody(by: str, days: int) -> None:
    """Also dumps that begin with all the positives, or with all that was wrong. A month may have one false alarm: the
    budget is half of one.
    """
    found = alerts(sorted_dump(feed(days), by), MIDNIGHT_S + days * DAY_S)
    assert len([each for each in found if each.reason == "fired"]) <= days // 30


@pytest.mark.parametrize("by", ["time", "class"])
def test_a_drift_pages_once_the_dump_that_shows_it_is_over(by: str) -> None:
    """One incident, minutes after the dump, though its first minute alone would have said so."""
    found = sorted_dump(feed(5, drift=(3 * DAY, DRIFTED)), by)
    got = alerts(found, MIDNIGHT_S + 5 * DAY_S)
    fired = [each for each in got if each.reason in ("fired", "severity", "reopened")]
    assert {each.labels["alertname"] for each in got} <= {"ModelAccuracyDropped", "ConceptDriftDetected"}
    assert len({each.labels["incident"] for each in fired}) == 1
    assert len([each for each in fired if each.reason == "fired"]) == 1
    dump = 4 * DAY + 120
    assert dump + 5 <= at_minute(fired[0]) <= dump + 15


def test_a_drift_is_not_dropped_for_being_overestimated_when_it_was_found() -> None:
    """Twenty outcomes said .38, the whole dump says .10: nearer to the .06 before, but not healthy."""
    found = sorted_dump(feed(5, seed=3, drift=(3 * DAY, (0.06, 0.25))), "time")
    got = alerts(found, MIDNIGHT_S + 5 * DAY_S)
    assert "ConceptDriftDetected" in {each.labels["alertname"] for each in got}


def test_the_first_minute_of_all_is_a_part_of_one_and_says_nothing_of_the_flow() -> None:
    """A model that starts two seconds before a minute is over drifts in the next: that is no dump, and told at once."""
    found = traffic(3, ERRORS, positive=0.2, a_minute=1_200, start_s=MIDNIGHT_S + 58)
    drifted = traffic(3, DRIFTED, positive=0.2, a_minute=1_200, start_s=MIDNIGHT_S + 58)
    found = replace(found, actual=np.where(found.at_s < MIDNIGHT_S + 70, found.actual, drifted.actual))
    got = told(log_of(found, MIDNIGHT_S + 100, every_s=1), settings(), registered(champion(accuracy=ACCURACY)))
    assert names(got) == [("ConceptDriftDetected", "fired")]
    assert at_minute(got[0]) < 1.4


ONLY_NORTH = {
    "segments": ["north"],
    "baseline_outcomes": 2_000,
    "minimum_accuracy": 0.1,
    "baseline_drop": 0.9,
    "rates": [],
    "outcomes_slow_share": 0.0,
}


def of_north(found: list[Alert]) -> list[Alert]:
    return [each for each in found if each.labels.get("segment") == "north"]


def test_a_segment_waits_for_the_end_of_a_dump_too() -> None:
    """What its detector finds in the first minute of it is held, and told if the whole dump says so."""
    found = replace(sorted_dump(feed(5, drift=(3 * DAY, (0.5, 0.6))), "time"), segment="north")
    first, *_ = of_north(alerts(found, MIDNIGHT_S + 5 * DAY_S, **ONLY_NORTH))
    assert first.status == "firing"
    assert 4 * DAY + 125 <= at_minute(first) <= 4 * DAY + 135
    steady, by_error = feed(6), sorted_dump(feed(6), "error")
    known_s = np.where(steady.at_s < MIDNIGHT_S + 2 * DAY_S, sorted_dump(steady, "time").known_s, by_error.known_s)
    unsorted_first = replace(steady, known_s=known_s, segment="north")
    assert of_north(alerts(unsorted_first, MIDNIGHT_S + 6 * DAY_S, **ONLY_NORTH)) == []


def test_a_segment_says_nothing_while_outcomes_are_one_sided() -> None:
    """What its detector finds is dropped, and it starts afresh when both classes come again."""
    found = replace(one_class(feed(0.9, 20), (10, 13), back=False), segment="north")
    assert of_north(alerts(found, END_S, **ONLY_NORTH)) == []
    assert of_north(alerts(found, END_S, **ONLY_NORTH, outcomes_one_sided=1.0))
    later = replace(one_class(feed(0.9, 20, drift=(16 * 60, DRIFTED)), (10, 13), back=False), segment="north")
    first, *_ = of_north(alerts(later, END_S, **ONLY_NORTH))
    assert 16 * 60 <= at_minute(first) <= 16 * 60 + 10


def one_class(found: Traffic, hours: tuple[int, int], predicted: int = 0, *, back: bool = True) -> Traffic:
    from_s, to_s = (MIDNIGHT_S + hour * HOUR_S for hour in hours)
    return found.blocked(from_s, to_s, predicted, back=back)


@pytest.mark.parametrize("delay_s", [5, 1_200])
def test_a_feed_of_one_class_is_said_and_is_no_collapse(delay_s: int) -> None:
    """Only outcomes of the uncertain positives come: it is told what is missing, and resolved when it is back."""
    found = one_class(feed(0.9, 20).delayed(delay_s), (10, 13), back=False)
    got = alerts(found, END_S)
    assert about_the_model(got) == []
    assert ("OutcomesOneSided", "fired") in names(got)
    assert ("OutcomesOneSided", "clean") in names(got)
    first = next(each for each in got if each.labels["alertname"] == "OutcomesOneSided")
    assert "predicts as 0" in first.annotations["summary"]
    assert "neither fire, repeat nor resolve" in first.annotations["description"]
    assert "outcomes_one_sided = 1" in first.annotations["description"]
    assert 600 <= at_minute(first) <= 660
    assert "incident" not in first.labels
    assert first.drift is not None
    facts = first.drift.evidence[0]
    assert facts["share"] < 0.9 * facts["others"]


def test_without_that_rule_it_would_have_paged_as_a_collapse() -> None:
    """What the rule is worth, and what accepting a one-sided feed means."""
    found = one_class(feed(0.6, 20), (10, 13), back=False)
    got = alerts(found, MIDNIGHT_S + 14 * HOUR_S, outcomes_one_sided=1.0, outcomes_slow_share=0.0)
    assert {name for name, _ in names(got)} == {"ModelAccuracyDropped", "ConceptDriftDetected"}


def test_a_drift_behind_a_feed_of_one_class_pages_when_the_verdict_is_back() -> None:
    """The detectors begin anew, so what one side had told them hides nothing."""
    found = one_class(feed(0.9, 20, drift=(16 * 60, DRIFTED)), (10, 13), back=False)
    got = about_the_model(alerts(found, END_S))
    fired = [each for each in got if each.reason == "fired"]
    assert len(fired) == 1
    assert 16 * 60 <= at_minute(fired[0]) <= 16 * 60 + 10
    during = one_class(feed(0.9, 20, drift=(12 * 60, DRIFTED)), (10, 13), back=False)
    got = about_the_model(alerts(during, END_S))
    assert len({each.labels["incident"] for each in got}) == 1
    assert 13 * 60 <= at_minute(got[0]) <= 15 * 60, "withheld while the feed is one-sided"


BUSY = 600
"""Outcomes a minute, of which a detector needs seconds."""


def turned(offset_s: int, a_minute: int = BUSY) -> tuple[Traffic, int]:
    """A quarter of an hour of traffic, and the second of its last third in which something is to happen."""
    return feed(15 / DAY, a_minute, seed=offset_s), MIDNIGHT_S + 600 + offset_s


@pytest.mark.parametrize("predicted", [0, 1])
@pytest.mark.parametrize("offset_s", [1, 20, 42, 58])
def test_a_busy_feed_that_turns_one_sided_within_a_minute_pages_nobody(offset_s: int, predicted: int) -> None:
    """What a detector finds in the seconds before the minute is over is held, and dropped with the rest."""
    found, turn_s = turned(offset_s)
    found = found.blocked(turn_s, END_S, predicted, back=False)
    assert {name for name, _ in names(alerts(found, MIDNIGHT_S + 900))} <= {"OutcomesOneSided"}
    if predicted == 0:
        accepted = alerts(found, MIDNIGHT_S + 900, outcomes_one_sided=1.0)
        assert turn_s < MIDNIGHT_S + 60 * at_minute(about_the_model(accepted)[0]) < turn_s + 60


@pytest.mark.parametrize("offset_s", [1, 20, 42, 58])
def test_a_busy_model_that_collapses_pages_as_soon_as_if_nobody_looked_at_sides(offset_s: int) -> None:
    """Its outcomes come for both classes: nothing waits."""
    found, turn_s = turned(offset_s)
    worse = traffic(15, DRIFTED, positive=0.2, a_minute=BUSY, seed=offset_s)
    found = replace(found, actual=np.where(found.at_s < turn_s, found.actual, worse.actual))
    got = about_the_model(alerts(found, MIDNIGHT_S + 900))
    assert got == about_the_model(alerts(found, MIDNIGHT_S + 900, outcomes_one_sided=1.0))
    assert at_minute(got[0]) < 11.5


def test_a_model_that_suddenly_predicts_one_class_only_pages_when_the_next_minute_is_over() -> None:
    """Its outcomes are of one class, and as they were predicted."""
    found, turn_s = turned(20)
    found = replace(found, predicted=np.where(found.at_s < turn_s, found.predicted, 1))
    got = alerts(found, MIDNIGHT_S + 900)
    assert "OutcomesOneSided" not in {name for name, _ in names(got)}
    assert at_minute(about_the_model(got)[0]) <= 12


@pytest.mark.parametrize("back", [True, False])
def test_a_blocked_feed_that_returns_pages_nobody(back: bool) -> None:
    """With its backlog at once, or without: it was slow, then a dump."""
    found = feed(0.9, 20).blocked(MIDNIGHT_S + 10 * HOUR_S, MIDNIGHT_S + 14 * HOUR_S, back=back)
    got = alerts(found, END_S)
    assert names(got) == [("OutcomesSlow", "fired"), ("OutcomesSlow", "clean")]


def test_a_drift_while_a_feed_is_blocked_pages_behind_its_backlog() -> None:
    """Once, when what came at once has settled."""
    found = feed(0.9, 20, drift=(12 * 60, DRIFTED))
    found = found.blocked(MIDNIGHT_S + 10 * HOUR_S, MIDNIGHT_S + 14 * HOUR_S)
    got = about_the_model(alerts(found, END_S))
    assert [each.reason for each in got if each.reason == "fired"] == ["fired"]
    assert 14 * 60 + 5 <= at_minute(got[0]) <= 14 * 60 + 15


def test_a_class_whose_outcomes_take_longer_is_one_sided_only_until_they_come() -> None:
    """At first only those of the other class are known; then cohorts are mature when the slower ones have come."""
    found = feed(2, 5)
    found = found.delayed(np.where(found.predicted == 1, 8 * HOUR_S, 60))
    got = alerts(found, MIDNIGHT_S + 2 * DAY_S)
    assert names(got) == [("OutcomesOneSided", "fired"), ("OutcomesOneSided", "clean")]
    assert got[1].ends_at < "2023-11-15T16"


def test_few_outcomes_of_every_class_are_not_one_sided() -> None:
    """One prediction in fifty is labelled, whatever it said."""
    found = feed(1, 60)
    labelled = np.random.default_rng(1).random(len(found.at_s)) < 0.02
    found = replace(found, known_s=np.where(labelled, found.at_s + 600, NEVER))
    assert alerts(found, MIDNIGHT_S + DAY_S) == []


def test_a_correction_is_undone_in_the_windows_and_pages_nobody() -> None:
    """A labelling mistake that is put right the next day: the windows of both days are right afterwards."""
    found = feed(1.2, 20)
    mistaken = (found.at_s >= MIDNIGHT_S + 20 * HOUR_S) & (found.at_s < MIDNIGHT_S + 20 * HOUR_S + 600)
    wrong = replace(found, actual=np.where(mistaken, 1 - found.predicted, found.actual))
    rows = np.flatnonzero(mistaken & (found.predicted == found.actual))
    corrected = {int(row): MIDNIGHT_S + 22 * HOUR_S + number for number, row in enumerate(rows)}
    log = log_of(wrong, MIDNIGHT_S + 26 * HOUR_S, corrected=corrected)
    got = told(log, settings(detectors=[]), registered(champion(accuracy=ACCURACY)))
    assert names(got) == [("ModelAccuracyDropped", "fired"), ("ModelAccuracyDropped", "clean")]
    assert got[1].ends_at < "2023-11-15T23"


def with_nights(days: int, drift: tuple[int, tuple[float, float]] | None = None, seed: int = 4) -> Traffic:
    """A model that begins at six. Outcomes come at once, a fifth of them in a dump at two, wrong twice as often."""
    found = traffic(days * DAY, (0.06, 0.06), 0.5, a_minute=7, start_s=MIDNIGHT_S + 6 * HOUR_S, seed=seed, drift=drift)
    rng = np.random.default_rng([seed, 1])
    late = rng.random(len(found.at_s)) < 0.2
    wrong = np.where(late & (rng.random(len(late)) < 0.07), 1 - found.predicted, found.actual)
    night = found.dumped(2 * HOUR_S).known_s + rng.integers(300, size=len(late))
    return replace(found, actual=wrong, known_s=np.where(late, night, found.known_s))


NIGHTS: dict[str, object] = {
    "minimum_accuracy": 0.1,
    "baseline_drop": 0.9,
    "false_alarms_per_week": 1.0,
    "rates": [],
}
"""Drifts of the error rate only, and a budget of a false alarm a week."""


def drifts(found: Traffic, days: float, catalog: Catalog | None = None, **monitor: object) -> list[Alert]:
    """What a model, unregistered without a catalog, is told to have: alerts about a drift that fired."""
    ends_s = MIDNIGHT_S + round((days + 0.25) * DAY_S)
    got = told(log_of(found, ends_s), settings(**NIGHTS, **monitor), catalog or Catalog())
    return [each for each in got if each.labels["alertname"] == "ConceptDriftDetected" and each.reason == "fired"]


def test_a_night_that_a_new_model_has_not_seen_is_learnt_and_pages_nobody() -> None:
    """The detector had learnt from a day without its night; it learns from the whole first day instead."""
    assert drifts(with_nights(3), 3) == []


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_a_night_that_the_baseline_of_a_registered_model_has_not_seen_pages_nobody(seed: int) -> None:
    """Neither the first, nor those that follow; a drift behind them is found within hours."""
    known = registered(champion(accuracy=0.926))
    assert drifts(with_nights(4, seed=seed), 4, known) == []
    first, *_ = drifts(with_nights(4, drift=(3 * DAY, (0.25, 0.25)), seed=seed), 4, known)
    assert 3.25 * DAY <= at_minute(first) <= 3.25 * DAY + 180


def test_behind_the_first_night_a_drift_is_found_as_before() -> None:
    """Within an hour, at the end of the second day."""
    first, *_ = drifts(with_nights(3, drift=(2 * DAY, (0.25, 0.25))), 3)
    assert 2.25 * DAY <= at_minute(first) <= 2.25 * DAY + 60


def test_a_drift_that_was_told_before_the_first_night_is_not_learnt() -> None:
    """The detector goes on behind that night with the reference that it had."""
    found = with_nights(1, drift=(840, (0.4, 0.4)))
    monitor = watched(log_of(found, MIDNIGHT_S + 27 * HOUR_S), settings(**NIGHTS, baseline_outcomes=3_000), Catalog())
    [first, *_] = events([each.alert for each in monitor.outbox])
    assert (first.labels["alertname"], first.reason) == ("ConceptDriftDetected", "fired")
    assert at_minute(first) < 1_440
    detecting = monitor.watches["loan"].versions["1"].detecting
    assert detecting.normal is not None
    assert detecting.normal.outcomes == 3_000
