"""What `driftline explain` says of when outcomes come, from what a monitor has measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from streams.explanation import ModelDetecting, VersionDetecting, chosen, parsed
from streams.explanation import told as explained
from streams.label_explanation import told
from streams.label_report import labels
from streams.label_status import ClassStatus, LabelStatus
from streams.settings import Settings
from tests.unit.streams.label_traffic import DAY_S, MIDNIGHT_S, NEVER, Traffic, log_of, traffic, watched
from tests.unit.streams.monitor_log import champion, registered

QUIET = Settings.model_validate({"monitor": {"detectors": [], "outcomes_one_sided": 1.0}})
HOUR_S = 3_600


def slow_positives(days: int) -> Traffic:
    """Outcomes of what is predicted 0 after 5 minutes, of what is predicted 1 after 6 hours, four in five of them."""
    found = traffic(days * 1_440, positive=0.2, a_minute=5)
    delays = np.where(found.predicted == 1, 6 * HOUR_S, 300)
    known = found.delayed(delays).known_s
    never = (found.predicted == 1) & (np.random.default_rng(1).random(len(known)) < 0.2)
    return Traffic(found.at_s, found.predicted, found.actual, np.where(never, NEVER, known))


def reported(found: Traffic, ends_s: int) -> tuple[LabelStatus, int]:
    """As the monitor reports it, and how far the stream has come."""
    monitor = watched(log_of(found, ends_s), QUIET, registered(champion()))
    (report,) = monitor.report()
    status = labels(report.labels, report.champion_metric)
    assert status is not None
    return status, monitor.watermark_ms


def test_it_is_told_when_outcomes_come_of_which_predictions_and_what_is_mature() -> None:
    """By predicted class; the slowest one says when a prediction is mature; shares by age of the prediction."""
    ends_s = MIDNIGHT_S + 2 * DAY_S
    status, at_ms = reported(slow_positives(2), ends_s)
    assert [status.delays_s[share] for share in ("0.5", "0.9", "0.99")] == sorted(
        status.delays_s[share] for share in ("0.5", "0.9", "0.99")
    )
    fast, slow = status.classes["0"], status.classes["1"]
    assert fast.outcomes > 3 * slow.outcomes > 0
    assert 300 < fast.delays_s["0.99"] <= 420
    assert 6 * HOUR_S < slow.delays_s["0.5"] <= 1.25 * 6 * HOUR_S + 60
    assert (status.slowest, status.mature_after_s) == ("1", slow.delays_s["0.95"])

    assert [(each.begins_at[11:16], each.ends_at[11:16]) for each in status.cohorts] == [
        ("23:00", "00:00"),
        ("21:00", "23:00"),
        ("00:00", "21:00"),
        ("00:00", "00:00"),
    ]
    newest, recent, today, before = status.cohorts
    assert newest.shares["1"] == recent.shares["1"] == 0.0
    assert today.shares["1"] is not None
    assert 0.5 < today.shares["1"] < 0.75, "the last hours of it are not labelled yet"
    assert before.shares["1"] == pytest.approx(0.8, abs=0.03)
    assert before.shares["0"] == 1.0

    text = "\n".join(told(status, at_ms))
    assert "outcomes come: half within 6 min, 90 % within " in text
    assert f"  predicted 0: half within 6 min, 90 % within 6 min, 99 % within 6 min ({fast.outcomes:,})" in text
    assert "  predicted 1: half within 7" in text
    assert "after the prediction 95 % of the outcomes of those predicted 1, the slowest class, have come" in text
    assert "of what is predicted now, 2023-11-17T00:00Z, that is at 2023-11-17T0" in text
    assert "  2023-11-16T23:00Z to 2023-11-17T00:00Z: " in text
    assert "(predicted 1 0.0%, 0 " in text


def test_the_example_in_the_readme_is_what_is_printed() -> None:
    """Four days of that model."""
    status, at_ms = reported(slow_positives(4), MIDNIGHT_S + 4 * DAY_S)
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert "```\n" + "\n".join(told(status, at_ms)) + "\n```" in readme


def test_what_is_not_known_yet_is_said() -> None:
    """No outcome, or too few of each class."""
    assert "none was counted in the last 7 days" in next(told(None, 0))
    status, at_ms = reported(traffic(60).blocked(0, 2 * MIDNIGHT_S, back=False), MIDNIGHT_S + HOUR_S)
    text = "\n".join(told(status, at_ms))
    assert "none was counted in the last 7 days" in text
    assert "2023-11-15T00:00Z to 2023-11-15T01:00Z: 0.0% of 1,200 (predicted 0 0.0%, 1 0.0%)" in text
    few = LabelStatus({"0.5": 60}, classes={"0": ClassStatus(40, {"0.5": 60}), "1": ClassStatus(3, {"0.5": 60})})
    assert "mature: not known before 50 outcomes of one predicted class have come; there are 40" in list(told(few, 0))


def test_a_verdict_that_is_withheld_is_said() -> None:
    """With the reason."""
    found = traffic(180, (0.01, 0.25)).blocked(MIDNIGHT_S + 2 * HOUR_S, MIDNIGHT_S + 3 * HOUR_S, 0, back=False)
    monitor = watched(log_of(found, MIDNIGHT_S + 3 * HOUR_S), Settings(), registered(champion(accuracy=0.942)))
    (report,) = monitor.report()
    text = "\n".join(told(labels(report.labels, report.champion_metric), monitor.watermark_ms))
    assert "verdict withheld since 2023-11-15T02:0" in text


def test_the_champion_alone_has_labels_in_json_and_in_words() -> None:
    """They travel in the monitor's report; another version is told whose they are."""
    monitor = watched(log_of(traffic(200), MIDNIGHT_S + 200 * 60), Settings(), registered(champion(accuracy=0.942)))
    (report,) = monitor.report()
    status = labels(report.labels, report.champion_metric)
    (version,) = report.versions
    versions = [
        VersionDetecting("1", True, detection=version.detection),
        VersionDetecting("2", detection=version.detection),
    ]
    sent = msgspec.json.encode(ModelDetecting("loan", "1", versions, monitor.watermark_ms, status))
    model = parsed(sent, "loan")
    found, other = chosen(model, None), chosen(model, "2")
    assert found.labels == status
    assert msgspec.json.decode(msgspec.json.encode(found))["labels"]["classes"]["1"]["outcomes"] > 0
    text = "\n".join(explained(model, found))
    assert "budget: 0.25 false alarms a week" in text
    assert "outcomes come: half within" in text
    assert other.labels is None
    assert "measured for the champion only, which is version 1" in "\n".join(explained(model, other))
