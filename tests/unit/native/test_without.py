"""What the library speeds up passes its tests without it, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from native.library import OFF, SWITCH, library

TESTS = Path(__file__).parent.parent
FILES = [
    *("streams/test_fetched.py", "streams/test_columns.py", "streams/test_partition.py", "streams/test_join.py"),
    *("streams/test_id_index.py", "streams/test_rows.py", "streams/test_summarise.py", "streams/test_monitor.py"),
    *("detectors/test_e_detector.py", "detectors/test_detectors.py", "detectors/test_change_point.py"),
    "detectors/test_four_rates.py",
]


@pytest.mark.skipif(library() is None, reason="all tests run without the library here")
@pytest.mark.parametrize("file", FILES)
def test_python_does_the_same(file: str) -> None:
    """On a machine without a C compiler it is all there is."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not long",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(TESTS / file),
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, env={**own, SWITCH: OFF}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3_000:] + run.stderr[-1_000:]
