"""Two workers against one: the comparison."""

from __future__ import annotations

from bench.two_workers import GroupRun, summary


def test_two_against_one_is_of_the_medians() -> None:
    """A CPU-second is of all workers together, the wall clock that of the last of them."""
    one = [GroupRun(1, [[0, 1, 2, 3]], cpu, 4.0, {"worker 1": 0.9}) for cpu in (2.0, 2.0, 9.0)]
    two = [GroupRun(2, [[0, 1], [2, 3]], cpu, 2.0, {"worker 1": 0.8, "worker 2": 0.7}) for cpu in (2.5, 2.5, 2.5)]
    found = summary([*one, *two], 100_000)
    assert found["workers_1"]["pairs_per_cpu_s"] == 50_000
    assert found["two_over_one_per_cpu_s"] == 0.8
    assert found["two_over_one_wall"] == 2.0
    assert found["workers_2"]["cores"] == {"worker 1": 0.8, "worker 2": 0.7}
