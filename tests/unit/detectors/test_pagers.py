"""Detectors that page: their thresholds are the budget's, and follow the rate of outcomes."""

import numpy as np
import pytest

from detectors.budget import WEEK_S
from detectors.names import CALIBRATED, NAMES
from detectors.pagers import Pagers
from detectors.reference import Reference
from detectors.registry import DETECTORS
from detectors.scaling import Scaling

REFERENCE = Reference.of_rate(20_000, 0.1)


def bernoulli(rate: float, n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < rate).astype(np.float64)


def test_the_names_are_those_of_the_registry() -> None:
    """Settings know them without importing River."""
    assert set(NAMES) == set(DETECTORS)
    for name in CALIBRATED:
        Pagers([name], 1.0, REFERENCE, None, 10.0)


def test_the_budget_is_shared_and_becomes_run_lengths() -> None:
    """Two detectors get half each; the e-detector's threshold is its run length."""
    pagers = Pagers(["e_detector", "adwin"], 0.5, REFERENCE, None, 10.0)
    assert [each.false_alarms_a_week for each in pagers.allotted] == [0.25, 0.25]
    assert [each.run_length for each in pagers.allotted] == [10 * WEEK_S / 0.25] * 2
    found = pagers.update_many(np.concatenate((bernoulli(0.1, 3_000), bernoulli(0.6, 400))))
    assert {page.detection.detector for page in found} == {"e_detector", "adwin"}
    (page,) = [page for page in found if page.detection.detector == "e_detector"]
    assert page.detection.threshold == page.allotted.run_length


def test_another_rate_moves_the_threshold_and_keeps_the_statistic() -> None:
    """What was seen before the recalibration counts: the alarm comes where the old sum meets the new threshold."""
    before, after = bernoulli(0.1, 2_300), bernoulli(0.35, 300, 2)

    def first(rates: tuple[float, float]) -> int:
        pagers = Pagers(["e_detector"], 0.25, REFERENCE, None, rates[0])
        assert pagers.update_many(np.concatenate((before, after[:20]))) == []
        if rates[1] != rates[0]:
            pagers.recalibrate(rates[1])
        return pagers.update_many(after[20:])[0].detection.index

    busy, idle, moved = first((1_000.0, 1_000.0)), first((0.1, 0.1)), first((1_000.0, 0.1))
    assert moved == pytest.approx(idle, abs=3)
    assert busy > idle + 10


def test_a_restored_one_goes_on_as_before() -> None:
    """All detectors are found again by their structure."""
    errors = np.concatenate((bernoulli(0.1, 3_000), bernoulli(0.3, 1_000)))
    whole = Pagers(CALIBRATED, 1.0, REFERENCE, None, 3.0)
    expected = whole.update_many(errors)
    half = Pagers(CALIBRATED, 1.0, REFERENCE, None, 3.0)
    assert half.update_many(errors[:2_900]) == []
    again = Pagers(CALIBRATED, 1.0, REFERENCE, None, 3.0)
    again.restore(half.snapshot())
    found = again.update_many(errors[2_900:])
    assert [(each.detection.detector, each.detection.index + 2_900) for each in found] == [
        (each.detection.detector, each.detection.index) for each in expected
    ]
    assert again.snapshot() == whole.snapshot()


def test_scaled_errors_are_watched_in_their_own_unit() -> None:
    """A regression's acceptable level, and what a detection says, are in the target's unit."""
    rng = np.random.default_rng(4)
    pagers = Pagers(["e_detector"], 1.0, Reference.of_rate(5_000, 0.25), Scaling.from_baseline(100.0), 1.0)
    level = pagers.level
    assert level is not None
    assert 100.0 < level < 115.0
    assert pagers.update_many(rng.exponential(100.0, 5_000)) == []
    (page,) = pagers.update_many(rng.exponential(200.0, 500))
    assert page.detection.before == pytest.approx(100.0, rel=0.1)
    assert page.detection.after == pytest.approx(180.0, rel=0.2)
