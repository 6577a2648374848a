"""The newest rows speak for a rival of the champion, and against one."""

from __future__ import annotations

import numpy as np
import pytest

from retrain.comparison import MetricName
from retrain.lately import judged, require_no_worse_lately, stretches, telling
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


def test_a_gain_lately_wins_though_all_rows_speak_against_it() -> None:
    """The stretch that tells most is what the comparison is of."""
    rng = np.random.default_rng(1)
    champion, rival = (rng.random((2, 6_000)) < np.array([[0.2], [0.3]])).astype(float)
    champion[-900:], rival[-900:] = (rng.random((2, 900)) < np.array([[0.4], [0.2]])).astype(float)
    (found,) = judged(champion, [rival], "accuracy", 0.05, 0.0)
    assert found.better
    assert found.rows == 800
    assert not judged(champion[:-900], [rival[:-900]], "accuracy", 0.05, 0.0)[0].better


def test_all_rows_are_compared_where_they_tell_most() -> None:
    """A rival that is a little better all the time."""
    rng = np.random.default_rng(2)
    champion, rival = (rng.random((2, 6_000)) < np.array([[0.25], [0.21]])).astype(float)
    (found,) = judged(champion, [rival], "accuracy", 0.05, 0.0)
    assert (found.better, found.rows) == (True, 6_000)


@pytest.mark.parametrize("related", [0.0, 0.8])
def test_rivals_that_are_no_better_win_no_more_often_than_the_significance_says(related: float) -> None:
    """Five of them, on six stretches each, however much alike they are."""
    rng, won, trials = np.random.default_rng(3), 0, 400
    for _ in range(trials):
        champion, common = (rng.random((2, 3_200)) < 0.2).astype(float)
        own = (rng.random((5, 3_200)) < 0.2).astype(float)
        rivals = np.where(rng.random((5, 3_200)) < related, common, own)
        won += any(each.better for each in judged(champion, list(rivals), "accuracy", 0.05, 0.0))
    assert won <= 29, "20 are expected at most; 30 come twice in a hundred times"


def test_a_stretch_does_not_flatter_whoever_was_chosen_by_it() -> None:
    """All rows tell what it achieves, unless the stretch is of another concept."""
    errors = (np.random.default_rng(4).random(600) < 0.3).astype(float)
    errors[-100:] = np.arange(100) % 5 == 0
    assert telling(errors, 100) is errors
    assert telling(errors, 600) is errors
    errors[:-100] = np.arange(500) % 2
    assert len(telling(errors, 100)) == 100
    errors[-100:] = 0.0
    errors[:-100] = 1.0
    assert len(telling(errors, 100)) == 100, "no spread at all"
