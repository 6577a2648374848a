"""How long outcomes take."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.label_delay import LEAST_OUTCOMES, bucket, longest, quantile, slowest, together


@given(st.integers(-10, 10**7))
def test_a_bucket_holds_a_delay_and_little_more(minutes: int) -> None:
    """At most a quarter, and whole minutes up to 7 are told exactly."""
    most = longest(bucket(minutes))
    assert max(0, minutes) <= most <= max(0, minutes) * 1.25 + 1
    assert minutes < 0 or minutes > 7 or most == minutes


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_no_shorter_than_the_delay_of_so_many(delays: list[int], share: float) -> None:
    """And at most a quarter longer."""
    counts = together({bucket(each): 1} for each in delays)
    exact = int(np.quantile(delays, share, method="inverted_cdf"))
    found = quantile(counts, share)
    assert found is not None
    assert exact <= found <= exact * 1.25 + 1


def test_the_slowest_class_says_when_a_cohort_is_mature() -> None:
    """Fast negatives do not make a cohort mature whose positives are still being looked at."""
    fast, slow = {bucket(1): 10 * LEAST_OUTCOMES}, {bucket(3_000): LEAST_OUTCOMES}
    assert slowest({"0": fast}) == ("0", 1)
    found = slowest({"0": fast, "1": slow})
    assert found is not None
    assert found[0] == "1"
    assert 3_000 <= found[1] <= 3_750
    assert slowest({"0": fast, "1": {bucket(3_000): LEAST_OUTCOMES - 1}}) == ("0", 1)
    assert slowest({}) is None
