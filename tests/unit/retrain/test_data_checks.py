"""Checks before training: each stops a run with its reason, and no real change of the world is mistaken for a fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from retrain import data_checks
from retrain.coverage import Coverage
from retrain.data_checks import (
    SUSPECTED,
    DataPolicy,
    out_of_fold,
    require_reported,
    require_sound,
    suspect_labels,
    suspected_share,
    unsound,
)
from retrain.dataset import Dataset, Problem
from retrain.lifecycle import Run
from retrain.profile import reference_profile
from retrain.reproduction import reproduce, rows_from_log
from retrain.runs import RunStore
from retrain.tables import Table
from retrain.training import Floats, Refused
from serving.engine import LoadedModel
from serving.manifest import Feature, Manifest, ReferenceProfile, Signature
from serving.repository import Repository
from streams.events import Baseline, Drift, rfc3339
from streams.records import LabelledRow
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import (
    PROBLEM,
    SECOND_MS,
    START_MS,
    MemoryAnnouncer,
    MemoryLog,
    concept,
    dataset,
    features,
    labelled,
    prediction,
)

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


# Rows as they come ---------------------------------------------------------------------------------------------


def coverage(labelled_as: list[int], predicted: list[int], stretches: int = 10) -> Coverage:
    """So many of each class in each stretch."""
    return Coverage(np.asarray([labelled_as] * stretches), np.asarray([predicted] * stretches))


@pytest.mark.parametrize("check", [require_sound, require_reported])
def test_rows_that_were_dropped_stop_with_their_kinds(check: Callable[..., None]) -> None:
    """A fifth of the new rows may be: those that are left may be of another kind."""
    made = dataclasses.replace(fresh(), dropped={"missing_feature": 5_000}, fresh_dropped={"no_features": 25})
    check(made, PROBLEM, champion_of(0.02), 300)
    made.fresh_dropped["missing_feature"] = 2
    with pytest.raises(Refused, match=r"27 of 127 new rows cannot be used \(2 missing_feature, 25 no_features\), 20%"):
        check(made, PROBLEM, champion_of(0.02), 300)
    check(made, PROBLEM, champion_of(0.02), 300, DataPolicy(dropped=1.0))


@pytest.mark.parametrize("check", [require_sound, require_reported])
def test_outcomes_that_come_for_one_predicted_class_stop(check: Callable[..., None]) -> None:
    """Whatever they are, and however many rows there are of each class."""
    made = dataclasses.replace(fresh(), coverage=coverage([5, 35], [30, 30]))
    with pytest.raises(Refused, match=r"predicted 0 do not come as others do: of the predictions 50\.0% were that, of"):
        check(made, PROBLEM, champion_of(0.02))
    check(made, PROBLEM, champion_of(0.02), policy=DataPolicy(one_sided=1.0))
    check(dataclasses.replace(made, coverage=coverage([15, 25], [30, 30])), PROBLEM, champion_of(0.02))


def test_a_class_of_several_that_is_predicted_and_not_reported_stops() -> None:
    """Its predictions are labelled as often as others, as something else: the classes of the feed have changed."""
    problem = dataclasses.replace(PROBLEM, task="multiclass", classes=("a", "b", "c"), positive=None)
    champion = msgspec.structs.replace(champion_of(0.02), profile=None, baseline=None, metrics={})
    made = dataclasses.replace(fresh(), coverage=coverage([10, 10, 10], [20, 20, 20]))
    with pytest.raises(
        Refused, match="class 'c' has none of the newest 100 outcomes, 33% of the predictions were that"
    ):
        require_sound(made, problem, champion)
    require_sound(dataclasses.replace(made, coverage=coverage([10, 10, 0], [20, 20, 0])), problem, champion)
    made.target[-100] = 2
    require_sound(made, problem, champion)


PRICE = Problem("price", "regression", PROBLEM.features, ())


def priced(factor: float, spread: float, level: float = 0.0, noise: float = 0.1) -> tuple[Dataset, Manifest]:
    """Numbers that a champion predicted as well as it can, and outcomes ``factor`` times as large as they should be."""
    rows = features(ROWS, seed=4)
    said = level + spread * (rows[:, 0].astype(np.float64) - 0.5)
    truth = said + noise * np.random.default_rng(1).normal(size=ROWS)
    made = dataclasses.replace(dataset(rows, factor * truth), served=said)
    champion = msgspec.structs.replace(
        champion_of(0.02),
        task="regression",
        classes=[],
        profile=None,
        baseline=Baseline("mae", float(np.mean(np.abs(truth - said))), 300),
        metrics={},
    )
    return made, champion


@pytest.mark.parametrize("check", [require_sound, require_reported])
@pytest.mark.parametrize(("spread", "level"), [(100.0, 0.0), (100.0, 1_000.0), (1.0, 0.0)])
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_outcomes_in_another_unit_stop(check: Callable[..., None], spread: float, level: float, factor: float) -> None:
    """Cents instead of euros, and the other way round; one in twenty that is wild hides nothing."""
    made, champion = priced(factor, spread, level)
    made.target[::20] *= 1e6
    with pytest.raises(Refused, match=r"outcomes are of another size than predictions: .* Has their unit changed\?"):
        check(made, PRICE, champion)
    check(made, PRICE, champion, policy=DataPolicy(scale=1_000.0))


@pytest.mark.parametrize(
    ("spread", "level", "noise"), [(100.0, 0.0, 1.0), (100.0, 1_000.0, 1.0), (0.01, 0.0, 1.0), (0.0, 0.0, 1.0)]
)
@pytest.mark.parametrize("factor", [-1.0, 0.3, 1.0, 5.0])
def test_numbers_that_changed_pass(spread: float, level: float, noise: float, factor: float) -> None:
    """Five times as large, or the opposite; also where next to nothing can be predicted."""
    made, champion = priced(factor, spread, level, noise)
    require_sound(made, PRICE, champion)


# In the loop ---------------------------------------------------------------------------------------------------


def outcomes_by(loop: Loop, rows: Floats, truth: Any, comes: Any) -> None:
    """Predictions of the champion, one a second, and those of their outcomes that come."""
    champion = int(loop.state.aliases["champion"])
    manifest = loop.repository.manifest("loans", champion)
    said = LoadedModel(loop.repository.load("loans", champion), manifest).predict(rows).predictions
    before = loop.log.partitions.setdefault(0, [])
    start = len(before)
    before += [prediction(start + i, row, said[i], version=str(champion)) for i, row in enumerate(rows)]
    labels = manifest.classes or None
    made = [
        LabelledRow(i, i, START_MS + i * SECOND_MS, START_MS + i * SECOND_MS, 0, 0, labels[int(y)] if labels else y)
        for i, y in enumerate(np.asarray(truth, dtype=np.float64).tolist(), start)
        if comes[i - start]
    ]
    loop.log.records.append(labelled(made, version=str(champion)))


def by_labels(loop: Loop) -> Run:
    """A run by the number of labels, at its end."""
    run = loop.retrainer().start("loans", "labels")
    if run is None:
        raise AssertionError("no run began")
    return loop.finish(run, settings=SETTINGS.model_copy(update={"labels": 100}))


def uncertain(rows: Floats, seed: int, wrong: float = 0.1) -> Any:
    """The old concept, by which a tenth of the rows is of the other class."""
    truth = concept(rows, changed=False)
    return np.where(np.random.default_rng(seed).random(len(rows)) < wrong, 1 - truth, truth)


def test_a_feed_that_brings_few_outcomes_of_a_class_promotes_nothing(tmp_path: Path) -> None:
    """3 % of class 0: whoever says 1 more often looks better on what comes, and is worse."""
    loop = new_loop(tmp_path)
    rows = features(1_600, 50)
    truth = uncertain(rows, 51)
    outcomes_by(loop, rows, truth, (truth == 1) | (np.random.default_rng(52).random(1_600) < 0.03))
    run = by_labels(loop)
    assert run.state == "rejected"
    assert "outcomes of what was predicted 0 do not come as others do" in (run.reason or "")


def test_a_feed_that_lost_one_of_several_classes_promotes_nothing(tmp_path: Path) -> None:
    """Class c is predicted, and no outcome of it comes."""

    def truth_of(rows: Floats, seed: int) -> Any:
        truth = np.minimum(np.floor(rows[:, 0] * 3), 2)
        return np.where(np.random.default_rng(seed).random(len(rows)) < 0.15, (truth + 1) % 3, truth)

    loop = Loop(Repository(str(tmp_path)), RunStore(str(tmp_path)), MemoryLog(), MemoryAnnouncer())
    rows = features(600, 3)
    problem = Problem("loans", "multiclass", PROBLEM.features, ("a", "b", "c"))
    table = Table(problem, dataset(rows, truth_of(rows, 1)))
    loop.administration.register(table, SETTINGS, mode="auto", trained_from={"file": "loans.csv"})
    rows = features(1_200, 50)
    truth = truth_of(rows, 51)
    outcomes_by(loop, rows, truth, truth != 2)
    run = by_labels(loop)
    assert run.state == "rejected"
    assert "outcomes of what was predicted 'c' do not come as others do" in (run.reason or "")


@pytest.mark.parametrize("comes", [0.03, 1.0])
def test_no_version_comes_back_on_outcomes_of_one_class(comes: float, tmp_path: Path) -> None:
    """A hundred rows are too few to train on; the archive is held to the same."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    assert loop.finish(loop.alerted()).state == "promoted"
    rows = features(200, 11)
    truth = concept(rows, changed=False)
    outcomes_by(loop, rows, truth, (truth == 1) | (np.random.default_rng(1).random(200) < comes))
    back = Drift("adwin", change_at=rfc3339(START_MS + 400 * SECOND_MS), version="2")
    settings = SETTINGS.model_copy(update={"minimum_rows": 300, "wait_s": 1.0})
    run = loop.finish(loop.alerted(fingerprint="f2", drift=back), settings=settings)
    assert run.state == ("rejected" if comes < 1.0 else "promoted")
    assert ("do not come as others do" in (run.reason or "")) == (comes < 1.0)


