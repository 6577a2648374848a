"""What pages, for which version, and when it stops."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.tally import Tally
from streams import silence
from streams.arrivals import Arrivals, Minute
from streams.catalog import Catalog
from streams.events import Alert, Baseline, ModelEvent, ModelState
from streams.monitor import MonitorPartition
from streams.records import Correction, Summary, VersionPart
from streams.settings import ModelSettings, Settings
from streams.watch import Notice
from tests.unit.streams.monitor_log import (
    START_S,
    Pair,
    champion,
    events,
    fresh,
    play,
    record,
    registered,
    settings,
)

REGRESSION = ModelState("loan", 1, "regression", aliases={"champion": "1"}, baselines={"1": Baseline("mae", 1.0, 5000)})


def outcomes(
    rate: float, start_s: int, minutes: int, version: str = "1", a_minute: int = 60, **more: Any
) -> list[Pair]:
    """Outcomes of which every so many-th is wrong: exactly this rate in every window."""
    every = round(1 / rate) if rate else 0
    return [
        Pair(start_s + at * 60 // a_minute, version=version, error=float(bool(every) and at % every == 0))
        for at in range(minutes * a_minute)
    ]


def randomly(rate: float, start_s: int, minutes: int, seed: int = 0, **more: Any) -> list[Pair]:
    """One outcome a second, wrong at random."""
    rng = random.Random(seed)
    return [Pair(start_s + at, error=float(rng.random() < rate), **more) for at in range(minutes * 60)]


def alerts_of(pairs: list[Pair], configuration: Settings | None = None, catalog: Catalog | None = None) -> list[Alert]:
    """The alerts of a log of these pairs, one hour of silence included."""
    log = record(pairs, 1, ends_s=pairs[-1].second + 3600)
    return events(play(log, configuration or settings(), catalog))


def names(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.labels["alertname"], alert.status) for alert in alerts]


def minute(at: int) -> int:
    return START_S + 60 * at


ONLY_RULES = {"detectors": [], "repeat_minutes": 0}


def test_an_accuracy_under_the_minimum_fires_when_it_has_held_and_resolves_when_clean() -> None:
    """Pending for ``for_minutes``, firing, resolved after ``clean_minutes``, with the right version and times."""
    pairs = outcomes(0.02, minute(0), 10) + outcomes(0.2, minute(10), 10) + outcomes(0.02, minute(20), 15)
    fired, resolved = alerts_of(pairs, settings(**ONLY_RULES), registered(champion(accuracy=0.94)))
    assert names([fired, resolved]) == [("ModelAccuracyDropped", "firing"), ("ModelAccuracyDropped", "resolved")]
    assert fired.starts_at == resolved.starts_at
    assert fired.drift is not None
    assert (fired.drift.version, fired.drift.threshold, fired.drift.window) == ("1", 0.9, "5m")
    assert fired.starts_at == "2023-11-14T22:26:00.000Z"  # minute 12
    assert resolved.ends_at == "2023-11-14T22:37:00.000Z"  # minutes 20, 21 and 22 are clean


HOURLY = {**ONLY_RULES, "window_minutes": 60, "minimum_outcomes": 500, "for_minutes": 5}


def test_a_collapse_pages_within_three_minutes_and_a_dip_does_not() -> None:
    """A fast pair of windows needs no pending time; what it spends is said."""
    healthy = outcomes(0.02, minute(0), 40, a_minute=120)
    dip = [*healthy, *outcomes(0.5, minute(40), 1, a_minute=120), *outcomes(0.02, minute(41), 40, a_minute=120)]
    assert alerts_of(dip, settings(**HOURLY), registered(champion(accuracy=0.97))) == []
    collapse = [*healthy, *outcomes(0.5, minute(40), 4, a_minute=120)]
    [fired, *_] = alerts_of(collapse, settings(**HOURLY), registered(champion(accuracy=0.97)))
    assert fired.drift is not None
    at = fired.drift.detected_at
    assert at is not None
    assert "2023-11-14T22:56:00" <= at[:19] <= "2023-11-14T22:57:00"  # minutes 42 and 43
    assert (fired.drift.window, fired.labels["severity"], fired.reason) == ("5m", "critical", "fired")
    text = fired.annotations["description"]
    assert "times too fast over 5 minutes and over the last 1" in text
    assert "wrong predictions more than usual" in text
    assert "What 60 minutes may spend is gone in" in text


def test_a_detector_and_a_rule_are_one_incident_with_the_evidence_of_both() -> None:
    """The second is no news; both carry the incident's id, and the later one shows what the first saw."""
    pairs = randomly(0.03, minute(0), 30) + randomly(0.4, minute(30), 10, 1)
    configuration = Settings(
        monitor=settings(**{**ONLY_RULES, "detectors": ["adwin"]}).monitor,
        models={"loan": ModelSettings(cost_per_error=2.5, critical_cost_per_day=1e9)},
    )
    found = alerts_of(pairs, configuration, registered(champion(accuracy=0.97)))
    drift, rule = found[:2]
    assert [(each.labels["alertname"], each.reason) for each in (drift, rule)] == [
        ("ConceptDriftDetected", "fired"),
        ("ModelAccuracyDropped", "joined"),
    ]
    assert drift.incident is not None
    assert rule.incident is not None
    assert drift.labels["incident"] == rule.labels["incident"] == drift.incident.id == rule.incident.id
    assert [each.alertname for each in rule.incident.alerts] == ["ConceptDriftDetected", "ModelAccuracyDropped"]
    assert "same incident has ConceptDriftDetected (firing)" in rule.annotations["description"]
    assert {each.labels["severity"] for each in found} == {"warning"}, "so many a day is not critical"
    facts = rule.drift.evidence[0] if rule.drift is not None else {}
    assert float(rule.annotations["cost_so_far"]) == pytest.approx(2.5 * facts["extra_errors"], abs=0.01)
    assert 0.2 * 3600 * 24 < facts["extra_a_day"] < 0.45 * 3600 * 24
    assert "it has cost" in rule.annotations["description"]


