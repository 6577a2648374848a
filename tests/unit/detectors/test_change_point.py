"""Where a change is dated to, and what that costs in memory."""

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.adwin import Adwin
from detectors.change_point import ChangePoint
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference


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


DETECTORS: dict[str, Callable[[float], Detector]] = {
    "e_detector": lambda rate: EDetector(reference=Reference.of_rate(10_000, rate)),
    "adwin": lambda _: Adwin(),
    "page_hinkley": lambda _: PageHinkley(),
}


def ages(name: str, before: float, after: float, calm: int, streams: int = 60) -> list[float]:
    """For each stream, how old the change is said to be as a share of how old it is, when it is first found."""
    found = []
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        rates = np.repeat((before, after), (calm, 20_000))
        detector = DETECTORS[name](before)
        errors = (rng.random(len(rates)) < rates).astype(np.float64)
        later = [each for each in detector.update_many(errors) if each.index >= calm]
        found += [each.window / (each.index - calm + 1) for each in later[:1]]
    return found


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.04), (0.02, 0.04), (0.1, 0.2), (0.3, 0.45)])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_change_is_dated_neither_too_late_nor_too_early(name: str, before: float, after: float) -> None:
    """Half of the ages are too low and half too high, and most are near, however rare errors are.

    Least squares take nine of ten changes from .02 to .04 for the last errors before the e-detector fires.
    """
    found = ages(name, before, after, 6_000)
    assert len(found) >= 30
    assert np.median(found) == pytest.approx(1.0, abs=0.15)
    assert np.mean(np.abs(np.log(found)) < np.log(2.0)) > 0.7
    assert np.mean(np.array(found) < 0.05) < 0.05


def test_a_long_calm_before_a_change_does_not_make_it_older() -> None:
    """Half a million errors without a change are as many places for one, each hardly likely."""
    found = ages("e_detector", 0.1, 0.2, 500_000, streams=12)
    assert np.median(found) == pytest.approx(1.0, abs=0.25)
    assert max(found) < 10.0


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_absolute_errors_are_dated_as_sharply_as_they_show_it(factor: float) -> None:
    """They vary less than errors that are 0 or 1; a single large one is no change."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        errors = np.minimum(1.0, rng.exponential(0.05, 8_000) * np.repeat((1.0, factor), (6_000, 2_000)))
        detector = EDetector(reference=Reference.of_errors(np.minimum(1.0, rng.exponential(0.05, 5_000))))
        later = [each for each in detector.update_many(errors) if each.index >= 6_000]
        found += [each.window / (each.index - 5_999) for each in later[:1]]
    assert len(found) > 30
    assert np.median(found) == pytest.approx(1.0, abs=0.15)
    assert np.mean(np.array(found) < 0.2) < 0.1


def test_the_split_of_least_squares_is_told_too() -> None:
    """It is the younger one where errors are rare, and the rate since then the higher one."""
    younger, worse = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        change = ChangePoint()
        change.extend((rng.random(4_300) < np.repeat((0.02, 0.08), (4_000, 300))).astype(np.float64))
        change.extend([1.0])
        split = change.split(rising_only=True)
        younger += split.least_squares_window <= split.window
        worse.append(split.least_squares_after - split.after)
    assert younger >= 90
    assert np.median(worse) > 0.0


@pytest.mark.parametrize(
    "values", [[0.0] * 50, [1.0] * 50, [0.3] * 50, [5e-324] * 40 + [0.0] * 9 + [1e-310], [0.0, 1.0]]
)
def test_errors_without_a_spread_are_dated_too(values: list[float]) -> None:
    """No warning of a division; there may be nothing to tell."""
    change = ChangePoint()
    change.extend(values)
    for rising_only in (False, True):
        split = change.split(rising_only)
        assert 1 <= split.window < len(values)
        assert 1 <= split.least_squares_window < len(values)
