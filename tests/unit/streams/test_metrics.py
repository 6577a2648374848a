"""The worker's metrics: what is gone leaves no series behind."""

from __future__ import annotations

import time

import pytest
from prometheus_client import Histogram, generate_latest

from detectors.tally import Tally
from streams.exposition import process_registry
from streams.metrics import DELAY_BUCKETS, CountedHistogram, WorkerMetrics
from streams.monitor import ModelReport, VersionReport


def report(version: str) -> ModelReport:
    """A model with one version and one window."""
    tally = Tally(4, {("1", "1"): 3, ("1", "0"): 1})
    return ModelReport("loan", version, [VersionReport(version, True, "accuracy", 4, None, {"1h": tally}, {}, {})], [])


def page(metrics: tuple[WorkerMetrics, object]) -> str:
    """What Prometheus would read."""
    return generate_latest(metrics[1]).decode()  # type: ignore[arg-type]


def made() -> tuple[WorkerMetrics, object]:
    """Fresh metrics and their registry."""
    registry = process_registry()
    return WorkerMetrics(registry), registry


def test_a_retired_version_leaves_no_series() -> None:
    """The next report without it takes its accuracy away."""
    metrics = made()
    metrics[0].watched(0, 1_000, [report("1")])
    assert 'driftline_windowed_accuracy_ratio{model="loan",version="1",window="1h"} 0.75' in page(metrics)
    metrics[0].watched(0, 2_000, [report("2")])
    assert 'version="1"' not in page(metrics)
    assert 'version="2"' in page(metrics)


def test_a_monitor_partition_that_is_given_up_leaves_no_series() -> None:
    """Watermark, accuracies and active alerts belong to whoever owns it now."""
    metrics = made()
    metrics[0].watched(3, 1_000, [report("1")])
    metrics[0].alerted(3, "loan", "ConceptDriftDetected", firing=True, began=True)
    metrics[0].alerted(3, "loan", "ConceptDriftDetected", "north", firing=True, began=True)
    metrics[0].alerted(3, "loan", "ConceptDriftDetected", "north", firing=False, began=False)
    for segment, value in (("", 1.0), ("north", 0.0)):
        series = f'alertname="ConceptDriftDetected",model="loan",segment="{segment}"'
        assert f"driftline_drift_active{{{series}}} {value}" in page(metrics)
    metrics[0].unwatched([3])
    text = page(metrics)
    assert 'model="loan",version' not in text
    assert "driftline_drift_active{" not in text
    assert "driftline_watermark_timestamp_seconds{" not in text
    assert "driftline_drift_detections_total{" in text


def test_a_counted_histogram_reads_as_one_that_saw_every_value() -> None:
    """Prometheus cannot tell it from a histogram that was told each value by itself, on and off the bounds too."""
    counted, single = process_registry(), process_registry()
    ours = CountedHistogram("delay_seconds", "A delay.", DELAY_BUCKETS, counted)
    theirs = Histogram("delay_seconds", "A delay.", registry=single, buckets=DELAY_BUCKETS)
    for value, times in ((0, 3), (1, 2), (3, 1), (4, 5), (1 << 22, 1), (1 << 30, 2)):
        ours.observe(value, times)
        for _ in range(times):
            theirs.observe(value)
    expected = [line for line in page((None, single)).splitlines() if "delay_seconds" in line]  # type: ignore[arg-type]
    assert [line for line in page((None, counted)).splitlines() if "delay_seconds" in line] == expected  # type: ignore[arg-type]
    assert 'delay_seconds_bucket{le="4.0"} 11.0' in expected


def test_a_checkpoints_age_grows_until_the_next_one_and_goes_with_its_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked at each scrape, so that a store that is waited for shows while nothing is written."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    metrics = made()
    metrics[0].written("join", 2)
    metrics[0].watched(2, 1_000, [])
    now[0] = 140.0
    text = page(metrics)
    assert 'driftline_checkpoint_age_seconds{partition="2",stage="join"} 40.0' in text
    assert 'driftline_checkpoint_age_seconds{partition="2",stage="monitor"} 40.0' in text
    metrics[0].written("join", 2)
    assert 'driftline_checkpoint_age_seconds{partition="2",stage="join"} 0.0' in page(metrics)
    metrics[0].revoked([2])
    metrics[0].unwatched([2])
    assert "driftline_checkpoint_age_seconds{" not in page(metrics)
