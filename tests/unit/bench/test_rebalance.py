"""Pauses: gaps between the cuts of one partition."""

from __future__ import annotations

import pytest

from bench.rebalance import longest_gap_ms
from bench.runs import RunFailed


def test_the_longest_gap_is_within_one_partition_and_reaches_past_the_event() -> None:
    """A gap that was over before the event is not its doing; one that spans it is."""
    assert longest_gap_ms([[0, 5_000, 5_250, 5_500], [100, 350, 6_350]], 5_300) == 6_000
    assert longest_gap_ms([[0, 5_000, 5_250, 5_500]], 5_300) == 250


def test_silence_after_the_event_is_no_short_pause() -> None:
    """Without a later cut nothing can be said."""
    with pytest.raises(RunFailed):
        longest_gap_ms([[0, 250, 500]], 5_000)
