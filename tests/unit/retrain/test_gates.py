"""Gates beside the comparison: size, latency, and how each group of rows is treated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrain.contest import contest
from retrain.dataset import Problem
from retrain.gates import groups_of, require_cheap, require_fair
from retrain.run import challenge
from retrain.training import Refused
from serving.manifest import Feature
from tests.unit.retrain.loop import SETTINGS
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features
from tests.unit.retrain.test_contest import champion, mixed
from tests.unit.retrain.test_run import PROBLEMS

REGIONS = Problem("loans", "binary", (Feature("region", "categorical", ["north", "south"]), Feature("age")), (0, 1), 1)
NUMBERS = Problem("loans", "regression", REGIONS.features, ())
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def halves(north: float, south: float) -> tuple[Any, Numbers]:
    """100 rows of each region, and a number for each of them."""
    rows = np.zeros((200, 2), dtype=np.float32)
    rows[100:, 0] = 1
    return rows, np.repeat([north, south], 100)


def judged(challenger: Numbers, target: Numbers, champion: Numbers, problem: Problem = REGIONS, **limits: Any) -> None:
    """Both gates of groups."""
    rows, _ = halves(0, 0)
    settings = SETTINGS.model_copy(update=limits)
    require_fair(groups_of(rows, target, champion, challenger, problem, ["region"]), problem, settings)


def test_a_group_that_loses_more_than_allowed_stops_a_challenger() -> None:
    """Better on the whole: right on all of the south, and wrong on a tenth of the north, where nothing was wrong."""
    target = np.tile([0.0, 1.0], 100)
    old, new = target.copy(), target.copy()
    old[100:150] = 1 - old[100:150]
    new[:10] = 1 - new[:10]
    judged(new, target, old, group_loss=0.1)
    with pytest.raises(Refused, match=r"region = north loses 0\.100 on 100 rows, at most 0\.05 is allowed"):
        judged(new, target, old, group_loss=0.05)


def test_groups_that_are_selected_too_differently_stop_it() -> None:
    """Three quarters of the south are approved, half of the north."""
    target = np.tile([0.0, 1.0], 100)
    new = target.copy()
    new[100:200:4] = 1.0
    judged(new, target, target, group_loss=1.0, group_difference=0.3)
    with pytest.raises(Refused, match=r"selection rate is 0\.500 of region = north and 0\.750 of region = south"):
        judged(new, target, target, group_loss=1.0, group_difference=0.2)


def test_groups_whose_positives_are_found_too_differently_stop_it() -> None:
    """Alike often approved, but half of those who should be in the south are not."""
    target = np.repeat([1.0, 0.0, 1.0, 0.0], 50)
    new = target.copy()
    new[100:125], new[150:175] = 0.0, 1.0
    with pytest.raises(Refused, match=r"true positive rate is 0\.500 of region = south and 1\.000 of region = north"):
        judged(new, target, target, group_loss=1.0, group_difference=0.2)


def test_numbers_are_compared_by_their_mean_error() -> None:
    """The north's mean absolute error grows by a half."""
    target, old = np.zeros(200), np.ones(200)
    new = np.repeat([1.5, 0.1], 100)
    with pytest.raises(Refused, match=r"region = north loses 0\.500"):
        judged(new, target, old, NUMBERS, group_loss=0.3)
    judged(new, target, old, NUMBERS, group_loss=0.6)


def test_few_rows_are_no_group() -> None:
    """And a feature that there is not is a wrong setting."""
    rows = np.zeros((49, 2), dtype=np.float32)
    none = np.zeros(49)
    assert groups_of(rows, none, none, none, REGIONS, ["region"]) == []
    with pytest.raises(Refused, match="names sex, which is no feature"):
        groups_of(rows, none, none, none, REGIONS, ["sex"])


def test_a_model_that_is_too_large_or_too_slow_is_refused() -> None:
    """Measured on the bytes that would serve."""
    rows = features(300)
    made = challenge(dataset(rows, concept(rows, changed=False)), PROBLEM, version=1, settings=SETTINGS)
    require_cheap(made.onnx, rows, SETTINGS)
    with pytest.raises(Refused, match=r"MB, at most 0\.001"):
        require_cheap(made.onnx, rows, SETTINGS.model_copy(update={"maximum_model_mb": 0.001}))
    with pytest.raises(Refused, match=r"ms, at most 1e-06"):
        require_cheap(made.onnx, rows, SETTINGS.model_copy(update={"maximum_latency_ms": 1e-6}))


@pytest.mark.parametrize("limits", [{"maximum_model_mb": 0.0001}, {"groups": ["nothing"]}])
def test_a_contest_is_not_won_by_what_does_not_pass(limits: dict[str, Any]) -> None:
    """The gates are asked of each that has won its comparison; nobody is left, and the reason is said."""
    with pytest.raises(Refused, match=r"MB, at most|no feature"):
        contest(
            mixed(600),
            PROBLEMS["binary"],
            version=2,
            settings=SETTINGS.model_copy(update=limits),
            significance=0.05,
            archive_significance=0.05,
            champion=champion("binary"),
            fresh=600,
            change=600,
        )
