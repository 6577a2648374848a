"""What an on-call engineer reads, and what machines rely on."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from detectors.baseline import Baseline, Metric
from detectors.burn_rate import Pair
from detectors.effect import Prices
from detectors.policy import Condition, Identity, Transition
from detectors.tally import Tally
from streams import rules
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, NEVER, OUTCOMES_MISSING, Evidence, Raised, alert, encode
from streams.codec import alert_decoder
from streams.rules import Recently

START_S = 1_700_000_000
FOUND = Evidence(
    "adwin", 0.2, 0.1, "accuracy", 0.05, 0.31, START_S - 60, {0: 17}, START_S, 2, 99, outcomes_seen=4100,
    outcomes_since_change=100, train_from_s=START_S - 30,
)  # fmt: skip


def raised(condition: Condition | None, status: str = "firing", reason: str = "fired") -> Raised:
    if condition is None:
        raise ValueError("the rule has nothing to say")
    transition = Transition(
        identity=Identity(condition.alertname, "loan"),
        started_at_s=START_S,
        at_s=START_S + 90,
        status="resolved" if status == "resolved" else "firing",
        severity=condition.severity,
        condition=condition,
        sequence=3,
        reason=reason,
    )
    return Raised(transition, "7", (FOUND,) if condition.alertname == CONCEPT_DRIFT else ())


DRIFT = rules.concept_drift(FOUND, "7")
LIMITS = rules.AccuracyLimits(0.9, 0.05, (Pair(5, 60, 1.0, at_once=False),), 500)
WRONG_180 = Tally(1000, {("1", "1"): 820, ("1", "0"): 180})
DROPPED = rules.accuracy_dropped(
    Recently(lambda _: WRONG_180, 10.0), Baseline(5000, "accuracy", 0.94, 0.003), LIMITS, "7"
)
WORSE = rules.accuracy_dropped(
    Recently(lambda _: Tally(1000, sum_abs=3000.0), 10.0), Baseline(5000, "mae", 2.0, 0.1), LIMITS, "7"
)
MISSING = rules.outcomes_missing(2000, 500, 1999, 1440, "7")


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (DRIFT, ["version 7", "2023-11-14T22:12:20.000Z", "95.0% to 69.0% in 100 outcomes", "26.0 points"]),
        (DROPPED, ["version 7", "82.0%", "60 minutes", "12.0 points", "94.0%"]),
        (WORSE, ["version 7", "error of 3 ", "1.50 times", "baseline of 2"]),
        (MISSING, ["loan", "none of its outcomes", "1970-01-01T08:20:00.000Z"]),
    ],
)
def test_the_summary_says_what_to_whom_since_when_and_how_much(condition: Condition, says: list[str]) -> None:
    """One sentence, and a description with the next command."""
    event = alert(raised(condition))
    summary = event.annotations["summary"]
    assert "Model loan" in summary
    assert summary.endswith(".")
    for words in says:
        assert words in summary
    assert "`driftline status`" in event.annotations["description"]
    assert event.annotations["runbook_url"] == f"ops/runbooks.md#{condition.alertname.lower()}"
    assert event.annotations["dashboard_url"].endswith("loan")


def test_identity_leaves_out_severity_and_version() -> None:
    """The fingerprint is that of the alert's name and model, so that it does not churn within an episode."""
    event = alert(raised(DRIFT))
    assert event.labels == {"alertname": CONCEPT_DRIFT, "model": "loan", "severity": "critical"}
    assert event.fingerprint == Identity(CONCEPT_DRIFT, "loan").fingerprint
    assert (event.starts_at, event.ends_at) == ("2023-11-14T22:13:20.000Z", NEVER)


def test_the_evidence_places_the_change_in_time_and_in_the_log() -> None:
    """``change_at`` is said to people, retraining starts at ``train_from``; the offsets are where to look."""
    drift = alert(raised(DRIFT)).drift
    assert drift is not None
    assert (drift.detector, drift.version, drift.metric) == ("adwin", "7", "accuracy")
    assert (drift.change_at, drift.change_offsets) == ("2023-11-14T22:12:20.000Z", {"0": 17})
    assert drift.train_from == "2023-11-14T22:12:50.000Z"
    assert (drift.detected_partition, drift.detected_offset, drift.outcomes_seen) == (2, 99, 4100)
    assert drift.outcomes_since_change == 100
    assert [each["detector"] for each in drift.evidence] == ["adwin"]


def test_what_is_lost_in_a_day_is_told_once_it_is_known() -> None:
    """In the first minute of a version nobody knows how many outcomes come in a day."""
    prices = Prices(per_error=2.0)
    first = alert(raised(rules.concept_drift(FOUND, "7", prices))).annotations["description"]
    later = alert(raised(rules.concept_drift(FOUND, "7", prices, a_minute=10.0))).annotations["description"]
    assert "So far that is 26 wrong predictions more than usual; it has cost 52.00. " in first
    assert "26 wrong predictions more than usual, 3,744 more a day; it has cost 52.00, and 7,488.00 a day. " in later


