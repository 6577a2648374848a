"""The benchmark's numbers: medians, ratios, and the keys of the JSON object."""

from __future__ import annotations

import json

import pytest

from bench.pending import Pending
from bench.process import Usage
from bench.report import HEADLINES, Measured, Spread, by_stage, summary
from bench.runs import WorkerRun
from bench.workloads import Workload

MB = 1_000_000


def bare(cpu_s: float, wall_s: float = 1.0) -> Usage:
    """One run of the bare loop."""
    return Usage(cpu_s, wall_s, 100 * MB, 150 * MB)


def ours(cpu_s: float, wall_s: float = 1.0, rss_mb: int = 300) -> WorkerRun:
    """One run of the worker on 1,000 pairs."""
    return WorkerRun(Usage(cpu_s, wall_s, 200 * MB, rss_mb * MB), 1_000, cpu_s, 0.001, {"worker": 0.5})


def measured(name: str = "near") -> Measured:
    """Three runs of each on 1,000 pairs, one of them disturbed."""
    return Measured(
        Workload(name, "", 1_000),
        bare=[bare(0.010), bare(0.040), bare(0.012)],
        ours=[ours(0.005), ours(0.020), ours(0.004)],
    )


def test_the_ratio_is_of_runs_that_followed_each_other() -> None:
    """A disturbance that slows both runs of a pair leaves their ratio alone."""
    assert measured().ratio() == Spread(2.0, 2.0, 3.0)


def test_a_spread_has_the_median_and_both_ends() -> None:
    """Of an even number of values the median lies between the middle ones."""
    assert Spread.of([4, 1, 3, 2]) == Spread(2.5, 1, 4)


def test_costs_are_microseconds_a_pair() -> None:
    """CPU-seconds of a run over its pairs."""
    assert measured().cpu_us().median == pytest.approx(5.0)
    assert measured().bare_cpu_us().median == pytest.approx(12.0)


def test_the_object_has_every_headline_whatever_was_measured() -> None:
    """A reader finds each key; one that was not measured is null, never left out."""
    nothing = summary({}, {})
    assert all(name in nothing and nothing[name] is None for name in HEADLINES)
    near, far = measured(), measured("far")
    near.faust, near.faust_pairs = [bare(0.5)], 100
    far.pending = Pending(1_000, {"log": 50_000}, 56_000, 300 * MB, 310 * MB)
    found = summary({"near": near, "far": far}, {"commit": "x"})
    assert found["ratio_bare"] == 2.0
    assert found["ratio_bare_far"] == 2.0
    assert found["ratio_stock_faust"] == 1_000.0
    assert found["pairs_per_s"] == 200_000
    assert found["rss_mb"] == 300
    assert found["rss_pending_mb"] == 310
    assert found["redis_bytes_per_pending"] == 56.0
    assert found["workloads"]["near"]["joined"] == 3_000
    json.dumps(found)


def test_a_profile_adds_up() -> None:
    """Stages and what lies outside of them are the threads' CPU; threads of one name are added."""
    profile = {
        "stages": {"a": (0.003, 10), "b": (0.001, 20)},
        "threads": [("asyncio_0", 0.004), ("rdk:broker1", 0.001), ("rdk:broker1", 0.002)],
        "call_cost_s": 1e-6,
    }
    found = by_stage(profile, 1_000)
    assert found["stage_us"] == {"a": 3.0, "b": 1.0}
    assert found["thread_us"] == {"asyncio_0": 4.0, "rdk:broker1": 3.0}
    assert (found["total_us"], found["outside_stages_us"], found["timers_us"]) == (7.0, 3.0, 0.03)
