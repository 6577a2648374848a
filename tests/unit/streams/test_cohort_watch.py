"""Coverage, delays and mature accuracy, through the monitor."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from detectors.snapshot import seal as seal_state
from detectors.snapshot import unseal
from streams.catalog import Catalog
from streams.label_report import labels
from streams.metrics import WorkerMetrics
from streams.records import Summary, Take, VersionPart
from streams.status import ModelStatus, Status, describe, parse_reports, render
from streams.watch import ModelWatch
from streams.watch_state import FORMAT
from tests.unit.streams.label_traffic import MIDNIGHT_S, NEVER, Traffic, log_of, traffic, watched
from tests.unit.streams.monitor_log import FakeStore, Log, champion, cut, fresh, registered, settings

HOUR_S = 3_600
QUIET = settings(detectors=[], repeat_minutes=0, outcomes_missing_minutes=10_000)


def half_covered(minutes: int) -> Traffic:
    """Outcomes after 5 to 15 minutes; of predicted positives only every second one has any."""
    found = traffic(minutes)
    rng = np.random.default_rng(7)
    late = found.delayed(rng.integers(300, 900, len(found.at_s)))
    lost = (late.predicted == 1) & (rng.random(len(found.at_s)) < 0.5)
    return Traffic(late.at_s, late.predicted, late.actual, np.where(lost, NEVER, late.known_s))


def test_the_report_tells_coverage_by_class_and_what_is_right_where_it_is_known() -> None:
    """Of a day's mature cohorts, corrections included; the youngest ones, half known, are not among them."""
    found = half_covered(30 * 60)
    ends_s = MIDNIGHT_S + 30 * HOUR_S
    rows = np.flatnonzero((found.known_s > 0) & (found.known_s < MIDNIGHT_S + 20 * HOUR_S))[:200:2]
    corrected = {int(row): int(found.known_s[row]) + HOUR_S for row in rows if found.at_s[row] > MIDNIGHT_S}
    monitor = watched(log_of(found, ends_s, corrected=corrected), QUIET, registered(champion()))
    report = monitor.report()[0].labels
    assert report is not None
    assert 14 * 60 <= report.delays_s[0.95] <= 18 * 60
    assert report.mature_after_s == report.delays_s[0.95]
    day = report.windows["24h"]
    assert day.end * 60 == ends_s - HOUR_S, "the last whole hour that is old enough"
    assert day.end - day.first == 24 * 60
    inside = (found.at_s >= 60 * day.first) & (found.at_s < 60 * day.end)
    known = inside & (found.known_s < ends_s) & (found.known_s > 0)
    wrong = found.predicted != found.actual
    wrong[list(corrected)] ^= True
    assert day.total == (int(inside.sum()), int(known.sum()), float((known & wrong).sum()))
    for label in (0, 1):
        of_class = found.predicted == label
        share = day.counts[str(label)].share
        assert share == pytest.approx((known & of_class).sum() / (inside & of_class).sum())
    assert (day.counts["0"].share or 0) - (day.counts["1"].share or 0) > 0.4
    hour = report.windows["1h"]
    assert hour.end - hour.first == 60
    assert report.delays_s[0.95] - 60 <= ends_s - 60 * hour.end <= report.delays_s[0.95], (
        "minutes, as outcomes are fast"
    )


def test_cohorts_survive_a_reload_and_a_state_of_the_release_before_is_read() -> None:
    """The counts go on; a state that has none begins with them."""
    log = log_of(half_covered(300), MIDNIGHT_S + 5 * HOUR_S)
    store, monitor = FakeStore(), watched(log, QUIET, registered(champion()))
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    again = fresh(QUIET, 1)
    again.load(store.meta, store.read(again.keys()))
    assert again.report() == monitor.report()
    sealed = monitor.watches["loan"].snapshot()
    fields = msgspec.msgpack.decode(unseal(sealed, FORMAT)[1])
    del fields["cohorts"]
    before = ModelWatch("loan", QUIET.monitor, 0.9)
    before.restore(seal_state(2, fields))
    assert before.champion == "1"
    assert before.labels(MIDNIGHT_S // 60 + 300).windows == {}


def regressed(minutes: int) -> Log:
    """A prediction a minute of a regression, off by 2, whose outcome comes ten minutes later."""
    log = Log(checkpoints=[[msgspec.json.encode(Take(0, 1, "t", "w"))]])
    first = MIDNIGHT_S // 60
    for number, minute in enumerate(range(first, first + minutes), 1):
        known = [minute - 10] if minute >= first + 10 else []
        part = VersionPart.of(
            "1",
            "",
            [60 * minute for _ in known],
            [number for _ in known],
            np.full(len(known), 2.0),
            moments=[(minute, cohort, 1, 2.0, 4.0, 2.0) for cohort in known],
            predictions={minute: 1},
        )
        log.summaries.append(msgspec.msgpack.encode(Summary(0, 1, number, "loan", "regression", [part])))
        log.checkpoints[0].append(msgspec.json.encode(cut(0, number, 60_000 * (minute + 1), {"loan": number})))
    return log


def test_a_regression_has_cohorts_too() -> None:
    """Of one class, with their mean absolute error."""
    report = watched(regressed(300), QUIET, Catalog()).report()[0]
    assert report.labels is not None
    hour = report.labels.windows["1h"]
    assert hour.total == (60, 60, 120.0)
    found = labels(report.labels, report.champion_metric)
    assert found is not None
    assert (found.windows["1h"].mae, found.windows["1h"].accuracy, found.windows["1h"].share) == (2.0, None, 1.0)


def shown(report: bytes) -> tuple[ModelStatus, str]:
    """A model's status from the report in the store, and what the terminal says."""
    (model,) = describe([], parse_reports({b"loan": report}))
    out = io.StringIO()
    render(Status("now", [model], [], [], [], None, {}), Console(file=out, width=200))
    return model, out.getvalue()


def test_status_and_prometheus_tell_how_outcomes_come() -> None:
    """In words and as numbers; series of a model that is gone go away."""
    monitor = watched(log_of(half_covered(30 * 60), MIDNIGHT_S + 30 * HOUR_S), QUIET, registered(champion()))
    (report,) = monitor.report()
    told = labels(report.labels, report.champion_metric)
    model, text = shown(msgspec.json.encode({"model": "loan", "labels": told}))
    assert model.labels == told
    assert "outcomes come within" in text
    assert "(95 %)" in text
    assert "labelled (predicted 1 " in text, "the class with the lowest share first"
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.watched(0, monitor.watermark_ms, [report])
    shares = {
        label: registry.get_sample_value("driftline_label_coverage_ratio", {"model": "loan", "predicted": label})
        for label in "01"
    }
    assert shares["0"] == pytest.approx(1.0)
    assert shares["1"] == pytest.approx(0.5, abs=0.05)
    delay = registry.get_sample_value("driftline_label_delay_seconds", {"model": "loan", "quantile": "0.95"})
    assert delay == report.labels.delays_s[0.95] if report.labels is not None else False
    mature = {"model": "loan", "window": "24h"}
    assert 0.9 < (registry.get_sample_value("driftline_mature_accuracy_ratio", mature) or 0) < 1.0
    metrics.watched(0, monitor.watermark_ms, [])
    assert b'model="loan"' not in generate_latest(registry)


def test_a_report_of_another_release_has_no_figures_of_labels() -> None:
    """Nothing is shown of it."""
    model, text = shown(b'{"model": "loan"}')
    assert model.labels is None
    assert "outcomes come" not in text
