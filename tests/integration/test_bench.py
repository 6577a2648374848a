"""The benchmark of the engine does what it says, small: every key is there and every pair is conserved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.deployment import Deployment
from bench.latency import measure
from bench.report import HEADLINES
from bench.two_workers import group_run
from bench.workloads import WORKLOADS
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_a_quick_run_gives_every_number_and_loses_no_pair() -> None:
    """Of the bare loop and stock Faust too: each checks its own errors, and a wrong number ends the benchmark."""
    command = [sys.executable, "-m", "bench.engine", "--quick", "--json", "--workload", "near", "far"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert [name for name in HEADLINES if found[name] is None] == []
    for name in ("near", "far"):
        measured = found["workloads"][name]
        assert measured["joined"] == measured["pairs"] == WORKLOADS[name].scaled(0.01).pairs
        assert measured["stages"]["stage_us"]["join: decode"] > 0
    assert found["workloads"]["far"]["pending"]["rows"] == WORKLOADS["far"].scaled(0.01).pairs
    assert "near 1/1" in done.stderr


def test_two_workers_share_a_backlog_that_one_commit_shows_them(
    kafka_broker: KafkaBroker, redis_store: RedisServer, tmp_path: Path
) -> None:
    """Each owns half of the partitions while it lasts, and together they join every pair once."""
    workload = replace(WORKLOADS["near"], pairs=2_000, shuffle=100)
    run = group_run(kafka_broker, redis_store, tmp_path, workload, 2)
    assert [len(part) for part in run.split] == [2, 2]
    assert sorted(partition for part in run.split for partition in part) == [0, 1, 2, 3]
    assert set(run.cores) == {"worker 1", "worker 2", "broker", "redis"}


def test_every_probe_of_the_latency_is_seen(
    kafka_broker: KafkaBroker, redis_store: RedisServer, tmp_path: Path
) -> None:
    """Each outcome that was sent reaches its window, each drift its alert, beside other traffic."""
    deployment = Deployment(kafka_broker, redis_store, tmp_path, replace(WORKLOADS["near"], pairs=0))
    latencies = measure(deployment, rate=200, samples=4, alerts=2)
    deployment.remove()
    assert (len(latencies.window_s), len(latencies.alert_s)) == (4, 2)
    assert min(latencies.window_s + latencies.alert_s) > 0
