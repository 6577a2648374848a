"""Gates beside the comparison: size, latency, and how each group of rows is treated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain.contest import contest
from retrain.dataset import Dataset, Problem
from retrain.gates import (
    TooFewRows,
    groups_of,
    missing_matters,
    require_cheap,
    require_enough,
    require_fair,
    require_missing,
)
from retrain.registration import manifest_of
from retrain.run import challenge
from retrain.training import Refused
from serving.manifest import Feature
from streams.settings import RetrainSettings
from tests.unit.retrain.loop import SETTINGS, new_loop
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features
from tests.unit.retrain.test_contest import archived, champion, held, mixed
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


@pytest.mark.parametrize(
    ("accepts", "categories", "in_rows", "in_profile", "why"),
    [
        (True, [], False, False, None),
        (True, ["x", "y"], False, False, "feature b has categories"),
        (True, [], True, False, "the rows have some"),
        (True, [], False, True, "the champion's own rows had some"),
        (False, ["x", "y"], True, True, None),
    ],
)
def test_missing_values_matter_where_the_champion_takes_them_and_they_come_or_may(
    accepts: bool, categories: list[str], in_rows: bool, in_profile: bool, why: str | None
) -> None:
    """Numbers that were never missing are no reason: a forest may follow boosted trees there."""
    learnt, rows = features(300), features(50, 1)
    learnt[0, 2] = np.nan if in_profile else learnt[0, 2]
    rows[7, 0] = np.nan if in_rows else rows[7, 0]
    made = challenge(dataset(learnt, concept(learnt, changed=False)), PROBLEM, version=1, settings=SETTINGS)
    known: dict[str, Any] = {"created_at": "2023-11-14T22:13:20Z", "trained_from": {}, "parent": None, "trigger": {}}
    manifest = manifest_of(replace(made, accepts_missing=accepts), PROBLEM, 1, **known)
    kind: Any = "categorical" if categories else "numeric"
    problem = replace(PROBLEM, features=(Feature("a"), Feature("b", kind, categories), Feature("c")))
    found = missing_matters(manifest, problem, rows)
    assert found is None if why is None else found is not None and found.startswith(why)
    require_missing(True, found)
    if found is not None:
        with pytest.raises(Refused, match="it does not accept missing values, the champion does, and"):
            require_missing(False, found)
    require_missing(False, None)


def by_group(rows: int, share: float = 0.3, **changed: Any) -> tuple[Dataset, RetrainSettings]:
    """So many rows of the changed concept whose feature c is a group; nothing has changed for its members."""
    data = mixed(0)
    table = data.features[:rows].copy()
    table[:, 2] = np.random.default_rng(0).random(rows) < share
    target = np.where(table[:, 2] == 1, champion("binary")(table), data.target[:rows])
    limits = {"groups": ["c"], **changed}
    return dataset(table, target), SETTINGS.model_copy(update=limits)


def test_a_group_of_too_few_rows_is_waited_for() -> None:
    """Better on 60 test rows, of which 15 are of one group: nobody wins yet, and the rival stays. Old ones wait too."""
    data, settings = by_group(200)
    found = held(data, settings=settings)
    assert (found.challenger, found.archived) == (None, None)
    assert found.rivals[0].comparison.better
    assert "50 test rows of each group are needed (retrain.groups): c = 0 has 45, c = 1 has 15" in found.verdict
    few = replace(data, features=data.features[:100], target=data.target[:100], complete_ms=data.complete_ms[:100])
    old = archived(7, lambda rows: few.target[-len(rows) :])
    waits = held(few, archive=[old], trains=False, settings=settings)
    assert waits.rivals[0].comparison.better
    assert waits.archived is None
    assert "version 7: 50 test rows of each group are needed (retrain.groups): c = 1 has " in waits.verdict


@pytest.mark.parametrize("limits", [{"group_loss": 1.0}, {"groups": []}])
def test_nobody_waits_for_groups_that_may_lose_and_differ_as_they_like(limits: dict[str, Any]) -> None:
    """No bound, or no groups, is nothing to judge."""
    data, settings = by_group(200, **limits)
    assert held(data, settings=settings).challenger is not None
    bound = settings.model_copy(update={"group_difference": 0.99})
    assert (held(data, settings=bound).challenger is None) == bool(settings.groups)


def test_many_small_groups_are_told_in_a_line() -> None:
    """A feature that is a number has as many groups as values."""
    rows = features(200)
    with pytest.raises(TooFewRows, match=r"a = 0\.\d+ has 1, .* and 195 other groups fewer too"):
        require_enough(rows, PROBLEM, SETTINGS.model_copy(update={"groups": ["a"]}))


@pytest.mark.parametrize("limits", [{"group_loss": 0.05}, {"group_loss": 1.0, "group_difference": 0.1}])
def test_an_archived_version_may_treat_no_group_worse(limits: dict[str, Any]) -> None:
    """Right on all of the others, and never says the positive class to members of the group."""
    data, settings = by_group(600, **limits)
    unfair = archived(7, lambda rows: np.where(rows[:, 2] == 1, 0.0, mixed(0).target[-len(rows) :]))
    found = held(data, archive=[unfair], trains=False, settings=settings)
    assert found.archived is None
    assert "version 7: it treats groups worse than allowed" in found.verdict
    free = settings.model_copy(update={"group_loss": 1.0, "group_difference": 1.0})
    assert held(data, archive=[unfair], trains=False, settings=free).archived == 7


def test_a_group_is_judged_on_all_rows_and_not_on_those_that_won_alone() -> None:
    """Version 7 wins on the newest 100 rows, in which the group has too few; it loses on all members before."""
    rows = features(1_000, 5)
    rows[:, 2] = np.random.default_rng(1).random(1_000) < 0.08
    late = (np.arange(1_000) >= 880) & (rows[:, 2] == 0)
    data = dataset(rows, np.where(late, concept(rows, changed=True), concept(rows, changed=False)))
    found = contest(
        data,
        PROBLEM,
        version=2,
        settings=SETTINGS.model_copy(update={"groups": ["c"]}),
        significance=0.05,
        archive_significance=0.05,
        champion=lambda asked: concept(asked, changed=False),
        fresh=0,
        change=None,
        archive=[archived(7, lambda asked: concept(asked, changed=True))],
        trains=False,
    )
    assert found.archived is None
    assert "c = 1 loses 1.000 on 75 rows" in found.verdict
    assert "the newest 100 rows, by which it won, are too few to say that it does no longer" in found.verdict


def test_a_run_goes_on_collecting_until_a_group_can_be_judged(tmp_path: Path) -> None:
    """As for a challenger that is not proven: on 200 rows nothing is promoted, and once there are enough it is."""
    loop = new_loop(tmp_path)
    settings = SETTINGS.model_copy(update={"groups": ["c"], "group_loss": 0.5, "group_difference": 0.5})

    def grouped(rows: int) -> None:
        start = len(loop.log.partitions.get(0, []))
        loop.live(changed=True, rows=rows, seed=20 + start)
        for event in loop.log.partitions[0][start:]:
            if event is not None and isinstance(event.features, dict):
                event.features["c"] = float(event.features["c"] or 0.0) // 0.7

    looks: list[tuple[str, int]] = []

    def pause(seconds: float) -> None:
        run = loop.runs.of("loans")[0]
        looks.append((run.verdict or "", run.tested_rows))
        grouped(100)

    grouped(200)
    run = loop.retrainer(settings=settings).execute(loop.alerted(), lambda: None, pause)
    assert run.state == "promoted"
    waits, rows = looks[0]
    assert rows == 200
    assert "50 test rows of each group are needed (retrain.groups): c = 0 has 39, c = 1 has 21" in waits
    assert run.tested_rows == 500
    assert loop.repository.manifest("loans", 2).groups.keys() == {"c = 0", "c = 1"}


@pytest.mark.parametrize("null", [False, True])
def test_a_forest_follows_boosted_trees_only_where_no_value_was_ever_missing(null: bool, tmp_path: Path) -> None:
    """One null among the newest rows, which no forest was trained on, and the server would refuse the next one."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    newest = loop.log.partitions[0][-1]
    if null and newest is not None and isinstance(newest.features, dict):
        newest.features["c"] = None
    assert loop.repository.manifest("loans", 1).signature.accepts_missing
    run = loop.finish(loop.alerted(), settings=SETTINGS.model_copy(update={"algorithms": ["random_forest"]}))
    assert run.state == ("rejected" if null else "promoted"), run.reason
    if null:
        assert "it does not accept missing values, the champion does, and the rows have some" in (run.reason or "")