def test_a_cost_a_day_that_is_critical_makes_the_alert_critical() -> None:
    """Three points lost by a model whose errors are dear; the severity rises within the episode."""
    pairs = outcomes(0.02, minute(0), 10) + outcomes(1 / 8, minute(10), 5) + outcomes(1 / 4, minute(15), 6)
    configuration = Settings(
        monitor=settings(**ONLY_RULES).monitor,
        models={"loan": ModelSettings(cost_per_error=1.0, critical_cost_per_day=0.15 * 86_400)},
    )
    found = alerts_of(pairs, configuration, registered(champion(accuracy=0.97)))
    assert [(each.labels["severity"], each.reason) for each in found[:2]] == [
        ("warning", "fired"),
        ("critical", "severity"),
    ]


def fraud(recall: float, start_s: int, minutes: int, seed: int = 0) -> list[Pair]:
    """One outcome a second, of which one in ten is positive; one in a hundred of the others is predicted to be."""
    rng = random.Random(seed)
    pairs = []
    for at in range(minutes * 60):
        actual = rng.random() < 0.1
        predicted = rng.random() < (recall if actual else 0.01)
        pairs.append(Pair(start_s + at, error=float(predicted != actual), predicted=int(predicted)))
    return pairs


def stream_by_stream(found: list[Alert]) -> list[str]:
    """The streams that page in an episode, as its alerts tell of them; each alert but the last tells of a new one."""
    known: list[str] = []
    for alert in found[:-1]:
        assert alert.drift is not None
        seen = [each["stream"] for each in alert.drift.evidence if each["run_length"] is not None]
        new = list(dict.fromkeys(each for each in seen if each not in known))
        assert new, f"{alert.reason} tells of nothing new"
        known += new
    return known


