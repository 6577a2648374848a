"""The demo, run as a newcomer runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO_S = 420


@pytest.mark.timeout(DEMO_S + 60)
def test_the_demo_closes_the_loop(tmp_path: Path) -> None:
    """The alert comes after the drift and within 1,000 rows, a better version is promoted, the accuracy recovers to
    within three points, and every prediction and outcome is accounted for."""
    picture = tmp_path / "demo.png"
    done = subprocess.run(
        [sys.executable, "-m", "driftline", "demo", "--json", "--plot", str(picture)],
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    report = json.loads(done.stdout)
    drift, accuracy = report["drift_row"], report["accuracy"]
    assert drift < report["alert_row"] <= drift + 1_000
    assert report["alert_row"] < report["promoted_row"] <= report["swapped_row"]
    assert accuracy["recovered"] >= accuracy["before"] - 0.03
    assert accuracy["drifted"] < accuracy["before"] - 0.2
    assert accuracy["loop"] > accuracy["static"]
    assert {version["what"] for version in report["versions"]} >= {"candidate", "promoted", "serving"}
    assert report["conserved"] is True
    assert report["violations"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
