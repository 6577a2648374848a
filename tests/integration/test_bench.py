"""The benchmark of the engine does what it says, small: every key is there and every pair is conserved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import HEADLINES
from bench.workloads import WORKLOADS

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).resolve().parents[2]
NOT_MEASURED = {"ratio_bare_far_cold", "redis_bytes_per_pending_cold"}


@pytest.mark.timeout(600)
def test_a_quick_run_gives_every_number_and_loses_no_pair() -> None:
    """Of the bare loop and stock Faust too: each checks its own errors, and a wrong number ends the benchmark."""
    command = [sys.executable, "-m", "bench.engine", "--quick", "--json", "--workload", "near", "far"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert {name for name in HEADLINES if found[name] is None} == NOT_MEASURED
    for name in ("near", "far"):
        measured = found["workloads"][name]
        assert measured["joined"] == measured["pairs"] == WORKLOADS[name].scaled(0.01).pairs
        assert measured["stages"]["stage_us"]["join: decode"] > 0
    assert found["workloads"]["far"]["pending"]["rows"] == WORKLOADS["far"].scaled(0.01).pairs
    assert "near 1/1" in done.stderr