def test_a_fall_of_recall_is_one_incident_in_words_and_ends_when_recall_is_back() -> None:
    """Accuracy's detector sees it later: the same alert is told again with that inside, once, and pages nobody."""
    healthy = fraud(0.9, minute(0), 120)
    fallen = fraud(0.45, minute(120), 60, 1)
    back = fraud(0.9, minute(180), 240, 2)
    only = {"detectors": ["e_detector"], "evidence": [], "minimum_accuracy": 0.5, "baseline_drop": 0.5}
    configuration = settings(**{**ONLY_RULES, **only})
    found = alerts_of([*healthy, *fallen, *back], configuration, registered(champion(accuracy=0.98)))
    assert {each.labels["alertname"] for each in found} == {"ConceptDriftDetected"}
    fired, *again, resolved = found
    streams = stream_by_stream(found)
    assert [each.reason for each in found] == ["fired", *("evidence" for _ in again), "clean"]
    assert len(again) == len(streams) - 1
    assert "errors" in streams
    assert "told again because more of it has become worse" in again[-1].annotations["description"]
    assert "e_detector at outcome" in again[-1].annotations["description"]
    assert "its accuracy fell from 98.0% to 95.3% in 1,053 outcomes" in again[-1].annotations["summary"]
    assert {each.starts_at for each in found} == {fired.starts_at}
    assert [each.sequence for each in found] == list(range(1, len(found) + 1))
    assert fired.incident is not None
    assert len(fired.incident.alerts) == 1
    assert fired.drift is not None
    assert fired.drift.metric == "recall"
    assert fired.drift.evidence[0]["stream"] == "recall"
    assert fired.drift.change_at is not None
    assert "2023-11-15T00:05" <= fired.drift.change_at <= "2023-11-15T00:20"
    summary, description = fired.annotations["summary"], fired.annotations["description"]
    assert "its recall (the share of the positives that it finds) fell from 90.9% to 68.4% in 95 positives" in summary
    assert "positives, " in summary
    assert "e_detector on recall" in description
    assert "positives, which at this model's rate is 0.0312 times a week" in description
    assert resolved.drift is not None
    seen = [each["stream"] for each in resolved.drift.evidence]
    assert seen[0] == "recall"
    assert "errors" in seen
    assert resolved.ends_at > "2023-11-15T01:15"


def test_a_fall_of_recall_comes_out_alike_however_the_log_is_read() -> None:
    """Interleaved, repeated, stored and reloaded at random."""
    pairs = fraud(0.9, minute(0), 120) + fraud(0.4, minute(120), 60, 1) + fraud(0.9, minute(180), 90, 2)
    log = record(pairs, 3, ends_s=pairs[-1].second + 3600)
    configuration = settings(detectors=["e_detector"])
    catalog = registered(champion(accuracy=0.98))
    expected = play(log, configuration, catalog)
    told = {
        each.get("stream") for alert in events(expected) if alert.drift is not None for each in alert.drift.evidence
    }
    assert "recall" in told
    for seed in range(3):
        assert play(log, configuration, catalog, seed) == expected


def silent_from(from_minute: int, minutes: int) -> Catalog:
    """A registered model, silenced."""
    catalog = registered(champion(accuracy=0.97))
    starts = minute(from_minute) * 1000
    catalog.apply(1, silence.begun(catalog, "loan", starts, minutes * 60, "labels move", ""))
    return catalog


@pytest.mark.parametrize(("ends", "expected"), [(30, ["fired", "clean"]), (25, ["fired", "clean"]), (60, [])])
def test_in_a_silence_nothing_is_told_and_behind_it_what_still_fires(ends: int, expected: list[str]) -> None:
    """With the start that it had; what is over by then was never told."""
    pairs = outcomes(0.02, minute(0), 10) + outcomes(0.25, minute(10), 30) + outcomes(0.02, minute(40), 15)
    found = alerts_of(pairs, settings(**ONLY_RULES), silent_from(5, ends - 5))
    assert [each.reason for each in found] == expected
    for each in found[:1]:
        assert each.starts_at < "2023-11-14T22:27:00"  # minute 13
        assert each.drift is not None
        assert each.drift.detected_at == f"2023-11-14T22:{14 + ends}:00.000Z"


