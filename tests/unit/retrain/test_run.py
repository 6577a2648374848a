"""A first version, for every task: trained, exported, verified, measured."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrain import run
from retrain.champion import answers_of, problem_of
from retrain.dataset import Dataset, Problem
from retrain.export import export
from retrain.registration import card_of, manifest_of
from retrain.rolling import BLOCKS, Rolled, rolled
from retrain.run import Challenger, challenge, recipes
from retrain.sources import Source, blocks
from retrain.training import Recipe, Refused, Trained, TrainedTask
from serving.engine import LoadedModel
from serving.manifest import Feature, Manifest
from tests.unit.retrain.loop import SETTINGS
from tests.unit.retrain.rows import dataset, features

PROBLEMS: dict[TrainedTask, Problem] = {
    "binary": Problem("m", "binary", tuple(map(Feature, "abc")), ("bad", "good"), "bad"),
    "multiclass": Problem("m", "multiclass", tuple(map(Feature, "abc")), (10, 20, 30)),
    "regression": Problem("m", "regression", tuple(map(Feature, "abc")), ()),
}


def rows_of(task: TrainedTask, *, changed: bool, seed: int) -> Dataset:
    """Rows whose answer depends on `a`, and after the change on `b`."""
    rows = features(600, seed)
    driver = rows[:, 1] if changed else rows[:, 0]
    target: Any = {"binary": driver > 0.5, "multiclass": np.floor(driver * 3), "regression": driver * 100}[task]
    return dataset(rows, target)


def first(task: TrainedTask) -> tuple[Challenger, Manifest]:
    """A champion of the old concept."""
    made = challenge(rows_of(task, changed=False, seed=0), PROBLEMS[task], version=1, settings=SETTINGS)
    return made, manifest_of(
        made,
        PROBLEMS[task],
        1,
        created_at="2023-11-14T22:13:20Z",
        trained_from={},
        trigger={},
        parent=None,
    )


@pytest.mark.parametrize("task", PROBLEMS)
def test_the_serving_engine_answers_as_the_comparison_assumed(task: TrainedTask) -> None:
    """What was measured is what serves: the engine says of the newest block what the trained model did."""
    made, manifest = first(task)
    data, problem = rows_of(task, changed=False, seed=0), PROBLEMS[task]
    tested = blocks(0, len(data), SETTINGS.test_share, BLOCKS)
    measured = rolled(data, problem, recipes(SETTINGS)[0], Source("all", 0, 0), tested).answers
    newest = len(data) - made.train_rows
    said = LoadedModel(made.onnx, manifest).predict(data.features[-newest:]).predictions
    encoded = np.asarray([problem.encode(value) for value in said], dtype=np.float64)
    assert encoded == pytest.approx(measured[-newest:], rel=1e-5)
    target = data.target[tested[0][0] :]
    if task == "regression":
        assert np.mean(np.abs(measured - target)) == pytest.approx(made.baseline.value, rel=1e-3)
    else:
        assert np.mean(measured == target) == pytest.approx(made.baseline.value)
    assert problem_of(manifest) == PROBLEMS[task]


@pytest.mark.parametrize("task", PROBLEMS)
def test_the_profile_is_of_the_training_rows(task: TrainedTask) -> None:
    """Quantiles of each feature and of the scores; how often each class was predicted."""
    made, _ = first(task)
    assert made.profile.rows == 578
    assert [feature.name for feature in made.profile.features] == ["a", "b", "c"]
    assert len(made.profile.score_quantiles) == len(made.profile.levels)
    assert sum(made.profile.predicted.values()) == (0 if task == "regression" else 578)


@pytest.mark.parametrize("task", PROBLEMS)
def test_the_card_says_where_it_came_from(task: TrainedTask) -> None:
    """Trigger, data, metrics, parity, limits."""
    made, manifest = first(task)
    card = card_of(manifest, made)
    for heading in ("Why it was made", "How it was made", "How good it is", "exported model", "Limits"):
        assert f"## {heading}" in card or heading in card


@pytest.mark.parametrize("task", PROBLEMS)
def test_the_manifest_tells_how_many_labels_are_probably_wrong(task: TrainedTask) -> None:
    """Of the rows it was trained on: what later rows are held against. Numbers have no classes to confuse."""
    made, manifest = first(task)
    if task == "regression":
        assert "suspected_labels" not in manifest.metrics
        assert "probably wrong is not told" in card_of(manifest, made)
        return
    assert manifest.metrics["suspected_labels"] < 0.05
    assert f"{made.suspected:.1%} of the labels it was trained on are probably wrong" in card_of(manifest, made)


def test_training_never_sees_the_newest_rows() -> None:
    """Garbage in the newest block changes the verdict, not the model."""
    data = rows_of("binary", changed=True, seed=1)
    shuffled = data.target.copy()
    shuffled[578:] = 1 - shuffled[578:]
    other = Dataset(data.features, shuffled, data.served, data.complete_ms, {}, {})
    one, two = (challenge(d, PROBLEMS["binary"], version=1, settings=SETTINGS) for d in (data, other))
    assert one.baseline.value > 0.9 > two.baseline.value
    assert one.profile == two.profile


@pytest.mark.parametrize(("rows", "share"), [(1, 0.3), (2, 0.01), (0, 0.5)])
def test_training_and_testing_need_rows(rows: int, share: float) -> None:
    """Nothing to train on, or nothing to test on, is a refusal."""
    data = dataset(features(rows), np.zeros(rows))
    with pytest.raises(Refused, match="cannot be split"):
        challenge(data, PROBLEMS["binary"], version=1, settings=SETTINGS.model_copy(update={"test_share": share}))


def test_a_first_version_is_measured_by_models_that_did_not_see_the_rows() -> None:
    """Labels by chance in all test rows, of which later blocks' models have seen some: none can know the answers."""
    data = rows_of("binary", changed=False, seed=1)
    chance = np.random.default_rng(2).integers(0, 2, 180)
    other = Dataset(data.features, np.concatenate([data.target[:420], chance]), data.served, data.complete_ms, {}, {})
    made = challenge(other, PROBLEMS["binary"], version=1, settings=SETTINGS)
    assert (made.train_rows, made.test_rows) == (578, 180)
    assert made.baseline.value == pytest.approx(0.5, abs=0.12)


