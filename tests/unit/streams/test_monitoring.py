"""How the monitor tells which input partition holds the others."""

from __future__ import annotations

from streams.monitoring import behind

NOON_MS = 1_800_000_000_000


def test_the_slowest_partition_is_told() -> None:
    """In ms behind the fastest."""
    assert behind({0: NOON_MS, 1: NOON_MS - 40_000}, NOON_MS - 90_000) == {0: 0, 1: 40_000}


def test_a_partition_that_has_not_spoken_counts_from_when_the_first_did() -> None:
    """Not from 1970: every new deployment would begin with an alert. If it never speaks, it is told all the same."""
    assert behind({0: 0, 1: 0}, 0) == {0: 0, 1: 0}
    assert behind({0: NOON_MS, 1: 0}, NOON_MS) == {0: 0, 1: 0}
    assert behind({0: NOON_MS + 31_000, 1: 0}, NOON_MS) == {0: 0, 1: 31_000}
