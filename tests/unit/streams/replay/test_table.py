"""A CSV file as a stream: its columns, its order, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.errors import DriftlineError, MissingInput, WrongSetting
from streams.replay.policies import policies
from streams.replay.score import Drift
from streams.replay.sources import Question, of_table
from streams.replay.table import START_S, Table
from streams.settings import ModelSettings, MonitorSettings, Settings

QUICK = Settings(
    monitor=MonitorSettings(
        baseline_outcomes=500, window_minutes=5, minimum_outcomes=50, for_minutes=0, clean_minutes=3
    )
)


def said(file: Path, text: str, rate: float = 10.0) -> list[tuple[int, int, dict[str, Any]]]:
    """Side, time in ms behind the start, and event of every record that a table gives."""
    file.write_text(text)
    return [
        (each.side, each.at_ms - 1000 * START_S, msgspec.json.decode(each.value or b""))
        for each in Table(file, rate).records()
    ]


def test_two_columns_are_enough(tmp_path: Path) -> None:
    """Rows come at the rate that is given, each outcome with its prediction; the last column is the outcome."""
    found = said(tmp_path / "t.csv", "x,prediction,label\n5,0,1\n6,1,1\n", rate=2.0)
    assert [each[:2] for each in found] == [(0, 0), (1, 0), (0, 500), (1, 500)]
    assert found[0][2] == {"prediction_id": "0", "model": "csv", "version": "1", "prediction": 0}
    assert found[1][2] == {"prediction_id": "0", "outcome": 1}


def test_every_column_counts(tmp_path: Path) -> None:
    """Times, names, segment and delay; the outcome that is late comes after the next prediction. Versions are texts."""
    text = (
        "outcome,prediction,time,model,version,segment,delay\n"
        f"yes,no,{START_S},loan,07,a,90\n"
        f"no,no,{START_S + 60},loan,08,,0\n"
    )
    found = said(tmp_path / "t.csv", text)
    assert [each[:2] for each in found] == [(0, 0), (0, 60_000), (1, 60_000), (1, 90_000)]
    assert found[0][2] == {
        "prediction_id": "0", "model": "loan", "version": "07", "prediction": "no", "segment": "a"
    }  # fmt: skip
    assert "segment" not in found[1][2]
    assert found[3][2] == {"prediction_id": "0", "outcome": "yes"}


def test_times_in_words_and_packed(tmp_path: Path) -> None:
    """RFC 3339 with an offset, in a .gz."""
    file = tmp_path / "t.csv.gz"
    rows = "time,prediction,outcome\n2023-11-14T22:14:00Z,1.5,2.0\n2023-11-14T23:14:01.250+01:00,1.5,2\n"
    file.write_bytes(gzip.compress(rows.encode()))
    found = [(each.side, each.at_ms - 1000 * START_S) for each in Table(file, 1.0).records()]
    assert found == [(0, 0), (1, 0), (0, 1_250), (1, 1_250)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV"),
        ("a,b\n1,2\n", "no columns prediction and outcome, but a, b"),
        ("outcome,prediction\n1,\n", "row 1 has no prediction"),
        ("prediction,outcome\n1,1\n1,\n", "row 2 has no outcome"),
        ("prediction,outcome,time\n1,1,20\n1,1,10\n", "row 2 is earlier"),
        ("prediction,outcome,time\n1,1,noon\n", "a time is none"),
        ("prediction,outcome,delay\n1,1,-5\n", "a delay is no number of seconds"),
        ("prediction,outcome,delay\n1,1,soon\n", "a delay is no number of seconds"),
        ('prediction,outcome\n1,1\n"1,1,1\n', "not a CSV"),
    ],
)
def test_a_wrong_table_is_refused_by_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    """With the row where there is one."""
    with pytest.raises(WrongSetting, match=message):
        said(tmp_path / "t.csv", text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Exit code 66."""
    with pytest.raises(MissingInput, match=r"nowhere\.csv cannot be read"):
        list(Table(tmp_path / "nowhere.csv", 1.0).records())


def test_a_packed_file_that_is_not_packed(tmp_path: Path) -> None:
    """One line, not a traceback."""
    (tmp_path / "t.csv.gz").write_text("prediction,outcome\n1,1\n")
    with pytest.raises(DriftlineError):
        list(Table(tmp_path / "t.csv.gz", 1.0).records())


def write(file: Path, rows: int, drift_row: int) -> None:
    """A model that is wrong once in twenty rows, and every other time from a row on."""
    wrong = [(row % 20 == 0) if row < drift_row else (row % 2 == 0) for row in range(rows)]
    lines = [f"{int(bad)},0" for bad in wrong]
    file.write_text("prediction,outcome\n" + "\n".join(lines) + "\n")


def test_a_drift_in_a_table_is_found(tmp_path: Path) -> None:
    """Without any server; twice the same; a policy that may not speak finds nothing, and that costs more."""
    write(tmp_path / "t.csv", 6_000, 3_000)
    mute = {"monitor.detectors": "[]", "monitor.minimum_accuracy": "0", "monitor.baseline_drop": "1"}
    asked = Question(policies(QUICK, (), mute, joins=True), [Drift(START_S + 300)], 2.0)
    one, two = (of_table(QUICK, tmp_path / "t.csv", 10.0, asked, lambda _: None, lambda _: None) for _ in range(2))
    assert one.report == two.report
    assert (one.report.outcomes, one.report.models) == (6_000, ["csv"])
    assert any("extrapolated" in limit for limit in one.report.limits), "it is ten minutes long"
    current, silent = one.report.policies
    assert (current.found, current.of, current.false_alarms) == (1, 1, 0)
    assert 0 < (current.median_delay_outcomes or 0) < 1_500
    assert (silent.alarms, silent.found, silent.errors, silent.cost) == (0, 0, 1_500.0, 3_000.0)
    assert (current.cost or 0) < 1_500


def test_a_task_that_is_declared_holds_for_a_table(tmp_path: Path) -> None:
    """Whole numbers are classes unless the settings say that the model is a regression."""
    (tmp_path / "t.csv").write_text("prediction,outcome\n5,7\n6,6\n")
    declared = QUICK.model_copy(update={"models": {"csv": ModelSettings(task="regression")}})
    for settings, errors, regression in ((QUICK, 1.0, False), (declared, 2.0, True)):
        asked = Question(policies(settings, (), {}, joins=True))
        found = of_table(settings, tmp_path / "t.csv", 1.0, asked, lambda _: None, lambda _: None)
        seconds, amounts = found.outcomes["csv"]
        assert (seconds.between(0, 1 << 40), amounts) == ((2, errors), regression)