BOTH = SETTINGS.model_copy(update={"algorithms": ["xgboost", "random_forest"]})


def wrong_unless(best: str) -> Callable[..., Rolled]:
    """Training in which every other algorithm of a binary model says the opposite."""

    def train(dataset: Dataset, problem: Problem, recipe: Recipe, *more: Any) -> Rolled:
        found = rolled(dataset, problem, recipe, *more)
        return found if recipe.algorithm == best else replace(found, answers=1.0 - found.answers)

    return train


@pytest.mark.parametrize("best", ["xgboost", "random_forest"])
def test_a_first_version_is_made_by_the_algorithm_that_errs_least(best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever the settings name first."""
    monkeypatch.setattr(run, "rolled", wrong_unless(best))
    made = challenge(rows_of("binary", changed=False, seed=1), PROBLEMS["binary"], version=1, settings=BOTH)
    assert (made.recipe.algorithm, made.source) == (best, "all")
    assert made.baseline.value > 0.9


def test_an_algorithm_that_cannot_learn_the_table_leaves_it_to_the_others() -> None:
    """Missing values are for boosted trees; where no algorithm can learn the rows each says why, or all the same."""
    data, problem = rows_of("binary", changed=False, seed=1), PROBLEMS["binary"]
    data.features[3, 1] = np.nan
    assert challenge(data, problem, version=1, settings=BOTH).recipe.algorithm == "xgboost"
    one_class = replace(data, target=np.zeros(len(data)))
    with pytest.raises(Refused, match=r"^the training rows have one class only$"):
        challenge(one_class, problem, version=1, settings=BOTH)


def test_a_first_version_that_does_not_convert_is_followed_by_the_next_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity gate refuses the best: the other is the version. If it refuses both, each reason is told."""
    data, problem = rows_of("binary", changed=False, seed=1), PROBLEMS["binary"]
    best = challenge(data, problem, version=1, settings=BOTH).recipe.algorithm

    def gate(trained: Trained, **named: Any) -> bytes:
        if (reason := reasons.get(trained.algorithm)) is not None:
            raise Refused(reason)
        return export(trained, **named)

    monkeypatch.setattr(run, "export", gate)
    reasons: dict[str, str] = {best: "may not"}
    assert challenge(data, problem, version=1, settings=BOTH).recipe.algorithm != best
    reasons = {"xgboost": "may not", "random_forest": "may not"}
    with pytest.raises(Refused, match=r"^may not$"):
        challenge(data, problem, version=1, settings=BOTH)
    reasons = {"xgboost": "is too deep", "random_forest": "may not"}
    with pytest.raises(Refused) as refusal:
        challenge(data, problem, version=1, settings=BOTH)
    assert set(str(refusal.value).split("; ")) == {"xgboost: is too deep", "random forest: may not"}


def test_a_champion_that_does_not_load_is_refused() -> None:
    """Its damage is the reason that a person reads."""
    _, manifest = first("binary")
    with pytest.raises(Refused, match="version 1 does not load"):
        answers_of(b"nonsense", manifest)
