"""The e-detector: its guarantee, and what it does beyond the contract that all detectors share."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.alternatives import WEIGHTS, bets
from detectors.e_detector import EDetector
from detectors.reference import WINDOW, Reference
from detectors.snapshot import SnapshotError

CERTAIN = Reference.of_rate(10**9, 0.1)
"""A reference that leaves nothing to learn: the level is .1."""


def bernoulli(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    return (rng.random(n) < rate).astype(np.float64)


def sticky(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    """Fractions of conditional mean `rate` at most, that depend on the past: small after large ones."""
    values = rng.beta(2 * rate, 2 * (1 - rate), n)
    values[1:][values[:-1] > 0.5] *= 0.5
    return values


def test_it_is_the_sum_that_its_paper_defines() -> None:
    """Against the recursion R ← (1 + R) · bet written out error by error: the same alarm, statistic and state."""
    errors = np.concatenate(
        (bernoulli(np.random.default_rng(1), 0.1, 1700), bernoulli(np.random.default_rng(2), 0.2, 900))
    )
    made = bets(EDetector(margin=0.0, reference=CERTAIN).level or 0.0)
    wealth = np.zeros(len(WEIGHTS))
    statistics = []
    for x in errors:
        wealth = (1.0 + wealth) * (made.right + made.slope * x)
        statistics.append(float(WEIGHTS @ wealth))
    first = int(np.argmax(np.array(statistics) >= 1e5))
    found = EDetector(threshold=1e5, margin=0.0, reference=CERTAIN).update_many(errors)
    assert found[0].index == first > 1700
    assert found[0].statistic == pytest.approx(statistics[first], rel=1e-3)  # the level follows the stream by a hair

    quiet = EDetector(margin=0.0, reference=CERTAIN)
    quiet.update_many(errors[:1650])
    assert quiet.statistic == pytest.approx(statistics[1649], rel=1e-3)


@pytest.mark.parametrize("errors_of", [bernoulli, sticky, lambda rng, rate, n: np.full(n, rate)])
@pytest.mark.parametrize("threshold", [200.0, 2000.0])
def test_the_expected_run_length_is_at_least_the_threshold(
    errors_of: Callable[[np.random.Generator, float, int], np.ndarray], threshold: float
) -> None:
    """At the level itself, the worst that is acceptable: for Bernoulli errors, dependent fractions, and a constant."""
    runs = []
    horizon = 20 * int(threshold)
    for seed in range(300):
        detector = EDetector(threshold=threshold, margin=0.0, wander=0.0, reference=CERTAIN)
        found = detector.update_many(errors_of(np.random.default_rng(seed), 0.1, horizon))
        runs.append(found[0].index + 1 if found else horizon)
    mean, error = np.mean(runs), np.std(runs) / np.sqrt(len(runs))
    assert mean - 2.0 * error >= threshold
    if errors_of is bernoulli:
        assert mean < 3.0 * threshold, "a bound that is far from tight would cost delay"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    pieces=st.lists(st.integers(1, 1500), min_size=1, max_size=30),
    fractions=st.booleans(),
    at=st.integers(0, 29),
)
def test_batches_and_restarts_make_no_difference_over_many_windows(
    seed: int, rates: list[float], pieces: list[int], fractions: bool, at: int
) -> None:
    """Thousands of errors in pieces, restored from a snapshot between two, end bit for bit as in one batch."""
    rng = np.random.default_rng(seed)
    errors = np.concatenate([bernoulli(rng, rate, 1500) for rate in rates])
    if fractions:
        errors = errors * rng.random(len(errors))
    whole = EDetector(threshold=1e3, reference_outcomes=500)
    expected = [
        (each.index, each.statistic, each.before, each.after, each.window) for each in whole.update_many(errors)
    ]
    detector = EDetector(threshold=1e3, reference_outcomes=500)
    found, start = [], 0
    for number, size in enumerate([*pieces, len(errors)]):
        batch = errors[start : start + size]
        found += [
            (start + each.index, each.statistic, each.before, each.after, each.window)
            for each in detector.update_many(batch)
        ]
        start += len(batch)
        if number == at:
            sealed = detector.snapshot()
            detector = EDetector(threshold=1e3, reference_outcomes=500)
            detector.restore(sealed)
    assert found == expected
    assert detector.snapshot() == whole.snapshot()


def test_nothing_is_detected_while_the_reference_is_learnt() -> None:
    """The first errors are the reference, whatever they are; what follows is judged by them."""
    rng = np.random.default_rng(3)
    detector = EDetector(reference_outcomes=2000)
    assert detector.level is None
    assert detector.update_many(bernoulli(rng, 0.3, 2000)) == []
    assert detector.level is not None
    assert 0.27 < detector.level < 0.35
    assert detector.update_many(bernoulli(rng, 0.3, 2000)) == []
    assert detector.update_many(bernoulli(rng, 0.6, 200))


def test_a_reference_is_whole_windows() -> None:
    """Asked for 501 errors, it learns from 1,000."""
    detector = EDetector(reference_outcomes=501)
    detector.update_many(np.zeros(999))
    assert detector.level is None
    detector.update_many([0.0])
    assert detector.level is not None


def test_a_drift_is_reported_once_and_a_worse_one_again() -> None:
    """The level becomes what was reported; only a rise above that is news."""
    rng = np.random.default_rng(4)
    detector = EDetector(threshold=1e6, reference=Reference.of_rate(5000, 0.1))
    assert detector.update_many(bernoulli(rng, 0.1, 5000)) == []
    first = detector.update_many(bernoulli(rng, 0.25, 40_000))
    assert len(first) == 1
    assert first[0].before == pytest.approx(0.1, abs=0.02)
    assert first[0].after == pytest.approx(0.25, abs=0.1)
    second = detector.update_many(bernoulli(rng, 0.45, 20_000))
    assert len(second) == 1
    assert second[0].before == pytest.approx(0.25, abs=0.03)
    assert second[0].after == pytest.approx(0.45, abs=0.1)


@pytest.mark.parametrize("lasting", [3_000, 15_000])
def test_after_a_drift_is_over_the_next_is_found_as_soon(lasting: int) -> None:
    """Mended soon or late, neither the drift nor its end has moved the level by much."""
    rng = np.random.default_rng(5)
    detector = EDetector(reference=Reference.of_rate(5000, 0.1))
    for _ in range(3):
        assert detector.update_many(bernoulli(rng, 0.1, 8000)) == []
        found = detector.update_many(bernoulli(rng, 0.3, lasting))
        assert len(found) == 1
        assert found[0].index < 200
        assert abs(found[0].index - found[0].window + 1) < 100


def test_a_model_that_begins_worse_than_its_reference_is_found() -> None:
    """There is no change in what was seen: the detection says that all of it is after one."""
    detector = EDetector(reference=Reference.of_rate(5000, 0.1))
    found = detector.update_many(bernoulli(np.random.default_rng(6), 0.4, 500))
    assert len(found) == 1
    assert found[0].window == found[0].index + 1
    assert found[0].before == pytest.approx(0.1, abs=0.001)
    assert found[0].after > 0.3


def test_the_very_first_error_may_be_one_too_many() -> None:
    """A model that never errs in a million is wrong twice at once: the statistic and the evidence are finite."""
    detector = EDetector(threshold=1000.0, reference=Reference.of_rate(10**6, 0.0))
    found = detector.update_many([1.0, 1.0, 1.0])
    assert found[0].index == 0
    assert found[0].window == 1
    assert np.isfinite(found[0].statistic)


@pytest.mark.parametrize("errors", [np.zeros(30_000), np.ones(30_000), np.tile([0.0, 1.0], 15_000)])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.5, 1.0])
def test_extreme_streams_keep_every_number_finite(errors: np.ndarray, rate: float) -> None:
    """Nothing under- or overflows into a state that is blind, or alarms for ever."""
    detector = EDetector(reference=Reference.of_rate(10**6, rate))
    found = detector.update_many(errors)
    assert len(found) <= 3
    assert np.isfinite(detector.statistic)
    assert detector.level is not None
    assert 0.0 < detector.level < 1.0


def test_a_swinging_rate_is_not_a_drift() -> None:
    """A rate that swings by 30 % over 10,000 errors, as the reference did, is acceptable; twice the rate is not."""
    rng = np.random.default_rng(7)
    swing = 0.1 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(210_000) / 10_000))
    errors = (rng.random(len(swing)) < swing).astype(np.float64)
    detector = EDetector(reference=Reference.of_errors(errors[:10_000]))
    assert detector.update_many(errors[10_000:]) == []
    assert detector.update_many(bernoulli(rng, 0.25, 1500))
    blind_to_it = EDetector(wander=0.0, reference=Reference.of_errors(errors[:10_000]))
    assert len(blind_to_it.update_many(errors[10_000:])) > 5


def test_a_snapshot_carries_the_reference() -> None:
    """A detector made without one goes on with that of the snapshot."""
    original = EDetector(reference=Reference.of_rate(5000, 0.1))
    original.update_many(np.zeros(3 * WINDOW + 7))
    restored = EDetector()
    restored.restore(original.snapshot())
    assert restored.level == original.level
    assert restored.snapshot() == original.snapshot()


def swinging(rng: np.random.Generator, rate: float, n: int, size: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Errors whose rate swings over 10,000, and the factor of each, which holds for 400."""
    factors = np.repeat(1 + size * np.sin(2 * np.pi * np.arange(25) / 25), 400)
    factors = np.tile(factors, n // 10_000 + 1)[:n]
    return (rng.random(n) < rate * factors).astype(np.float64), factors


def foretold(detector: EDetector, errors: np.ndarray, factors: np.ndarray) -> list[int]:
    """Feed them hour by hour, each with its factor."""
    found = []
    for start in range(0, len(errors), 400):
        detector.expect(float(factors[start]))
        found += [start + each.index for each in detector.update_many(errors[start : start + 400])]
    return found


def test_the_expected_run_length_holds_for_a_level_that_was_foretold() -> None:
    """At each hour's own level, which swings by 60 %: it depends on nothing but the past."""
    runs = []
    for seed in range(150):
        detector = EDetector(threshold=2000.0, margin=0.0, wander=0.0, reference=CERTAIN, known=CERTAIN)
        found = foretold(detector, *swinging(np.random.default_rng(seed), 0.1, 40_000))
        runs.append(found[0] + 1 if found else 40_000)
    mean, error = np.mean(runs), np.std(runs) / np.sqrt(len(runs))
    assert mean - 2.0 * error >= 2000.0
    assert mean < 3.0 * 2000.0


def test_what_is_foretold_is_no_drift_and_what_is_more_than_that_is_one() -> None:
    """A swing of 60 % is quiet with its factors and not without; errors double at the best hour or the worst."""
    reference = Reference.of_rate(50_000, 0.1)
    for seed in range(5):
        errors, factors = swinging(np.random.default_rng(seed), 0.1, 30_000)
        assert foretold(EDetector(reference=reference, known=reference), errors, factors) == []
        assert EDetector(reference=reference).update_many(errors)
        for begin in (12_400, 17_200):
            drift = errors.copy()
            drift[begin:] = np.random.default_rng([seed, begin]).random(len(drift) - begin) < 0.2 * factors[begin:]
            found = foretold(EDetector(reference=reference, known=reference), drift, factors)
            assert begin < found[0] < begin + 900
            detection = EDetector(reference=reference, known=reference)
            foretold(detection, drift[:begin], factors)
            assert not detection.drifted
            foretold(detection, drift[begin : begin + 1200], factors[begin:])
            assert detection.drifted


def test_a_detection_is_of_errors_as_they_are_in_an_average_hour() -> None:
    """In an hour with 60 % more errors than usual, three in ten are .19 of an average hour."""
    detector = EDetector(reference=Reference.of_rate(50_000, 0.1), known=Reference.of_rate(10_000, 0.1))
    rng = np.random.default_rng(1)
    detector.expect(0.5)
    assert detector.update_many(bernoulli(rng, 0.05, 3_000)) == []
    detector.expect(1.6)
    assert detector.update_many(bernoulli(rng, 0.16, 3_000)) == []
    [found] = detector.update_many(bernoulli(rng, 0.4, 400))
    assert found.before == pytest.approx(0.1, abs=0.02)
    assert found.after == pytest.approx(0.25, abs=0.08)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.floats(0, 1),
    factors=st.lists(st.floats(0.2, 4.0), min_size=1, max_size=8),
    pieces=st.lists(st.integers(1, 900), min_size=1, max_size=20),
)
def test_factors_change_at_the_same_errors_in_any_batches(
    seed: int, rate: float, factors: list[float], pieces: list[int]
) -> None:
    """Whatever is expected, in pieces and over restarts it ends bit for bit alike, with finite numbers."""
    rng = np.random.default_rng(seed)
    known = Reference.of_rate(5000, rate)

    def made() -> EDetector:
        return EDetector(threshold=1e3, reference=known, known=known)

    whole, parts = made(), made()
    expected, found, sizes = [], [], iter(pieces * 20_000)
    for number, factor in enumerate(factors):
        errors = bernoulli(rng, rate, 900)
        whole.expect(factor)
        expected += [(number, each.index, each.statistic, each.after) for each in whole.update_many(errors)]
        start = 0
        while start < len(errors):
            parts.expect(factor)
            size = next(sizes)
            found += [
                (number, start + each.index, each.statistic, each.after)
                for each in parts.update_many(errors[start : start + size])
            ]
            start += size
            if rng.random() < 0.1:
                sealed = parts.snapshot()
                parts = made()
                parts.restore(sealed)
    assert found == expected
    assert parts.snapshot() == whole.snapshot()
    assert all(0.0 <= each[3] <= 1.0 and np.isfinite(each[2]) for each in found)


