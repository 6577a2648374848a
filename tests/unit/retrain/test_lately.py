"""Whoever does worse on the newest rows does not win."""

from __future__ import annotations

import numpy as np
import pytest

from retrain.comparison import MetricName
from retrain.lately import require_no_worse_lately, stretches
from retrain.training import Refused


def test_stretches_double_up_to_half_of_the_rows() -> None:
    """Below 200 rows there is none: all of them are the newest."""
    assert list(stretches(199)) == []
    assert list(stretches(200)) == [100]
    assert list(stretches(1_599)) == [100, 200, 400]


@pytest.mark.parametrize(("metric", "wrong"), [("accuracy", 1.0), ("mae", 7.5)])
@pytest.mark.parametrize("lately", [80, 200, 390])
def test_a_loss_lately_is_refused_however_long_it_has_lasted(metric: MetricName, wrong: float, lately: int) -> None:
    """Though it was better on all rows together."""
    right, bad = np.zeros((2, 1_000)), np.full((2, 1_000), wrong)
    if metric == "mae":
        right, bad = np.random.default_rng(0).random((2, 2, 1_000))
        bad += wrong
    champion, challenger = bad[0].copy(), right[1].copy()
    champion[-lately:], challenger[-lately:] = right[0, -lately:], bad[1, -lately:]
    with pytest.raises(Refused, match="does worse on the newest"):
        require_no_worse_lately(champion, challenger, metric)
    challenger[-lately:] = champion[-lately:]
    require_no_worse_lately(champion, challenger, metric)


def test_one_that_is_no_worse_is_refused_once_in_a_hundred_times_at_most() -> None:
    """All stretches together."""
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        champion, challenger = (rng.random((2, 1_000)) < 0.2).astype(float)
        try:
            require_no_worse_lately(champion, challenger, "accuracy")
        except Refused:
            refused += 1
    assert refused <= 9, "4 are expected; 10 come once in a hundred times"
