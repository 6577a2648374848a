"""The paired test against scipy, and the verdict that it leads to."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]  # ships no types

from retrain.comparison import adjusted, baseline, compare, hommel, mcnemar, paired_t


@settings(deadline=None)  # a busy machine is no error
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_lies_between_scipys_exact_tests(broken: int, fixed: int) -> None:
    """The mid-p value is the mean of the exact p-values of `at least` and `more than` so many fixed rows."""
    n = broken + fixed
    if n == 0:
        assert mcnemar(0, 0) == 1.0
        return
    at_least = stats.binomtest(fixed, n, 0.5, alternative="greater").pvalue
    more = stats.binomtest(fixed + 1, n, 0.5, alternative="greater").pvalue if fixed < n else 0.0
    assert mcnemar(broken, fixed) == pytest.approx((at_least + more) / 2, rel=1e-6, abs=1e-12)


def test_paired_t_is_scipys_one_sided_test() -> None:
    """The regression's test is of the mean absolute error itself."""
    rng = np.random.default_rng(0)
    champion = np.abs(rng.normal(size=200)) + 0.1
    challenger = np.abs(rng.normal(size=200))
    expected = stats.ttest_rel(champion, challenger, alternative="greater").pvalue
    assert paired_t(champion, challenger) == pytest.approx(expected)


@pytest.mark.parametrize(("difference", "p_value"), [(0.0, 1.0), (0.5, 0.0), (-0.5, 1.0)])
def test_equal_differences_have_a_verdict_too(difference: float, p_value: float) -> None:
    """No variance is no reason for a NaN."""
    assert paired_t(np.ones(10), np.ones(10) - difference) == p_value


def test_a_better_challenger_wins_only_significantly() -> None:
    """Ten more right out of a thousand are chance, a hundred are not."""
    champion = np.zeros(1_000)
    champion[:300] = 1
    slightly, clearly = champion.copy(), champion.copy()
    slightly[:60], slightly[300:350] = 0, 1
    clearly[:200], clearly[300:350] = 0, 1
    assert not compare("accuracy", champion, slightly, 0.05).better
    verdict = compare("accuracy", champion, clearly, 0.05)
    assert verdict.better
    assert (verdict.champion, verdict.challenger, verdict.rows) == (0.7, 0.85, 1_000)
    assert "0.8500 against the champion's 0.7000" in verdict.describe()


def test_a_worse_challenger_never_wins() -> None:
    """The test is one-sided: a significant loss is no win."""
    champion, challenger = np.zeros(100), np.ones(100)
    assert not compare("accuracy", champion, challenger, 0.05).better
    assert not compare("mae", champion, challenger, 0.05).better


def test_baselines_carry_their_standard_error() -> None:
    """Accuracy by the binomial, MAE by the sample."""
    accuracy = baseline("accuracy", np.asarray([0.0] * 90 + [1.0] * 10))
    assert (accuracy.value, accuracy.n) == (0.9, 100)
    assert accuracy.standard_error == pytest.approx(0.03)
    errors = np.arange(10.0)
    mae = baseline("mae", errors)
    assert mae.value == 4.5
    assert mae.standard_error == pytest.approx(stats.sem(errors))


def test_errors_of_different_rows_are_a_mistake() -> None:
    """A paired test needs pairs."""
    with pytest.raises(ValueError, match="same rows"):
        compare("accuracy", np.zeros(3), np.zeros(4), 0.05)


@given(st.lists(st.floats(0.0, 1.0), max_size=7))
def test_hommels_p_values_are_those_of_the_closed_test(p_values: list[float]) -> None:
    """One that may be rejected is rejected with every set that it is in, each by Simes' test."""
    places = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(places, size)]
    simes = {
        chosen: min(len(chosen) * p / rank for rank, p in enumerate(sorted(p_values[i] for i in chosen), 1))
        for chosen in sets
    }
    expected = [max(p for chosen, p in simes.items() if place in chosen) for place in places]
    assert hommel(p_values) == pytest.approx(expected)


def test_challengers_that_agree_cost_each_other_nothing() -> None:
    """One that does not costs the others no more than its share."""
    champion, better = np.repeat([1.0, 0.0], [12, 88]), np.repeat([0.0, 1.0, 0.0], [12, 2, 86])
    one = compare("accuracy", champion, better, 0.05)
    assert [each.p_value for each in adjusted([one, one, one])] == pytest.approx([one.p_value] * 3)
    none = compare("accuracy", champion, champion, 0.05)
    assert adjusted([one, none])[0].p_value == pytest.approx(2 * one.p_value)