def test_what_an_hour_is_unsure_of_is_a_margin() -> None:
    """As much above the factor as the margin has standard deviations; errors are divided by the factor alone."""
    known = Reference.of_rate(10**9, 0.1)
    errors = bernoulli(np.random.default_rng(1), 0.1, 2_000)
    unsure, wider = (EDetector(reference=known, known=known, margin=0.5) for _ in range(2))
    unsure.expect(1.2, 0.4)
    wider.expect(1.4)
    for each in (unsure, wider):
        each.update_many(errors)
    assert unsure.statistic == pytest.approx(wider.statistic, rel=0.05)
    sure = EDetector(reference=known, known=known, margin=0.5)
    sure.expect(1.2)
    sure.update_many(errors)
    assert sure.statistic > 1.5 * unsure.statistic
    assert sure.level == pytest.approx(unsure.level)


def test_a_state_by_the_hour_is_none_of_a_detector_that_knows_no_hours() -> None:
    """Its level is another's; and what is known needs a reference to be known beside."""
    reference = Reference.of_rate(5000, 0.1)
    hourly = EDetector(reference=reference, known=reference, by_hour=True)
    with pytest.raises(SnapshotError):
        EDetector(reference=reference).restore(hourly.snapshot())
    with pytest.raises(ValueError, match="give the reference too"):
        EDetector(known=reference)
