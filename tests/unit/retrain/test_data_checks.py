"""Checks before training: each stops a run with its reason, and no real change of the world is mistaken for a fault."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from retrain import data_checks
from retrain.data_checks import (
    SUSPECTED,
    DataPolicy,
    out_of_fold,
    require_sound,
    suspect_labels,
    suspected_share,
    unsound,
)
from retrain.dataset import Dataset, Problem
from retrain.profile import reference_profile
from retrain.training import Floats, Refused
from serving.manifest import Manifest, ReferenceProfile, Signature
from streams.events import Baseline
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features

ROWS = 400


def reference(rows: Any = None) -> ReferenceProfile:
    """The champion's profile: features within [0, 1), both classes predicted alike often."""
    made = features(1_000, seed=3) if rows is None else rows
    chosen = concept(made, changed=False)
    return reference_profile(made, PROBLEM.features, PROBLEM.classes, np.column_stack([1 - chosen, chosen]), 1)


def fresh(changed: bool = False) -> Dataset:
    """Rows that nothing is wrong with."""
    rows = features(ROWS, seed=4)
    return dataset(rows, concept(rows, changed=changed))


@pytest.mark.parametrize("changed", [False, True])
def test_sound_rows_pass(changed: bool) -> None:
    """The old concept and its opposite: a change of concept is what training is for."""
    assert unsound(fresh(changed), PROBLEM, reference()) == []
    require_sound(fresh(changed), PROBLEM, None)


def test_features_that_moved_pass(changed: bool = True) -> None:
    """Everybody is twice as old: drift, not a fault."""
    made = fresh(changed)
    made.features[:, 0] *= 2
    made.features[:, 1] += 3
    assert unsound(made, PROBLEM, reference()) == []


