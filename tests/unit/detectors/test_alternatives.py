"""The bets of the e-detector: fair for everything acceptable, winning on everything worse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.alternatives import LEAST_KEPT, WEIGHTS, bets


@given(
    level=st.floats(1e-5, 0.94),
    dispersion=st.floats(1, 50),
    values=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    chances=st.lists(st.floats(0.01, 1), min_size=8, max_size=8),
)
def test_no_bet_gains_on_acceptable_errors(
    level: float, dispersion: float, values: list[float], chances: list[float]
) -> None:
    """Whatever the distribution on 0..1, if its mean is at most the level, wealth does not grow on average."""
    x, chance = np.array(values), np.array(chances[: len(values)])
    chance /= chance.sum()
    mean = float(x @ chance)
    if mean > level:  # brought down to the level by mixing with right answers
        chance, x = np.append(chance * level / mean, 1.0 - level / mean), np.append(x, 0.0)
    made = bets(level, dispersion)
    gain = made.right[:, None] + made.slope[:, None] * x
    assert (gain > 0.0).all()
    assert (gain @ chance <= 1.0 + 1e-9).all()


@given(level=st.floats(1e-5, 0.94), dispersion=st.floats(1, 50))
def test_wealth_stays_within_floats(level: float, dispersion: float) -> None:
    """500 right answers leave more than the smallest float, and a wrong one never costs."""
    made = bets(level, dispersion)
    assert (made.right >= LEAST_KEPT ** (1.0 / dispersion) * (1 - 1e-9)).all()
    assert (made.right <= 1.0).all()
    assert (made.slope > 0.0).all()


@pytest.mark.parametrize("level", [0.005, 0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("worse", [2.0, 4.0, 1e9])
def test_something_wins_on_each_worse_rate(level: float, worse: float) -> None:
    """For a rate twice, four times or many times as high, one bet grows at over half the best rate."""
    rate = min(level * worse, 0.7 + 0.3 * level)
    made = bets(level)
    growth = rate * np.log(made.right + made.slope) + (1 - rate) * np.log(made.right)
    best = rate * np.log(rate / level) + (1 - rate) * np.log((1 - rate) / (1 - level))
    assert growth.max() > 0.5 * best


def test_the_shares_are_a_mixture() -> None:
    """They add up to one unit of wealth, as the proof of the run length needs."""
    assert WEIGHTS.sum() == pytest.approx(1.0, abs=1e-15)
    assert (WEIGHTS > 0.0).all()
