"""The picture of a comparison, and the table beside it."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from streams.replay import text
from streams.replay.check import CheckReport, Difference
from streams.replay.compare import Comparison
from streams.replay.outcomes import Seconds
from streams.replay.plot import draw, panels
from streams.replay.score import Alarm, Drift, Score
from tests.support.driftline import COMMAND

SVG = "{http://www.w3.org/2000/svg}"
STREAM_S = (0, 10_000)
FLAT = Seconds(np.arange(0, 10_000, 10), np.full(1_000, 2), np.full(1_000, 1.0))


def alarm(model: str, fired_s: int, resolved_s: int | None, severity: str = "critical") -> Alarm:
    return Alarm(model, "ConceptDriftDetected", severity, fired_s, resolved_s, "a < b & c")


def policy(name: str, *episodes: Alarm) -> Score:
    return Score(*(name, {}, 2, len(episodes), 1.5, 0, 0.0, 1, 1, 3_700.0, 20, 5.0, 12.5), list(episodes), [])


SCORES = [
    policy("current", alarm("<loan>", 2_000, 4_000), alarm("house", 9_000, None, "warning")),
    policy("other"),
]
MODELS = {"house": (FLAT, True), "quiet": (FLAT, False), "<loan>": (FLAT, False)}


def bars(document: ElementTree.Element) -> list[ElementTree.Element]:
    """The alarms."""
    return [rect for rect in document.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]


def test_every_alarm_is_a_bar_where_it_was() -> None:
    """From firing to resolved, or to the end; drawn to scale; names are escaped."""
    found = panels(MODELS, SCORES)
    assert [panel.model for panel in found] == ["<loan>", "house", "quiet"]
    document = ElementTree.fromstring(draw(found, SCORES, [Drift(1_000), Drift(5_000, 6_000)], STREAM_S))
    first, second = sorted(bars(document), key=lambda rect: float(rect.get("x", "")))
    scale = float(first.get("width", "")) / 2_000
    assert float(second.get("x", "")) - float(first.get("x", "")) == pytest.approx(7_000 * scale, abs=0.3)
    assert float(second.get("width", "")) == pytest.approx(1_000 * scale, abs=0.3)
    texts = [each.text for each in document.iter(f"{SVG}text")]
    for expected in ("<loan>", "house", "current", "other", "known drift", "mean absolute error", "2,000 outcomes"):
        assert expected in texts
    lines = [each for each in document.iter(f"{SVG}line") if each.get("class") == "drift"]
    assert len(lines) == 1 + 2 * len(found), "the legend's, and each drift in each panel"


def test_a_gap_in_the_outcomes_is_a_gap_in_the_line() -> None:
    """Nothing is drawn through a night without any."""
    broken = Seconds(np.r_[np.arange(100), np.arange(9_000, 9_100)], np.ones(200, np.int64), np.zeros(200))
    document = ElementTree.fromstring(draw(panels({"m": (broken, False)}, SCORES), SCORES, [], STREAM_S))
    assert len(list(document.iter(f"{SVG}polyline"))) == 2


def test_only_so_many_models_are_drawn() -> None:
    """Those with alarms first."""
    many = {f"m{n}": (FLAT, False) for n in range(20)}
    found = panels(many, [policy("current", alarm("m17", 1, 2))], limit=3)
    assert [panel.model for panel in found] == ["m17", "m0", "m1"]


def test_rates_are_written_out() -> None:
    """Nobody reads 2.88e+04."""
    assert [text.rate(each) for each in (0, 0.1234, 60.48, 28_812.3)] == ["0", "0.123", "60.5", "28,812"]


def check_report(identical: bool, replayed: int, published: int) -> str:
    """What the check says in words."""
    out = io.StringIO()
    differences = [] if identical else [Difference("a/1", "differs", "firing X of m", {"drift.statistic": [1.5, 2.5]})]
    report = CheckReport(identical, replayed, published, 3, 2, 9, "now", differences, [], ["the log begins late"])
    text.render_check(report, Console(file=out, width=100))
    return out.getvalue()


def test_a_check_says_what_it_found() -> None:
    """Identical, identical because there was nothing, or different by what; and what could not be compared."""
    assert "identical: 7 alerts" in check_report(True, 7, 7)
    assert "no alert was published" in check_report(True, 0, 0)
    found = check_report(False, 7, 8)
    for expected in (
        "differs: firing X of m, a/1",
        "drift.statistic: published 1.5, replayed 2.5",
        "the log begins late",
    ):
        assert expected in found
    for expected in ("8 alerts were published, 7 come out", "3 of them are no longer", "2 published alerts are older"):
        assert expected in found
    assert "identical" not in found


def shown(drifts: list[str], cost: float | None) -> str:
    out = io.StringIO()
    report = Comparison("t.csv", "then", "now", 1_000, ["loan"], drifts, cost, SCORES, ["the log begins late"])
    text.render_comparison(report, Console(file=out, width=100))
    return out.getvalue()


def test_the_table_says_only_what_was_asked() -> None:
    """Delays with drifts, costs with a price."""
    assert "median delay" not in shown([], None)
    assert "cost" not in shown(["then"], None)
    found = shown(["then"], 2.5)
    for expected in ("1,000 outcomes of model loan", "1 h 1 min", "1 of 1", "12.50", "the log begins late", "other"):
        assert expected in found


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.6, "1 min"), (3_725, "1 h 2 min"), (90_000, "1 d 1 h"), (86_405, "1 d 5 s")],
)
def test_durations(seconds: float, expected: str) -> None:
    """The two largest units that it has."""
    assert text.duration(seconds) == expected


def test_the_command_writes_table_picture_and_json(tmp_path: Path) -> None:
    """From a file, without any server; data on stdout only; what cannot be is one line and an exit code."""
    rows = "\n".join(f"{int(n % 20 == 0 or (n > 3_000 and n % 2))},0" for n in range(6_000))
    (tmp_path / "t.csv").write_text(f"prediction,outcome\n{rows}\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(COMMAND), "replay", "--csv", "t.csv", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    found = run("--json", "--plot", "p.svg", "--set", "monitor.baseline_outcomes=500", "--drift", "1700000340")
    assert (found.returncode, found.stderr) == (0, "")
    report = json.loads(found.stdout)
    assert [each["policy"] for each in report["policies"]] == ["current", "monitor.baseline_outcomes=500"]
    assert report["policies"][1]["found"] == 1
    document = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert len(bars(document)) == sum(len(each["episodes"]) for each in report["policies"])
    failed = run("--cost-per-error", "2")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)