def test_a_missing_column_stops() -> None:
    """A feature that is null in most rows, and was not."""
    made = fresh()
    made.features[: ROWS * 3 // 4, 1] = np.nan
    assert unsound(made, PROBLEM, reference()) == ["feature b is missing in 75% of the rows, in the reference in 0%"]
    sparse = features(1_000, seed=3)
    sparse[:500, 1] = np.nan
    assert unsound(made, PROBLEM, reference(sparse)) == []  # it was always sparse


def test_a_changed_unit_stops() -> None:
    """Cents instead of euros."""
    made = fresh()
    made.features[:, 2] *= 100
    (reason,) = unsound(made, PROBLEM, reference())
    assert "feature c is far outside of its range" in reason
    assert "has its unit changed?" in reason


def test_a_feature_that_never_varied_may_begin_to(rows: int = 1_000) -> None:
    """A category that nobody had, as 0 and 1: its first customers are no fault."""
    constant = features(rows, seed=3)
    constant[:, 2] = 0
    made = fresh()
    made.features[:, 2] = 1
    assert unsound(made, PROBLEM, reference(constant)) == []


def test_one_class_stops() -> None:
    """A feed that reports only the defaults."""
    made = dataclasses.replace(fresh(), target=np.ones(ROWS))
    assert unsound(made, PROBLEM, reference()) == [
        "all 400 outcomes have one class only, 1: does the feed report the others?"
    ]


def test_a_class_that_is_hardly_reported_stops() -> None:
    """One row of 400, where the champion said it of every second."""
    target = np.ones(ROWS)
    target[0] = 0
    (reason,) = unsound(dataclasses.replace(fresh(), target=target), PROBLEM, reference())
    assert "class 0 has 1 of 400 outcomes" in reason
    target[::40] = 0  # rare, but reported: it may have become rare
    assert unsound(dataclasses.replace(fresh(), target=target), PROBLEM, reference()) == []


def test_a_class_that_is_no_longer_reported_stops() -> None:
    """The older rows have it: that hides nothing. Half of the predictions were of it, and none of 100 outcomes is."""
    target = fresh().target.copy()
    target[-100:] = 1
    (reason,) = unsound(dataclasses.replace(fresh(), target=target), PROBLEM, reference())
    assert reason.startswith("class 0 has none of the newest 100 outcomes, ")
    assert reason.endswith("% were expected: does the feed still report it?")
    target[-1] = 0
    assert unsound(dataclasses.replace(fresh(), target=target), PROBLEM, reference()) == []


def test_a_rare_class_may_be_missing_for_longer() -> None:
    """One in twenty: 200 rows without it are chance."""
    rows = features(1_000, seed=3)
    chosen = (np.arange(1_000) % 20 == 0).astype(np.float64)
    known = reference_profile(rows, PROBLEM.features, PROBLEM.classes, np.column_stack([1 - chosen, chosen]), 1)
    target = (np.arange(ROWS) % 20 == 0).astype(np.float64)
    target[-200:] = 0
    assert unsound(dataclasses.replace(fresh(), target=target), PROBLEM, known) == []
    target[130:] = 0
    (reason,) = unsound(dataclasses.replace(fresh(), target=target), PROBLEM, known)
    assert "class 1 has none of the newest 270 outcomes, 5% were expected" in reason


def test_labels_that_have_nothing_to_do_with_their_rows_stop() -> None:
    """Shuffled, as by a wrong join: the champion could tell them, now nobody can."""
    made = fresh()
    shuffled = dataclasses.replace(made, target=np.random.default_rng(5).permutation(made.target))
    good = Baseline("accuracy", 0.95, 300)
    (reason,) = unsound(shuffled, PROBLEM, reference(), good)
    assert "labels cannot be told from their features" in reason
    assert unsound(made, PROBLEM, reference(), good) == []
    assert unsound(shuffled, PROBLEM, reference(), Baseline("accuracy", 0.6, 300)) == []  # it never could tell much


def test_a_change_in_the_middle_of_the_rows_passes() -> None:
    """Old rows of the opposite concept: alike rows differ, but the newest agree among themselves."""
    made = fresh()
    target = np.where(np.arange(ROWS) < ROWS // 2, made.target, 1 - made.target)
    assert (
        unsound(dataclasses.replace(made, target=target), PROBLEM, reference(), Baseline("accuracy", 0.95, 300)) == []
    )


def test_suspects_are_the_labels_that_are_wrong() -> None:
    """5 % of the labels are flipped: most of them are found, and few others are suspected."""
    rows = features(1_000, seed=6)
    labels = concept(rows, changed=False).astype(np.int64)
    flipped = np.random.default_rng(7).random(1_000) < 0.05
    suspected = suspect_labels(rows, np.where(flipped, 1 - labels, labels))
    assert np.mean(suspected[flipped]) > 0.8
    assert np.mean(suspected[~flipped]) < 0.05


def noisy(rows: int, wrong: float, *, changed: bool = False, seed: int = 8) -> Dataset:
    """A concept with a share of wrong labels."""
    made = features(rows, seed)
    labels = concept(made, changed=changed)
    flipped = np.random.default_rng(seed + 1).random(rows) < wrong
    return dataset(made, np.where(flipped, 1 - labels, labels))


def champion_of(noise: float) -> Manifest:
    """A champion whose own rows had that share of labels that cannot be told."""
    made = noisy(1_000, noise, seed=20)
    share = suspected_share(made.features, made.target.astype(np.int64))
    assert share is not None
    assert share == pytest.approx(noise, abs=0.04)
    return Manifest(
        model="loans",
        version=1,
        sha256="",
        size_bytes=0,
        created_at="",
        task="binary",
        signature=Signature(list(PROBLEM.features)),
        classes=list(PROBLEM.classes),
        profile=reference(),
        baseline=Baseline("accuracy", 1.0 - noise, 300),
        metrics={SUSPECTED: share},
    )


@pytest.mark.parametrize("rows", [300, 2_000])
@pytest.mark.parametrize("changed", [False, True])
def test_many_wrong_labels_stop_with_the_share_and_what_to_do(rows: int, changed: bool) -> None:
    """Of the old concept and of a new one: the judge has learnt from the rows themselves."""
    with pytest.raises(Refused, match=r"of the newest \d+ labels are probably wrong") as refusal:
        require_sound(noisy(rows, 0.4, changed=changed), PROBLEM, champion_of(0.02))
    assert "20% more are tolerated (retrain.label_errors)" in str(refusal.value)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("changed", [False, True])
def test_a_concept_that_was_always_hard_to_tell_passes(noise: float, changed: bool) -> None:
    """Its champion's rows had the same share, before and after a real change of the concept."""
    for rows in (300, 1_000):
        require_sound(noisy(rows, noise, changed=changed), PROBLEM, champion_of(noise))


def test_a_change_within_the_rows_is_no_wrong_label() -> None:
    """Half of the rows contradict the other half, and each half agrees with itself."""
    made = noisy(1_000, 0.02)
    target = np.where(np.arange(1_000) < 500, made.target, 1 - made.target)
    require_sound(dataclasses.replace(made, target=target), PROBLEM, champion_of(0.02))


def test_only_rows_that_are_new_to_the_champion_are_suspected() -> None:
    """Wrong labels of long ago do not stop again; a champion that does not tell its share is nothing to go by."""
    old, new = noisy(1_700, 0.4), noisy(300, 0.02, seed=30)
    both = dataset(np.concatenate([old.features, new.features]), np.concatenate([old.target, new.target]))
    require_sound(both, PROBLEM, champion_of(0.02), fresh=1_700)
    with pytest.raises(Refused, match="of the newest 2000 labels are probably wrong"):
        require_sound(both, PROBLEM, champion_of(0.02), fresh=0, policy=DataPolicy(label_errors=0.1))
    require_sound(old, PROBLEM, msgspec.structs.replace(champion_of(0.02), metrics={}))
    require_sound(old, PROBLEM, champion_of(0.02), policy=DataPolicy(label_errors=1.0))


def test_the_look_at_labels_costs_no_more_for_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest 2,000 are judged, of however many."""
    judged = []

    def counted(rows: Floats, labels: Any) -> Any:
        judged.append(len(rows))
        return out_of_fold(rows, labels)

    monkeypatch.setattr(data_checks, "out_of_fold", counted)
    require_sound(noisy(6_000, 0.0), PROBLEM, msgspec.structs.replace(champion_of(0.02), baseline=None))
    assert judged == [1_000, 2_000]
    assert suspected_share(features(299), np.zeros(299, dtype=np.int64)) is None


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"features": features(ROWS)[:, :2]}, "takes 3 features"),
        ({"features": features(ROWS).astype(np.float64)}, "not float32"),
        ({"features": np.full((ROWS, 3), np.inf, dtype=np.float32)}, "infinite"),
        ({"target": np.full(ROWS, np.nan)}, "not a number"),
        ({"target": np.full(ROWS, 7.0)}, "class number 7 of 2"),
        ({"complete_ms": np.arange(ROWS)[::-1]}, "not in time order"),
    ],
)
def test_rows_of_another_shape_stop(broken: dict[str, Any], reason: str) -> None:
    """The schema comes first, and nothing else is said of rows that do not have it."""
    with pytest.raises(Refused, match=reason):
        require_sound(dataclasses.replace(fresh(), **broken), PROBLEM, None)


def test_numbers_are_checked_too() -> None:
    """A regression has no classes; its features are checked alike."""
    rows = features(ROWS, seed=4)
    problem = Problem("price", "regression", PROBLEM.features, ())
    made = dataset(rows, rows[:, 0].astype(np.float64))
    assert unsound(made, problem, None) == []
    made.features[:, 0] = np.nan
    assert "feature a is missing in 100%" in unsound(made, problem, None)[0]
