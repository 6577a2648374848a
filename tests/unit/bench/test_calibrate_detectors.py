"""The table of run lengths is fitted to what was simulated, and only written if it holds beyond that."""

import math
from pathlib import Path
from typing import Any

import pytest

from bench import calibrate_detectors
from detectors.hazard_table import LINES


def test_a_line_is_found_again() -> None:
    """Run lengths that grow exponentially give their own intercept and slope."""
    points = [(x, round(1e9 / math.exp(5.0 + 0.3 * x)), 10**9) for x in (5.0, 10.0, 20.0)]
    assert calibrate_detectors.fitted(points) == pytest.approx((5.0, 0.3), abs=0.01)


def test_too_few_points_are_no_line() -> None:
    """With hardly an outcome nothing has alarmed, and there is nothing to fit."""
    with pytest.raises(ArithmeticError, match="choose other steps"):
        calibrate_detectors.calibrated("adwin", 0.1, calibrate_detectors.STREAM)


def test_the_table_is_written_only_if_the_check_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run writes a module that can be imported; one whose lines do not hold writes none."""
    monkeypatch.setattr(calibrate_detectors, "RATES", (0.1,))
    monkeypatch.setattr(calibrate_detectors, "CHECKED", 30_000.0)
    monkeypatch.setattr(calibrate_detectors, "MAKERS", {"adwin": calibrate_detectors.MAKERS["adwin"]})
    written = tmp_path / "table.py"
    monkeypatch.setattr("sys.argv", ["x", "--outcomes", "2000000", "--to", str(written)])
    calibrate_detectors.main()
    namespace: dict[str, Any] = {}
    exec(compile(written.read_text(), str(written), "exec"), namespace)
    (line,) = namespace["LINES"]
    assert (line.detector, line.rate) == ("adwin", 0.1)
    assert 1.0 < line.slope < 2.0

    written.unlink()
    monkeypatch.setattr(calibrate_detectors, "FACTOR", 1.0001)
    with pytest.raises(SystemExit, match="nothing written"):
        calibrate_detectors.main()
    assert not written.exists()


def test_the_table_of_the_release_has_every_line() -> None:
    """Both detectors at each error rate, in order, and longer run lengths for larger x."""
    expected = [(name, rate) for name in calibrate_detectors.MAKERS for rate in calibrate_detectors.RATES]
    assert [(line.detector, line.rate) for line in LINES] == expected
    assert all(line.slope > 0.0 for line in LINES)
