"""How fast an error budget is spent, and which windows must agree on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.baseline import Baseline
from detectors.burn_rate import Burn, ErrorBudget, Pair, burning, pairs
from detectors.tally import Tally
from streams.settings import MonitorSettings

HEALTHY = Baseline(5000, "accuracy", 0.97, 0.002)
PAIRS = pairs(60, MonitorSettings().burn_rates)
A_MINUTE = 100


def windows(rates: Sequence[float], a_minute: int = A_MINUTE) -> Callable[[int], Tally]:
    """Error rates by minute, the newest last; before them the healthy one."""

    def window(minutes: int) -> Tally:
        last = [0.03] * (minutes - len(rates)) + list(rates)[-minutes:]
        wrong = round(sum(rate * a_minute for rate in last))
        return Tally(minutes * a_minute, {("1", "0"): wrong, ("1", "1"): minutes * a_minute - wrong})

    return window


def burn(rates: Sequence[float], a_minute: int = A_MINUTE, baseline: Baseline = HEALTHY) -> Burn:
    found = burning(windows(rates, a_minute), ErrorBudget.of(baseline, 0.90, 0.10), PAIRS, 500)
    assert found is not None
    return found


def test_the_budget_is_what_a_minimum_leaves() -> None:
    """0.90 leaves 10 %; the drop rules where it is tighter, or where the minimum was never achieved."""
    assert ErrorBudget.of(HEALTHY, 0.90, 0.10).allowed == pytest.approx(0.10)
    assert ErrorBudget.of(HEALTHY, 0.90, 0.05) == ErrorBudget("baseline", "accuracy", 1 - 0.97, 1 - 0.97 + 0.05)
    weak = ErrorBudget.of(Baseline(5000, "accuracy", 0.80, 0.01), 0.90, 0.05)
    assert weak.rule == "baseline"
    assert weak.allowed == pytest.approx(0.25)
    assert ErrorBudget.of(Baseline(5000, "mae", 4.0, 0.1), 0.90, 0.05).allowed == 5.0


def test_what_few_rows_tell_is_not_known_to_the_point() -> None:
    """A drop within three standard errors of the baseline is none."""
    of_few, of_many = (Baseline(n, "accuracy", 0.80, (0.16 / n) ** 0.5) for n in (100, 1_000))
    assert ErrorBudget.of(of_few, 0.90, 0.05).allowed == pytest.approx(0.20 + 3 * 0.04)
    assert ErrorBudget.of(of_many, 0.90, 0.05).allowed == pytest.approx(0.25)
    assert ErrorBudget.of(Baseline(100, "mae", 4.0, 0.5), 0.90, 0.05).allowed == 5.5


@pytest.mark.parametrize(("error", "minutes"), [(1.0, 2), (0.53, 3), (0.3, 4), (0.25, 5)])
def test_a_collapse_burns_in_the_fast_pair_within_minutes(error: float, minutes: int) -> None:
    """The sooner the worse it is, and without being held."""
    told = [after for after in range(1, 10) if burn([error] * after).burns]
    assert told[0] == minutes
    first = burn([error] * minutes)
    assert (first.pair, first.pair.at_once) == (Pair(1, 5, 2.4), True)


@pytest.mark.parametrize("dip", [[1.0], [0.5, 0.5], [0.3, 0.3, 0.3]])
def test_a_short_dip_burns_no_pair(dip: list[float]) -> None:
    """A minute in which everything is wrong, or two in which half of it is, spend less than a pair allows."""
    for healthy in range(30):
        assert not burn([*dip, *[0.03] * healthy]).burns


def test_what_is_over_does_not_burn() -> None:
    """The long window still holds the errors, the short one does not: the alert heals, and soon."""
    during = [0.4] * 20
    assert burn(during).burns
    assert burn([*during, *[0.03] * 4]).burns
    assert windows([*during, *[0.03] * 5])(60).errors > 60 * A_MINUTE * 0.10
    assert burn([*during, *[0.03] * 5]).cleared


def test_a_slow_burn_is_seen_by_the_window_alone_and_must_be_held() -> None:
    """A little more than allowed for an hour: no fast pair speaks."""
    slow = burn([0.11] * 60)
    assert (slow.burns, slow.pair) == (True, Pair(5, 60, 1.0, at_once=False))
    assert not burn([0.099] * 60).burns


def test_between_the_limit_and_what_is_healthy_nothing_fires_and_nothing_heals() -> None:
    """Hysteresis: half-way back from the budget to the baseline is needed."""
    states = {rate: (found.burns, found.cleared) for rate in (0.12, 0.08, 0.05) for found in [burn([rate] * 60)]}
    assert states == {0.12: (True, False), 0.08: (False, False), 0.05: (False, True)}


def test_few_errors_move_no_fast_pair() -> None:
    """Two outcomes a minute: half of ten wrong is chance; the window needs its outcomes."""
    budget = ErrorBudget.of(HEALTHY, 0.90, 0.10)
    assert burning(windows([0.5] * 5, a_minute=2), budget, PAIRS, 500) is None
    found = burning(windows([0.5] * 15, a_minute=4), budget, PAIRS, 500)
    assert found is not None
    assert found.pair.long_minutes == 15


def test_a_short_window_with_too_few_outcomes_leaves_it_to_the_long_one() -> None:
    """Outcomes that come in batches: silence since the last one is no good news, and no bad news."""
    batch = Tally(1000, {("1", "0"): 150, ("1", "1"): 850})
    found = burning(lambda minutes: batch if minutes == 60 else Tally(0), ErrorBudget.of(HEALTHY, 0.9, 0.1), PAIRS, 500)
    assert found is not None
    assert found.burns


def test_a_rate_that_no_model_can_reach_is_brought_into_reach() -> None:
    """2.4 times a budget of 50 % is more than always wrong: half-way to that is asked for."""
    guess = Baseline(5000, "accuracy", 0.55, 0.01)
    budget = ErrorBudget.of(guess, 0.90, 0.05)
    assert budget.limit(2.4) == pytest.approx(0.75)
    found = burning(windows([1.0] * 5), budget, PAIRS, 500)
    assert found is not None
    assert found.pair.rate == 2.4


def test_a_version_that_may_not_err_has_no_rate_and_still_burns() -> None:
    """A minimum of 1: every error is too many."""
    budget = ErrorBudget.of(Baseline(5000, "accuracy", 1.0, 0.0), 1.0, 0.05)
    assert burning(windows([0.0] * 60), budget, PAIRS, 500) is not None
    found = burning(windows([0.01] * 60), budget, PAIRS, 500)
    assert found is not None
    assert (found.burns, budget.rate(found.error)) == (True, 0.0)


def test_pairs_as_long_as_the_window_are_left_out() -> None:
    """They would page at the rate of the window, at once."""
    assert pairs(5, [(1, 5, 2.4), (3, 15, 1.6)]) == [Pair(1, 5, 1.0, at_once=False)]
    assert [each.long_minutes for each in pairs(60, [(3, 15, 1.6), (1, 5, 2.4)])] == [5, 15, 60]
    for wrong in ((0, 5, 2.0), (6, 5, 2.0), (1, 5, 0.5)):
        with pytest.raises(ValueError, match=r"window|rate"):
            Pair(*wrong)


@given(
    value=st.floats(0, 1),
    minimum=st.floats(0, 1),
    drop=st.floats(0.01, 1),
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    a_minute=st.integers(1, 1000),
)
def test_nothing_burns_and_heals_at_once(
    value: float, minimum: float, drop: float, rates: list[float], a_minute: int
) -> None:
    """For any baseline, minimum and history; and a version as good as its baseline always heals."""
    budget = ErrorBudget.of(Baseline(5000, "accuracy", value, 0.0), minimum, drop)
    found = burning(windows(rates, a_minute), budget, PAIRS, 1)
    assert found is not None
    assert not (found.burns and found.cleared)
    assert budget.clear >= budget.healthy
