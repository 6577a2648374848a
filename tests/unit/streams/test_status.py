"""What `driftline status` makes of models, reports, alerts and cuts."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest
from rich.console import Console

from streams import status
from streams.errors import Unavailable
from streams.events import Alert, Baseline, ModelState
from streams.settings import KafkaSettings, Settings
from streams.status import MonitorStatus, PartitionStatus, active, assemble, collect, describe, parse_reports, render
from tests.support.ports import free_port


def alert(fingerprint: str, state: str, since: str, model: str = "loans", number: int = 1) -> Alert:
    return Alert(
        "firing" if state == "firing" else "resolved",
        {"alertname": "ConceptDriftDetected", "model": model, "severity": "critical"},
        {"summary": f"{model} is wrong more often [since {since}]"},
        since,
        "0001-01-01T00:00:00Z",
        "",
        fingerprint,
        sequence=number,
    )


def reported(model: str, **changes: Any) -> bytes:
    windows = {"1h": {"n": 120, "accuracy": 0.91, "precision": 0.9, "recall": None}}
    return json.dumps(
        {
            "model": model,
            "champion": "2",
            "versions": [{"version": "1", "windows": {}}, {"version": "2", "windows": windows, "baseline": {"n": 9}}],
            "watermark_ms": 1_700_000_000_000,
            "a later field": [1],
        }
        | changes
    ).encode()


STATE = ModelState(
    "loans",
    3,
    "binary",
    aliases={"champion": "2", "previous": "1"},
    baselines={"2": Baseline("accuracy", 0.93, 5_000)},
    mode="approve",
    frozen=True,
)


def test_a_model_shows_its_champions_windows() -> None:
    """Aliases come from the model events, windows from the monitor's report of the champion."""
    (model,) = describe([STATE], parse_reports({b"loans": reported("loans")}))
    assert (model.champion, model.challenger, model.previous) == ("2", None, "1")
    assert (model.task, model.mode, model.frozen) == ("binary", "approve", True)
    assert model.windows["1h"]["accuracy"] == 0.91
    assert model.baseline == {"n": 9}


def test_a_model_that_only_the_monitor_knows_is_shown() -> None:
    """The monitor's champion stands in where no alias is."""
    (model,) = describe([], parse_reports({b"prices": reported("prices")}))
    assert (model.model, model.task, model.champion) == ("prices", None, "2")
    assert model.windows["1h"]["n"] == 120


def test_before_there_is_a_champion_the_busiest_version_is_shown() -> None:
    """Figures are there from the first outcome on, not only once the monitor has seen a champion."""
    quiet = {"version": "7", "windows": {"1h": {"n": 3}}}
    busy = {"version": "8", "windows": {"1h": {"n": 30}}}
    (model,) = describe([], parse_reports({b"m": reported("m", champion="", versions=[quiet, busy])}))
    assert (model.champion, model.version, model.windows["1h"]["n"]) == (None, "8", 30)


def test_a_model_without_a_report_has_its_declared_baseline() -> None:
    """Before the first report there are no windows, and the baseline is the registered one."""
    (model,) = describe([STATE], {})
    assert model.windows == {}
    assert model.baseline == STATE.baselines["2"]


@pytest.mark.parametrize("value", [b"not json", b"[]", b'{"model": 1}', b"\xff"])
def test_a_report_of_another_shape_is_one_without_figures(value: bytes) -> None:
    """Another release's report must not keep the rest from being shown."""
    (report,) = parse_reports({b"loans": value}).values()
    assert (report.model, report.versions) == ("loans", [])


def test_the_newest_alert_of_a_fingerprint_decides() -> None:
    """What resolved is not active; what fires again is, since its new start."""
    found = active(
        [
            alert("a", "firing", "2026-01-01T00:00:00Z"),
            alert("b", "firing", "2026-01-02T00:00:00Z", model="prices"),
            alert("a", "resolved", "2026-01-01T00:00:00Z", number=2),
            alert("c", "firing", "2026-01-01T12:00:00Z"),
            alert("c", "resolved", "2026-01-01T12:00:00Z", number=2),
            alert("c", "firing", "2026-01-03T00:00:00Z"),
        ]
    )
    assert [(each.fingerprint, each.since) for each in found] == [
        ("b", "2026-01-02T00:00:00Z"),
        ("c", "2026-01-03T00:00:00Z"),
    ]


def partitions() -> list[PartitionStatus]:
    return [PartitionStatus(0, 3, 1, 10, 0, 2_000, 0.5), PartitionStatus(1, 4, 0, 5, 7, 1_000, 1.5)]


def test_the_watermark_is_the_lowest_clock() -> None:
    """A partition without a cut leaves no watermark; lag is summed over partitions."""
    found = assemble(5_000, [], [], partitions(), [MonitorStatus(0, 2, 900, 0.1)])
    assert found.watermark_ms == 1_000
    assert found.lag == {"predictions": 15, "outcomes": 7, "summaries": 2}
    without = PartitionStatus(2, 0, 0, 0, 0, None, None)
    assert assemble(5_000, [], [], [*partitions(), without], []).watermark_ms is None


def test_people_see_models_windows_alerts_and_lag() -> None:
    """The rendering names what is active and shows figures; JSON round-trips."""
    found = assemble(
        5_000,
        describe([STATE], parse_reports({b"loans": reported("loans")})),
        active([alert("a", "firing", "2026-01-01T00:00:00Z")]),
        partitions(),
        [],
    )
    text = io.StringIO()
    render(found, Console(file=text, width=200))
    shown = text.getvalue()
    assert "0.91" in shown
    assert "approve" in shown
    assert "ConceptDriftDetected (critical) loans since 2026-01-01T00:00:00Z" in shown
    assert "[since 2026" in shown
    assert msgspec.json.decode(msgspec.json.encode(found), type=status.Status).lag == found.lag


def test_windows_fit_a_terminal() -> None:
    """Measures that no model has take no room, and headings are not broken."""
    figures = {"n": 123_456, "accuracy": 0.9135, "precision": 0.9012, "recall": 0.8899, "f1": 0.8955}
    versions = [{"version": "2", "windows": {"1h": figures}}]
    found = assemble(0, describe([STATE], parse_reports({b"loans": reported("loans", versions=versions)})), [], [], [])
    text = io.StringIO()
    render(found, Console(file=text, width=80))
    heading = next(line for line in text.getvalue().splitlines() if "window" in line)
    assert heading.split() == ["model", "version", "window", "outcomes", "accuracy", "precision", "recall", "f1"]


def test_a_missing_broker_is_told_in_one_line() -> None:
    """No broker: one line with a hint, as an error with its own exit code."""
    kafka = KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}", request_timeout_s=0.5)
    with pytest.raises(Unavailable, match=r"no Kafka broker answers at 127\.0\.0\.1") as caught:
        collect(Settings(kafka=kafka))
    assert caught.value.hint