def test_a_drift_says_how_often_chance_would_do_this() -> None:
    """The budget in words, of what paged; detectors that ran beside are told apart."""
    paged = msgspec.structs.replace(FOUND, detector="e_detector", false_alarms_per_week=0.25, run_length=2_419_200.0)
    event = alert(replace(raised(DRIFT), evidence=(paged, FOUND)))
    said = event.annotations["description"]
    assert "Detected by e_detector at outcome 4100" in said
    assert "once in 2,419,200 outcomes, which at this model's rate is 0.25 times a week" in said
    assert "Beside it, adwin at outcome 4100" in said
    assert event.drift is not None
    assert (event.drift.evidence[0]["run_length"], event.drift.evidence[1]["run_length"]) == (2_419_200.0, None)


@pytest.mark.parametrize("condition", [DRIFT, DROPPED, WORSE, MISSING])
def test_a_resolved_alert_says_so(condition: Condition) -> None:
    """It has an end, says that nothing is to be done, and why it ended."""
    clean = alert(raised(condition, "resolved", "clean"))
    assert clean.status == "resolved"
    assert clean.ends_at == "2023-11-14T22:14:50.000Z"
    assert clean.annotations["summary"].startswith("Resolved: ")
    assert clean.annotations["description"].startswith("Nothing to do.")
    promoted = alert(raised(condition, "resolved", "promoted"))
    assert "champion no longer" in promoted.annotations["summary"]


@pytest.mark.parametrize("condition", [DRIFT, DROPPED, WORSE, MISSING])
def test_an_encoded_alert_reads_back(condition: Condition) -> None:
    """The topic carries a CloudEvent in binary mode; its id is the episode and the number within it."""
    event = alert(raised(condition))
    encoded = encode(event)
    assert alert_decoder().decode_any(encoded.value, encoded.headers) == event
    assert encoded.key == event.fingerprint.encode()
    headers = dict(encoded.headers)
    assert headers["ce_id"].decode() == f"{event.fingerprint}/{event.starts_at}/3"
    assert headers["ce_type"] == b"driftline.alert.v1"
    assert msgspec.json.decode(encoded.value)["startsAt"] == event.starts_at


def test_rules_name_themselves() -> None:
    """Which of the rules of one alert spoke is in its evidence."""
    assert DROPPED is not None
    assert (DROPPED.evidence["rule"], DROPPED.threshold) == ("minimum", 0.9)
    assert (DROPPED.alertname, MISSING.alertname) == (ACCURACY_DROPPED, OUTCOMES_MISSING)


def window_of(wrong: int, of: int = 1000) -> Recently:
    """Windows of so many outcomes, whatever is asked for."""
    return Recently(lambda _: Tally(of, {("1", "1"): of - wrong, ("1", "0"): wrong}), 10.0)


def test_errors_of_an_average_hour_are_told_as_such() -> None:
    """They are not those of a dashboard in the best hour, or the worst; what knew no hour says nothing of it."""
    by_hour = replace(raised(DRIFT), evidence=(msgspec.structs.replace(FOUND, by_hour=True),))
    told = alert(by_hour)
    assert (
        "from 95.0% to 69.0% in 100 outcomes, 26.0 points lost (as in an average hour)" in told.annotations["summary"]
    )
    assert told.drift is not None
    assert told.drift.evidence[0]["by_hour"] is True
    plain = alert(raised(DRIFT))
    assert "average hour" not in plain.annotations["summary"]
    assert plain.drift is not None
    assert "by_hour" not in plain.drift.evidence[0]


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_a_drift_that_was_found_by_the_hour_lasts_and_heals_by_the_hour(metric: Metric) -> None:
    """Errors of .05 that became .31 are .124 in an hour with .4 times as many: that is no recovery there. In an hour
    with twice as many, .12 is one.
    """
    found = msgspec.structs.replace(FOUND, metric=metric, by_hour=True)
    baseline = Baseline(5000, metric, 0.95 if metric == "accuracy" else 0.05, 0.003)

    def judged(wrong: int, factor: float, by_hour: bool) -> tuple[bool, bool | None]:
        first, normal = rules.of_hour(msgspec.structs.replace(found, by_hour=by_hour), baseline, factor)
        lately = window_of(wrong) if metric == "accuracy" else Recently(lambda _: Tally(1000, sum_abs=float(wrong)), 10)
        still = rules.still_drifted(DRIFT, lately, first, normal, 15, 60)
        assert still is not None
        return still.active, still.cleared

    assert judged(124, 0.4, by_hour=True) == (True, False)
    assert judged(124, 0.4, by_hour=False) == (False, False)
    assert judged(120, 2.0, by_hour=True) == (False, True)
    assert judged(20, 0.4, by_hour=True) == (False, True)
    assert judged(620, 2.0, by_hour=True) == (True, False)
    assert rules.of_hour(found, baseline, 40.0)[0].after >= 1.0
