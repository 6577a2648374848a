"""What a version's baseline says, and when."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.baseline import Baseline, BaselineLearner, Metric
from detectors.contract import InvalidValue
from detectors.snapshot import SnapshotError


def test_a_baseline_is_there_after_the_required_outcomes_and_stays() -> None:
    """Nothing before, then the accuracy with its standard error; later errors belong to others."""
    learner = BaselineLearner(n_required=100)
    assert learner.update_many([0.0] * 60) == 60
    assert learner.baseline is None
    assert learner.missing == 40
    assert learner.update_many([1.0] * 20 + [0.0] * 20 + [1.0] * 7) == 40
    baseline = learner.baseline
    assert baseline is not None
    assert (baseline.n, baseline.metric, baseline.value) == (100, "accuracy", 0.8)
    assert baseline.standard_error == pytest.approx(0.04, rel=0.02)
    assert learner.update_many([1.0] * 50) == 0
    assert learner.baseline == baseline


def test_a_mean_absolute_error_has_its_standard_error() -> None:
    """For a regression the value is the mean error and its error the sample's deviation over the root of n."""
    learner = BaselineLearner(n_required=4, metric="mae")
    learner.update_many([1.0, 2.0, 3.0, 6.0])
    assert learner.baseline == Baseline(4, "mae", 3.0, math.sqrt((4 + 1 + 0 + 9) / 3 / 4))


def test_a_version_without_an_error_is_not_known_exactly() -> None:
    """No error in 5,000 leaves a standard error above zero, or one single error would be infinitely surprising."""
    learner = BaselineLearner()
    learner.update_many([0.0] * 5000)
    assert learner.baseline is not None
    assert learner.baseline.value == 1.0
    assert learner.baseline.standard_error > 0


@pytest.mark.parametrize(("metric", "scale"), [("accuracy", 1.0), ("mae", 1e6)])
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 40), max_size=8))
def test_batches_and_snapshots_make_no_difference(metric: Metric, scale: float, seed: int, sizes: list[int]) -> None:
    """Cut anywhere, stored and restored in between, the same errors give the same state to the last bit."""
    rng = random.Random(seed)
    errors = [rng.random() * scale for _ in range(sum(sizes))]
    whole, pieces = BaselineLearner(100, metric), BaselineLearner(100, metric)
    whole.update_many(errors)
    start = 0
    for size in sizes:
        pieces.update_many(errors[start : start + size])
        start += size
        restored = BaselineLearner(100, metric)
        restored.restore(pieces.snapshot())
        pieces = restored
    assert pieces.snapshot() == whole.snapshot()
    assert pieces.baseline == whole.baseline


def test_bad_numbers_and_bad_snapshots_touch_nothing() -> None:
    """A learner keeps what it has when it is given what it cannot use."""
    learner = BaselineLearner(10, "mae")
    learner.update_many([1.0, 2.0])
    before = learner.snapshot()
    for bad in (math.nan, math.inf, -1.0, 1e200):
        with pytest.raises(InvalidValue):
            learner.update_many([1.0, bad])
    damaged = bytearray(before)
    damaged[-1] ^= 1
    for sealed in (bytes(damaged), before[:-1], BaselineLearner(10).snapshot()):
        with pytest.raises(SnapshotError):
            learner.restore(sealed)
    assert learner.snapshot() == before


@pytest.mark.parametrize(("n", "value", "error"), [(0, 0.5, 0.1), (1, 1.5, 0.1), (1, -0.1, 0.1), (1, 0.5, math.nan)])
def test_an_impossible_baseline_is_refused(n: int, value: float, error: float) -> None:
    """A baseline comes from a registry as often as from a learner, and is checked where it is made."""
    with pytest.raises(ValueError, match="baseline"):
        Baseline(n, "accuracy", value, error)