def test_a_silence_that_ends_when_nothing_arrives_any_more_is_told_too() -> None:
    """The minute of its end is judged though nothing happens in it."""
    pairs = [Pair(minute(0) + at, outcome=at < 60) for at in range(0, 7200, 10)]
    found = alerts_of(pairs, settings(**ONLY_RULES), silent_from(5, 100))
    assert [(each.labels["alertname"], each.reason) for each in found] == [
        ("OutcomesMissing", "fired"),
        ("OutcomesMissing", "clean"),
    ]
    assert found[0].drift is not None
    assert found[0].drift.detected_at == "2023-11-14T23:59:00.000Z"  # minute 105


def test_what_comes_back_within_the_cooldown_is_the_same_episode_and_at_last_flaps() -> None:
    """One key for all of it, so that a retraining starts once; the flapping alert is one, and resolves late."""
    bad = [outcomes(0.25, minute(20 * at), 6) + outcomes(0.02, minute(20 * at + 6), 14) for at in range(8)]
    pairs = [pair for each in bad for pair in each] + outcomes(0.02, minute(160), 60)
    configuration = settings(**ONLY_RULES, cooldown_minutes=30, flap_episodes=4, flap_minutes=120)
    found = alerts_of(pairs, configuration, registered(champion(accuracy=0.97)))
    assert [alert.reason for alert in found] == [
        *("fired", "clean", "reopened", "clean", "reopened", "clean", "flapping", "clean")
    ]
    assert len({alert.starts_at for alert in found}) == 1
    assert [alert.sequence for alert in found] == list(range(1, 9))
    assert found[4].annotations["reopened"] == "2"
    assert "came back 2 times" in found[4].annotations["description"]
    assert found[6].annotations["flapping"] == "true"
    assert "It flaps" in found[6].annotations["description"]


def test_the_drop_against_the_baseline_pages_above_the_minimum() -> None:
    """0.99 to 0.92 is seven points lost, though the minimum is 0.90."""
    pairs = outcomes(0.01, minute(0), 10) + outcomes(0.08, minute(10), 10)
    found = alerts_of(pairs, settings(**ONLY_RULES), registered(champion(accuracy=0.99)))
    assert names(found) == [("ModelAccuracyDropped", "firing")]
    assert found[0].drift is not None
    assert found[0].drift.evidence[0]["rule"] == "baseline"
    assert found[0].labels["severity"] == "warning"


def test_a_minimum_above_the_baseline_is_noticed_once_and_does_not_page() -> None:
    """A version that was never that good pages only when it loses against itself."""
    pairs = outcomes(0.2, minute(0), 20)
    log = record(pairs, 1)
    monitor = fed(log, registered(champion(accuracy=0.8)))
    closed = monitor.close()
    assert closed.alerts == []
    assert closed.notices == [Notice("loan", "1", 0.8, 0.9)]


def fed(log: Any, catalog: Catalog, configuration: Settings | None = None) -> MonitorPartition:
    """A monitor that has read a whole log."""
    monitor = fresh(configuration or settings(**ONLY_RULES))
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for partition, records in enumerate(log.checkpoints):
        for offset, value in enumerate(records):
            monitor.checkpoint_record(partition, offset, value)
    monitor.advance(catalog)
    return monitor


def test_a_model_has_its_own_minimum() -> None:
    """[models.NAME] minimum_accuracy overrides the monitor's."""
    pairs = outcomes(0.05, minute(0), 20)
    configuration = settings(**ONLY_RULES, baseline_drop=1.0)
    catalog = registered(champion(accuracy=0.99))
    assert alerts_of(pairs, configuration, catalog) == []
    stricter = Settings(monitor=configuration.monitor, models={"loan": ModelSettings(minimum_accuracy=0.97)})
    assert names(alerts_of(pairs, stricter, catalog)) == [("ModelAccuracyDropped", "firing")]


def test_too_few_outcomes_say_nothing() -> None:
    """A window below ``minimum_outcomes`` neither fires nor heals."""
    pairs = outcomes(0.5, minute(0), 30, a_minute=2)
    assert alerts_of(pairs, settings(**ONLY_RULES), registered(champion())) == []