def test_what_is_left_of_rows_that_were_lost_promotes_nothing(tmp_path: Path) -> None:
    """Three of four rows miss a feature, and in the fourth the world differs."""
    loop = new_loop(tmp_path)
    rows = features(1_200, 7)
    whole = np.arange(1_200) % 4 == 0
    outcomes_by(loop, rows, np.where(whole, concept(rows, changed=True), concept(rows, changed=False)), whole | True)
    for event, intact in zip(loop.log.partitions[0], whole, strict=True):
        if event is not None and not intact and isinstance(event.features, dict):
            event.features.pop("b")
    run = loop.finish(loop.alerted())
    assert run.state == "rejected"
    assert "new rows cannot be used (750 missing_feature), 20% are tolerated (retrain.dropped)" in (run.reason or "")


def test_a_new_category_is_learnt_from_and_trained_again(tmp_path: Path) -> None:
    """As a missing value, as it is served: half of the rows have a colour that the first version has not seen."""
    loop = Loop(Repository(str(tmp_path)), RunStore(str(tmp_path)), MemoryLog(), MemoryAnnouncer())
    rows = features(500, 3)
    rows[:, 1] = rows[:, 1] > 0.5
    colours = Feature("b", "categorical", ["blue", "red"])
    problem = dataclasses.replace(PROBLEM, features=(PROBLEM.features[0], colours, PROBLEM.features[2]))
    table = Table(problem, dataset(rows, concept(rows, changed=False)))
    loop.administration.register(table, SETTINGS, mode="auto", trained_from={"file": "loans.csv"})
    loop.live(changed=True)
    for i, event in enumerate(loop.log.partitions[0]):
        if event is not None and isinstance(event.features, dict):
            event.features["b"] = ("blue", "green", "red", "green", "blue")[i % 5]
    run = loop.finish(loop.alerted())
    assert run.state == "promoted"
    assert run.trained_from["dropped"] == {}
    made = loop.repository.manifest("loans", 2)
    assert made.profile is not None
    assert made.profile.features[1].missing > 0
    assert reproduce(made, rows_from_log(made, loop.log)).same


def test_numbers_in_another_unit_promote_nothing(tmp_path: Path) -> None:
    """Outcomes in cents of a model that predicts euros."""
    loop = Loop(Repository(str(tmp_path)), RunStore(str(tmp_path)), MemoryLog(), MemoryAnnouncer())
    rows = features(500, 3)
    noise = np.random.default_rng(1).normal(0, 3, 500)
    problem = dataclasses.replace(PRICE, model="loans")
    table = Table(problem, dataset(rows, rows[:, 0] * 100 + noise))
    loop.administration.register(table, SETTINGS, mode="auto", trained_from={"file": "loans.csv"})
    rows = features(400, 7)
    outcomes_by(loop, rows, rows[:, 0] * 10_000.0 + noise[:400] * 100, np.ones(400, dtype=bool))
    run = loop.finish(loop.alerted())
    assert run.state == "rejected"
    assert "Has their unit changed?" in (run.reason or "")
