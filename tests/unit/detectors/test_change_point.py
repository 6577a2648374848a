"""Where a change is dated to, and what that costs in memory."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.change_point import ChangePoint


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 700), max_size=12))
def test_thinning_often_or_once_keeps_the_same_splits(seed: int, sizes: list[int]) -> None:
    """Whenever the sums are thinned, what is kept depends only on how many errors there were."""
    rng = random.Random(seed)
    errors = [rng.random() for _ in range(sum(sizes))]
    once, often = ChangePoint(), ChangePoint()
    once.extend(errors)
    start = 0
    for size in sizes:
        often.extend(errors[start : start + size])
        often = ChangePoint.of(often.state())
        start += size
    assert often.state() == once.state()


def test_a_long_stream_needs_little_and_stays_precise() -> None:
    """Of a million errors some hundred sums are kept, never further apart than a 32nd of their age."""
    change = ChangePoint()
    for _ in range(100):
        change.extend([0.0] * 10_000)
    kept = change.state().positions
    assert len(kept) < 700
    assert all(later - earlier <= max(1, (1_000_000 - earlier) / 32) for earlier, later in itertools.pairwise(kept))


@pytest.mark.parametrize("n_after", [1, 5, 60, 500, 20_000])
def test_a_clean_step_is_dated_within_a_sixteenth_of_its_age(n_after: int) -> None:
    """A step without noise is found at its place, as finely as the sums that are kept allow."""
    change = ChangePoint()
    change.extend([0.25] * 30_000 + [0.75] * n_after)
    split = change.split()
    assert abs(split.window - n_after) <= n_after / 16
    assert split.n == 30_000 + n_after
    assert split.before == pytest.approx(0.25, abs=0.02)
    assert split.after == pytest.approx(0.75, abs=0.02)


def test_only_a_rise_counts_for_a_detector_that_looks_upwards() -> None:
    """A fall that is larger than the rise is not taken for it."""
    change = ChangePoint()
    change.extend([0.9] * 200 + [0.1] * 200 + [0.3] * 50)
    assert change.split().before == pytest.approx(0.9)
    assert change.split(rising_only=True).window == 50


def test_one_error_has_no_split() -> None:
    """There is no change to date in less than two errors."""
    change = ChangePoint()
    change.extend([1.0])
    with pytest.raises(ValueError, match="no change"):
        change.split()