def test_a_regression_pages_on_its_mean_absolute_error() -> None:
    """A quarter more than the baseline's MAE pages, half as much again is critical."""
    rng = random.Random(1)
    pairs = [
        Pair(START_S + at, regression=True, error=rng.choice([-1, 1]) * (1.0, 1.35, 1.7)[at // 600])
        for at in range(1800)
    ]
    found = alerts_of(pairs, settings(**ONLY_RULES), registered(REGRESSION))
    assert names(found) == [("ModelAccuracyDropped", "firing")] * len(found)
    assert [each.labels["severity"] for each in found] == ["warning", "critical"]
    assert found[0].drift is not None
    assert found[0].drift.metric == "mae"


@pytest.mark.parametrize("catalog", [None, registered(champion(accuracy=0.95))], ids=["learnt", "registered"])
def test_drift_is_found_soon_after_the_change_and_placed_where_it_was(catalog: Catalog | None) -> None:
    """Change point, offsets and the outcome that fired agree with the stream; one episode, whatever fires in it."""
    pairs = randomly(0.05, minute(0), 40) + randomly(0.5, minute(40), 10, 1)
    found = [
        alert for alert in alerts_of(pairs, catalog=catalog) if alert.labels["alertname"] == "ConceptDriftDetected"
    ]
    assert len({alert.starts_at for alert in found}) == 1
    drift = found[0].drift
    assert drift is not None
    assert drift.outcomes_seen is not None
    assert 2400 < drift.outcomes_seen < 2600
    assert found[0].labels["severity"] == "critical"
    assert drift.change_at is not None
    assert "2023-11-14T22:54:0" in drift.change_at
    assert sum(drift.change_offsets.values()) == pytest.approx(2400, abs=60)
    assert drift.outcomes_since_change == pytest.approx(drift.outcomes_seen - 2400, abs=30)
    assert drift.version == "1"


def drifts(found: list[Alert]) -> list[Alert]:
    return [alert for alert in found if alert.labels["alertname"] == "ConceptDriftDetected"]


def test_what_pages_opens_the_alert_and_the_others_are_evidence_in_it() -> None:
    """The e-detector's own finding comes first, with its budget; the episode's later messages show what others saw."""
    pairs = randomly(0.05, minute(0), 40) + randomly(0.6, minute(40), 20, 1)
    found = drifts(alerts_of(pairs, catalog=registered(champion(accuracy=0.95))))
    first, last = found[0].drift, found[-1].drift
    assert first is not None
    assert last is not None
    assert (first.detector, first.evidence[0]["false_alarms_per_week"]) == ("e_detector", 0.25)
    assert first.evidence[0]["run_length"] == first.threshold
    assert first.threshold == pytest.approx(604_800 / 0.25, rel=0.01), "one outcome a second"
    assert "once in 2,4" in found[0].annotations["description"]
    assert "0.25 times a week" in found[0].annotations["description"]
    assert last.detector == last.evidence[0]["detector"] == "e_detector"
    assert {each["detector"] for each in last.evidence} == {"e_detector", "adwin", "page_hinkley"}
    assert {each["detector"] for each in last.evidence if each["run_length"] is None} == {"adwin", "page_hinkley"}


def test_a_detector_that_runs_beside_opens_nothing() -> None:
    """EDDM alarms on nothing again and again: it is only told once something pages, and only if it spoke since then."""
    calm = randomly(0.05, minute(0), 120)
    catalog = registered(champion(accuracy=0.95))
    noisy = settings(evidence=["eddm"])
    monitor = fed(record(calm, 1), catalog, noisy)
    assert monitor.report()[0].versions[0].detections["eddm"] > 0
    assert drifts(events([each.alert for each in monitor.close().alerts])) == []
    (fired, *_) = drifts(alerts_of(calm + randomly(0.7, minute(120), 5, 3), noisy, catalog))
    assert fired.drift is not None
    assert fired.drift.change_at is not None
    assert fired.drift.evidence[0]["detector"] == "e_detector"
    assert all(each["detected_at"] >= fired.drift.change_at for each in fired.drift.evidence)


def test_a_larger_budget_finds_a_drift_sooner_and_a_model_may_have_its_own() -> None:
    """More false alarms accepted, a lower threshold; what `[models.NAME]` says goes before the monitor's."""
    pairs = randomly(0.05, minute(0), 40) + randomly(0.2, minute(40), 10, 1)
    catalog = registered(champion(accuracy=0.95))
    careful, eager = settings(false_alarms_per_week=0.001), settings(false_alarms_per_week=100.0)
    seen = {}
    for name, configuration in (
        ("careful", careful),
        ("eager", eager),
        ("own", Settings(monitor=careful.monitor, models={"loan": ModelSettings(false_alarms_per_week=100.0)})),
    ):
        drift = drifts(alerts_of(pairs, configuration, catalog))[0].drift
        assert drift is not None
        assert drift.outcomes_seen is not None
        seen[name] = drift.outcomes_seen
    assert seen["own"] == seen["eager"] < seen["careful"]


def test_a_drift_alert_stays_open_while_the_model_is_as_bad_and_resolves_when_it_recovers() -> None:
    """A detector fires once; the alert must not look healed while nothing got better."""
    pairs = randomly(0.05, minute(0), 40) + randomly(0.5, minute(40), 30, 1) + randomly(0.05, minute(70), 20, 2)
    found = [
        alert
        for alert in alerts_of(pairs, settings(repeat_minutes=0), registered(champion(accuracy=0.95)))
        if alert.labels["alertname"] == "ConceptDriftDetected"
    ]
    assert names(found) == [("ConceptDriftDetected", "firing"), ("ConceptDriftDetected", "resolved")]
    assert "2023-11-14T23:2" in found[1].ends_at  # minute 70 is 23:24


def test_nothing_pages_before_an_unregistered_version_has_a_baseline() -> None:
    """A bad start is its baseline, not an alert."""
    pairs = randomly(0.3, minute(0), 60)
    assert alerts_of(pairs, settings(baseline_outcomes=3000)) == []


def test_only_the_champion_pages() -> None:
    """A challenger's errors, or late labels of a retired version, open nothing."""
    pairs = outcomes(0.02, minute(0), 40, "1") + outcomes(0.5, minute(0), 40, "2")
    state = champion(baselines={"1": Baseline("accuracy", 0.97, 5000), "2": Baseline("accuracy", 0.97, 5000)})
    assert alerts_of(sorted(pairs, key=lambda pair: pair.second), settings(), registered(state)) == []
    promoted = msgspec.structs.replace(state, aliases={"champion": "2"})
    assert alerts_of(sorted(pairs, key=lambda pair: pair.second), settings(), registered(promoted)) != []


def test_a_promotion_resolves_what_its_predecessor_set_off() -> None:
    """With the reason, at the boundary at which it was seen; the new champion is judged on its own."""
    before = outcomes(0.02, minute(0), 10) + outcomes(0.5, minute(10), 10)
    log = record(before, 1)
    state = champion(accuracy=0.97)
    catalog = registered(state)
    monitor = fed(log, catalog)
    (fired,) = events([each.alert for each in monitor.close().alerts])
    assert fired.status == "firing"
    promoted = msgspec.structs.replace(
        state, revision=2, aliases={"champion": "2"}, baselines={"2": Baseline("accuracy", 0.96, 5000)}
    )
    catalog.apply(1, ModelEvent("promoted", promoted))
    monitor.advance(catalog)
    (resolved,) = events([each.alert for each in monitor.close().alerts])
    assert (resolved.status, resolved.fingerprint, resolved.starts_at) == (
        "resolved",
        fired.fingerprint,
        fired.starts_at,
    )
    assert "champion no longer" in resolved.annotations["summary"]
    assert "version 1" in resolved.annotations["summary"]
    monitor.advance(catalog)
    assert monitor.close().alerts == []
    assert monitor.report()[0].champion == "2"


def test_without_model_events_the_busiest_version_is_champion() -> None:
    """Of the last hour's predictions, by whole minutes; a new majority counts as a promotion."""
    pairs = outcomes(0.02, minute(0), 30, "1") + outcomes(0.02, minute(30), 20, "2")
    log = record(pairs, 1)
    assert fed(log, Catalog()).report()[0].champion == "1"
    longer = record(pairs + outcomes(0.02, minute(50), 20, "2"), 1)
    assert fed(longer, Catalog()).report()[0].champion == "2"


def test_predictions_without_outcomes_are_missed_and_found_again() -> None:
    """It pages without a baseline, survives a promotion and resolves when outcomes are back."""
    pairs = outcomes(0, minute(0), 5)
    pairs += [Pair(minute(5) + at * 10, outcome=False) for at in range(6 * 60)]
    pairs += outcomes(0, minute(65), 5)
    found = alerts_of(pairs, settings(**ONLY_RULES, baseline_outcomes=100_000))
    assert names(found) == [("OutcomesMissing", "firing"), ("OutcomesMissing", "resolved")]
    assert found[0].starts_at == "2023-11-14T22:49:00.000Z"  # minute 5 + 30


def test_silence_is_not_missing_outcomes() -> None:
    """Nobody predicts, nobody waits for an outcome."""
    assert alerts_of(outcomes(0, minute(0), 5), settings(**ONLY_RULES)) == []


def hourly(shares: list[float], wrong: float = 0.0) -> list[Pair]:
    """Four predictions a minute; of so many an outcome comes, of which the last hour's are wrong as often."""
    pairs = []
    for hour, share in enumerate(shares):
        for at in range(240):
            error = float(hour == len(shares) - 1 and at % 10 < 10 * wrong)
            second = minute(60 * hour) + 15 * at
            pairs.append(Pair(second, error=error, outcome=at % 10 < 10 * share))
    return pairs


def test_outcomes_that_slow_down_are_told_and_the_accuracy_rule_is_withheld() -> None:
    """A feed that brings only what was wrong would page as a collapse; it resolves when outcomes are back."""
    configuration = settings(
        **{**ONLY_RULES, "window_minutes": 60, "minimum_outcomes": 20, "outcomes_missing_minutes": 600}
    )
    pairs = hourly([0.9] * 9 + [0.3, 0.9, 0.9])
    found = alerts_of(pairs, configuration, registered(champion(accuracy=0.97)))
    assert [(each.labels["alertname"], each.reason) for each in found] == [
        ("OutcomesSlow", "fired"),
        ("OutcomesSlow", "clean"),
    ]
    assert "incident" not in found[0].labels
    assert "ModelAccuracyDropped is withheld" in found[0].annotations["description"]
    one_sided = hourly([0.9] * 9 + [0.3, 0.3], wrong=1.0)
    told = alerts_of(one_sided, configuration, registered(champion(accuracy=0.97)))
    assert {name for name, _ in names(told)} == {"OutcomesSlow"}
    off = settings(**{**configuration.monitor.model_dump(), "outcomes_slow_share": 0.0})
    told = alerts_of(one_sided, off, registered(champion(accuracy=0.97)))
    assert {name for name, _ in names(told)} == {"ModelAccuracyDropped"}


def test_a_nightly_dump_is_not_slow() -> None:
    """Its usual hour brings nothing."""
    pairs = hourly([0.0] * 9 + [0.9] + [0.0] * 3)
    configuration = settings(**{**ONLY_RULES, "outcomes_missing_minutes": 1000})
    assert alerts_of(pairs, configuration, registered(champion(accuracy=0.97))) == []


def test_a_correction_moves_the_windows_and_not_the_detectors() -> None:
    """The second outcome of a pair replaces the first in its own minute."""
    pairs = outcomes(0.5, minute(0), 4)
    for pair in pairs:
        pair.corrected_s = minute(4) + 30
    monitor = fed(record(pairs, 1, ends_s=minute(6)), registered(champion()))
    (version,) = monitor.report()[0].versions
    assert version.windows["1h"].accuracy == 1.0
    assert version.outcomes == version.windows["1h"].n == len(pairs)


def test_a_report_shows_a_correction_before_its_minute_is_over() -> None:
    """Pairs of a minute that is not over are in the report, so what corrects them, or earlier ones, is too."""
    pairs = outcomes(0.5, minute(0), 4)
    for pair in pairs:
        pair.corrected_s = minute(4) + 30
    monitor = fed(record(pairs, 1, ends_s=minute(4) + 45), registered(champion()))
    (version,) = monitor.report()[0].versions
    assert version.windows["1h"].accuracy == 1.0
    assert version.windows["1h"].n == len(pairs)


def test_a_regressions_correction_is_shown_too_unless_its_pair_is_older_than_the_window() -> None:
    """The sums of errors move with the outcome, in windows that hold the pair."""
    part = VersionPart.of("1", "", [60], [0], np.array([2.0]), moments=[(1, 1, 1, 2.0, 4.0, 2.0)])
    part.corrections = [Correction(90, 1, 1, 5.0, 3.0, 4.0)]
    arrivals = Arrivals()
    arrivals.add(Summary(0, 1, 1, "loan", "regression", [part]))
    assert arrivals.tally("1", "", 0) == Tally(1, {}, 1.0, 1.0, 1.0)
    assert arrivals.tally("1", "", 2) == Tally(1, {}, 2.0, 4.0, 2.0)


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30), unique=True))
def test_minutes_are_taken_in_their_order(first: list[int], then: list[int], stored: list[int]) -> None:
    """Whenever they came: those up to a minute, oldest first; what comes later for one of them opens it again."""
    arrivals = Arrivals()
    for minute in stored:
        arrivals.load(minute, msgspec.msgpack.encode(Minute(predictions={"1": 1})))
    expected = Counter(stored)
    for minutes, until in ((first, 14), (then, 40)):
        for minute in minutes:
            part = VersionPart.of("1", "", [], [], np.empty(0, dtype=np.uint8), predictions={minute: 1})
            arrivals.add(Summary(0, 1, 1, "loan", "binary", [part]))
        expected.update(minutes)
        assert arrivals.first == min(expected, default=None)
        over = sorted(minute for minute in expected if minute <= until)
        assert [(at, held.predictions["1"]) for at, held in arrivals.take(until)] == [
            (at, expected.pop(at)) for at in over
        ]
    assert arrivals.first is None


