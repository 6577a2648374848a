"""Alarms a week, delays, false alarms and costs of a list of alerts."""

from __future__ import annotations

import numpy as np
import pytest

from streams.alerts import EncodedAlert, encode
from streams.errors import WrongSetting
from streams.events import Alert, Drift, rfc3339
from streams.replay.outcomes import Seconds
from streams.replay.score import WEEK_S, Score, alarms, parse_drift, score
from streams.replay.score import Drift as Known

HOUR_S = 3_600
STREAM_S = (0, 2 * WEEK_S)
ONE_IN_TEN = Seconds(np.arange(0, 2 * WEEK_S, 100), np.full(2 * WEEK_S // 100, 10), np.full(2 * WEEK_S // 100, 1.0))
"""Ten outcomes every 100 s, one of them wrong."""


def alert(
    started_s: int, status: str = "firing", detected_s: int | None = None, at_s: int | None = None, **labels: str
) -> EncodedAlert:
    """An alert of an episode; ``at_s`` is when it was resolved."""
    named = {"alertname": "ConceptDriftDetected", "model": "loan", "severity": "critical", **labels}
    drift = Drift(
        *("adwin", 1.0, 0.5),
        metric="accuracy",
        detected_at=rfc3339(1000 * (started_s if detected_s is None else detected_s)),
    )
    return encode(
        Alert(
            status=status,  # type: ignore[arg-type]  # firing or resolved
            labels=named,
            annotations={"summary": "worse"},
            starts_at=rfc3339(1000 * started_s),
            ends_at=rfc3339(1000 * (at_s or 0)),
            generator_url="",
            fingerprint="/".join(named[name] for name in ("alertname", "model")),
            drift=drift,
            sequence=1,
        )
    )


def scored(*alerts: EncodedAlert, drifts: tuple[Known, ...] = (), cost: float | None = None) -> Score:
    """The score over two weeks of one model."""
    return score("p", {}, alerts, drifts, {"loan": ONE_IN_TEN}, STREAM_S, cost)


def test_an_episode_is_one_alarm_however_often_it_is_sent() -> None:
    """It fires when it is detected, which may be after it started, and ends when it is resolved."""
    sent = [alert(100, detected_s=160), alert(100, detected_s=160), alert(100, "resolved", at_s=900)]
    (found,) = alarms(sent)
    assert (found.fired_s, found.resolved_s, found.severity) == (160, 900, "critical")
    assert len(alarms([*sent, alert(2_000)])) == 2


def test_information_is_no_alarm() -> None:
    """It does not page."""
    assert alarms([alert(100, severity="info"), alert(100, "resolved", at_s=200, severity="info")]) == []


def test_alarms_a_week() -> None:
    """Over the whole stream, firing and resolved being one."""
    found = scored(alert(100), alert(100, "resolved", at_s=500), alert(9_000), alert(99_000))
    assert (found.alerts, found.alarms, found.alarms_per_week) == (4, 3, 1.5)
    assert (found.false_alarms, found.found, found.errors, found.cost) == (None, None, None, None)


def test_a_drift_is_found_by_the_first_alarm_within_it() -> None:
    """Delay in time and outcomes, errors until then and what they cost; what is before the drift is false."""
    found = scored(alert(HOUR_S), alert(WEEK_S + 1_000), alert(WEEK_S + 5_000), drifts=(Known(WEEK_S),), cost=2.5)
    assert (found.found, found.of, found.false_alarms, found.false_alarms_per_week) == (1, 1, 1, 0.5)
    assert (found.median_delay_s, found.median_delay_outcomes) == (1_000, 110)
    assert (found.errors, found.cost) == (11.0, 27.5)


def test_a_drift_that_nothing_finds_costs_to_its_end() -> None:
    """An alarm after its end is false, and so is one of another model for this one."""
    missed = Known(WEEK_S, WEEK_S + 2_000)
    found = scored(alert(WEEK_S + 2_000), alert(WEEK_S + 10, model="other"), drifts=(missed,), cost=1.0)
    assert (found.found, found.of, found.median_delay_s) == (0, 1, None)
    assert (found.false_alarms, found.errors, found.cost) == (1, 20.0, 20.0)


def test_a_drift_lasts_to_the_next_one() -> None:
    """An alarm behind the second finds the second, not the first."""
    found = scored(alert(WEEK_S + 500), drifts=(Known(WEEK_S), Known(HOUR_S)))
    assert [each.found_s for each in found.findings] == [None, WEEK_S + 500]
    assert found.findings[0].outcomes == (WEEK_S - HOUR_S) // 10


def test_missing_outcomes_find_no_drift() -> None:
    """They page, but say nothing of how good the model is."""
    found = scored(alert(WEEK_S + 5, alertname="OutcomesMissing"), drifts=(Known(WEEK_S),))
    assert (found.alarms, found.found, found.false_alarms) == (1, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T01:00:00Z", Known(3_600)),
        ("1970-01-01T01:00:00", Known(3_600)),
        ("1970-01-01T01:00:00+01:00/7200", Known(0, 7_200)),
        ("1700000040", Known(1_700_000_040)),
    ],
)
def test_times_of_drifts(text: str, expected: Known) -> None:
    """RFC 3339, UTC without an offset, or epoch seconds."""
    assert parse_drift(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01T00:00:00Z/", "20/10", "10/10"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(WrongSetting, match="--drift"):
        parse_drift(text)
