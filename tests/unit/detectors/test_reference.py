"""The reference of a model's errors: rate, dispersion and wander."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.reference import FINE, WINDOW, Reference, Spread


def bernoulli(rates: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(rates)) < rates).astype(np.float64)


def spread_of(rates: np.ndarray, seed: int) -> Spread:
    return Reference.of_errors(bernoulli(rates, seed)).spread


@pytest.mark.parametrize("rate", [0.002, 0.1, 0.5, 0.98])
def test_independent_errors_neither_disperse_nor_wander(rate: float) -> None:
    """Of 400 references of 5,000 independent errors, at most one in ten shows anything but chance."""
    spreads = [spread_of(np.full(5000, rate), seed) for seed in range(400)]
    plain = [each for each in spreads if each.dispersion == 1.0 and each.wander == 0.0]
    assert len(plain) >= 360
    exact = np.sqrt(rate * (1 - rate) / 5000)
    assert np.median([each.standard_error for each in plain]) == pytest.approx(exact, rel=0.1)


def test_short_stretches_are_dispersion() -> None:
    """Rates that change every 50 errors multiply the variance of sums; the rate over 500 hardly moves."""
    rates = np.repeat(np.random.default_rng(1).beta(2.0, 18.0, 2000), 50)
    spread = spread_of(rates, 2)
    # Between stretches the rate has a variance of ab/((a+b)²(a+b+1)): 1 + 49 · that / (p(1 − p)) is 3.33.
    assert spread.dispersion == pytest.approx(3.33, rel=0.25)
    assert spread.wander < 0.01
    assert spread.standard_error > 1.5 * np.sqrt(0.09 / 100_000)


def test_long_stretches_are_wander() -> None:
    """A rate that swings over 10,000 errors wanders by its standard deviation and disperses nothing."""
    rates = 0.1 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(100_000) / 10_000))
    spread = spread_of(rates, 3)
    assert spread.wander == pytest.approx(0.1 * 0.3 / np.sqrt(2), rel=0.2)
    assert spread.dispersion < 1.1


def test_a_rate_alone_is_a_reference() -> None:
    """What a catalog knows gives the same words; a standard error beyond that of chance tells of dispersion."""
    plain = Reference.of_rate(5000, 0.1).spread
    assert plain.rate == pytest.approx(0.1, abs=1e-4)
    assert (plain.dispersion, plain.wander) == (1.0, 0.0)
    assert plain.standard_error == pytest.approx(np.sqrt(0.09 / 5000), rel=1e-3)
    moved = Reference.of_rate(5000, 0.1, standard_error=3 * np.sqrt(0.09 / 5000)).spread
    assert moved.dispersion > 4.0
    assert moved.standard_error > 2 * plain.standard_error
    assert Reference.of_rate(5000, 0.1, standard_error=0.0).spread == plain


@given(errors=st.lists(st.floats(0, 1), min_size=0, max_size=1300))
def test_window_by_window_is_the_same(errors: list[float]) -> None:
    """Adding windows one by one gives the sums of the whole."""
    values = np.array(errors, dtype=np.float64)
    one_by_one = Reference(0.0, 0.0, 0.0, 0.0)
    for start in range(0, len(values) // WINDOW * WINDOW, WINDOW):
        window = values[start : start + WINDOW]
        parts = window.reshape(-1, FINE).sum(axis=1)
        one_by_one = one_by_one.plus(float(window.sum()), float((parts**2).sum()))
    whole = Reference.of_errors(values)
    assert one_by_one.windows == whole.windows
    assert one_by_one.total == pytest.approx(whole.total)
    assert one_by_one.squares == pytest.approx(whole.squares)
    assert one_by_one.fine_squares == pytest.approx(whole.fine_squares)


@pytest.mark.parametrize("errors", [np.zeros(5000), np.ones(5000)])
def test_a_rate_is_never_certain(errors: np.ndarray) -> None:
    """No error at all, or nothing but errors, still leaves a rate inside 0..1, and finite numbers."""
    spread = Reference.of_errors(errors).spread
    assert 0.0 < spread.rate < 1.0
    assert 0.0 < spread.standard_error < 0.01
    assert np.isfinite([spread.dispersion, spread.wander]).all()


@pytest.mark.parametrize(("n", "rate"), [(10, 0.1), (5000, 1.1), (5000, -0.1)])
def test_an_impossible_rate_is_refused(n: int, rate: float) -> None:
    """What no errors could have given is not taken for a reference."""
    with pytest.raises(ValueError, match=r"reference|rate"):
        Reference.of_rate(n, rate)


@pytest.mark.parametrize(("windows", "total"), [(1.0, 501.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_impossible_sums_are_refused(windows: float, total: float) -> None:
    """More errors than there were outcomes, or no number at all."""
    with pytest.raises(ValueError, match="reference"):
        Reference(windows, total, 0.0, 0.0)