def test_segments_have_windows_up_to_a_bound() -> None:
    """A producer that puts an id into ``segment`` does not fill the store; all rows still count."""
    pairs = [Pair(START_S + at, segment=f"s{at}") for at in range(300)]
    monitor = fed(record(pairs, 1, ends_s=minute(10)), registered(champion()))
    (version,) = monitor.report()[0].versions
    assert version.windows["1h"].n == 300
    assert len(version.segments) == 100


def test_a_model_may_be_watched_by_its_own_hours() -> None:
    """What `[models.NAME]` says goes before the monitor's, either way."""
    for everywhere, own, expected in (("", "day", "day"), ("day", "", None), ("week", None, "week"), ("", None, None)):
        configuration = Settings(
            monitor=settings(by_hour=everywhere).monitor,
            models={"loan": ModelSettings.model_validate({"by_hour": own})},
        )
        monitor = fresh(configuration)
        log = record(randomly(0.1, minute(0), 2), 1)
        for offset, value in enumerate(log.summaries):
            monitor.summary(offset, value)
        for partition, records in enumerate(log.checkpoints):
            for offset, value in enumerate(records):
                monitor.checkpoint_record(partition, offset, value)
        monitor.advance(registered(champion()))
        detection = monitor.report()[0].versions[0].detection
        assert detection is not None
        assert (None if detection.hours is None else detection.hours.by) == expected


def test_hours_are_asked_for_by_name() -> None:
    """Another word is refused, with those that there are."""
    with pytest.raises(ValueError, match="'day' or 'week'"):
        settings(by_hour="month")
