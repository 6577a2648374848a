"""A contest, for every task: several challengers and the archive against the champion, and what a win costs."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from retrain import contest as contests
from retrain.champion import answers_of
from retrain.contest import Archived, Contest, contest
from retrain.dataset import Dataset
from retrain.registration import card_of, manifest_of, metrics_of
from retrain.reproduction import reproduce
from retrain.run import Answers, Stage, challenge, finished
from retrain.training import Refused, TrainedTask
from streams.settings import RetrainSettings
from tests.unit.retrain.loop import SETTINGS
from tests.unit.retrain.rows import SECOND_MS, START_MS
from tests.unit.retrain.test_run import BOTH, PROBLEMS, rows_of, wrong_unless


def champion(task: TrainedTask, *, changed: bool = False, seed: int = 0) -> Answers:
    """A version that knows the old concept, or the changed one."""
    made = challenge(rows_of(task, changed=changed, seed=seed), PROBLEMS[task], version=1, settings=SETTINGS)
    created_at = "2023-11-14T22:13:20Z"
    manifest = manifest_of(made, PROBLEMS[task], 1, created_at=created_at, trained_from={}, trigger={}, parent=None)
    return answers_of(made.onnx, manifest)


FOREST = "random_forest"


@cache
def small_model() -> bytes:
    """A graph that is cheap to serve."""
    return challenge(rows_of("binary", changed=False, seed=0), PROBLEMS["binary"], version=7, settings=SETTINGS).onnx


def archived(version: int, answers: Answers, fresh_ms: int = 0, *, accepts_missing: bool = True) -> Archived:
    """A version of the archive that answers so, in time and in little room."""
    return Archived(version, answers, fresh_ms, small_model(), accepts_missing)


def held(data: Dataset, task: TrainedTask = "binary", **changed: Any) -> Contest:
    """A contest on all of the rows with a champion of the old concept."""
    known: dict[str, Any] = {
        "fresh": 0,
        "change": None,
        "champion": champion(task),
        "significance": 0.05,
        "archive_significance": 0.05,
    }
    known |= {"settings": SETTINGS, **changed}
    return contest(data, PROBLEMS[task], version=2, **known)


@pytest.mark.parametrize("task", PROBLEMS)
def test_a_challenger_beats_a_champion_of_the_old_concept(task: TrainedTask) -> None:
    """On rows that neither was trained on, and what it achieves there is its baseline."""
    stages: list[Stage] = []
    found = held(rows_of(task, changed=True, seed=1), task, stage=stages.append)
    made = found.challenger
    assert made is not None
    assert made.comparison is found.rivals[0].comparison
    assert made.comparison.better
    assert made.baseline.value == made.comparison.challenger
    assert (made.train_rows, made.test_rows, made.baseline.n) == (578, 180, 180)
    assert stages == ["training", "exporting", "verifying"]
    assert metrics_of(made)["p_value"] < 0.05
    assert found.archived is None


@pytest.mark.parametrize("task", PROBLEMS)
def test_on_the_old_concept_the_champion_stays(task: TrainedTask) -> None:
    """A champion trained on more rows of the same concept does not lose."""
    found = held(rows_of(task, changed=False, seed=0), task)
    assert found.challenger is None
    assert not found.rivals[0].comparison.better
    assert found.rivals[0].describe() == found.verdict


def mixed(old_rows: int) -> Dataset:
    """So many rows of the old concept before 600 of the new one."""
    old, new = rows_of("binary", changed=False, seed=2), rows_of("binary", changed=True, seed=3)
    return Dataset(
        np.concatenate([old.features[:old_rows], new.features]),
        np.concatenate([old.target[:old_rows], new.target]),
        np.full(old_rows + 600, np.nan),
        START_MS + SECOND_MS * np.arange(old_rows + 600, dtype=np.int64),
        {},
        {},
    )


def test_the_best_source_wins_and_every_source_costs() -> None:
    """Rows of both concepts contradict each other: those since the change win, and all share one significance."""
    found = held(mixed(600), fresh=600, change=600)
    assert found.challenger is not None
    assert found.challenger.source == "since the change"
    assert {rival.name for rival in found.rivals} == {"since the change", "widened", "all"}
    assert [rival.comparison.significance for rival in found.rivals] == [0.05] * 3
    assert [rival.comparison.rows for rival in found.rivals] == [180] * 3
    alone = held(mixed(0), fresh=0).rivals[0].comparison
    assert alone.p_value <= min(rival.comparison.p_value for rival in found.rivals)


@pytest.mark.parametrize("best", ["xgboost", "random_forest"])
def test_a_run_weighs_every_algorithm_on_every_choice_of_rows(best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The better one wins, and its version says how it was trained, whatever the settings name first."""
    monkeypatch.setattr(contests, "rolled", wrong_unless(best))
    found = held(mixed(600), fresh=600, change=600, settings=BOTH)
    choices = ("since the change", "widened", "all")
    assert {r.name for r in found.rivals} == {f"{c}, {a}" for c in choices for a in ("xgboost", "random forest")}
    made = found.challenger
    assert made is not None
    assert made.source == f"since the change, {best.replace('_', ' ')}"
    known: dict[str, Any] = {"created_at": "2023-11-14T22:13:20Z", "trained_from": {}, "parent": 1}
    manifest = manifest_of(made, PROBLEMS["binary"], 2, trigger={"kind": "labels"}, **known)
    assert manifest.parameters["algorithm"] == best
    assert f"{best.replace('_', ' ')}, 10 trees of depth 3, seed 0" in card_of(manifest, made)
    assert reproduce(manifest, mixed(600)).same


def test_an_algorithm_that_cannot_learn_the_rows_leaves_the_others() -> None:
    """A forest trained with missing values converts wrongly; boosted trees may have them."""
    rows = mixed(600)
    rows.features[5, 0] = np.nan
    found = held(rows, fresh=600, change=600, settings=BOTH)
    assert found.challenger is not None
    weighed = {rival.name for rival in found.rivals}
    assert "widened, xgboost" in weighed
    assert "widened, random forest" not in weighed
    assert any(reason.startswith("widened, random forest: a random forest trained with") for reason in found.refused)
    alone = BOTH.model_copy(update={"algorithms": ["random_forest"]})
    rows.features[605, 0] = np.nan
    with pytest.raises(Refused, match="since the change: a random forest trained with missing values"):
        held(rows, fresh=600, change=600, settings=alone)


def test_the_card_says_how_it_was_measured() -> None:
    """Not that all of the test rows were unseen by this very model, which is true of the newest block only."""
    found = held(mixed(600), fresh=600, change=600)
    assert found.challenger is not None
    known: dict[str, Any] = {
        "created_at": "2023-11-14T22:13:20Z",
        "trained_from": {},
        "parent": 1,
    }
    manifest = manifest_of(found.challenger, PROBLEMS["binary"], 2, trigger={"kind": "labels"}, **known)
    card = card_of(manifest, found.challenger)
    assert "rows (since the change)" in card
    assert "has not seen the newest block" in card
    assert "new labels" in card


def test_an_archived_version_wins_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A concept that comes back needs no training; it is tested on all of the new rows."""

    def must_not(*_: Any) -> None:
        raise AssertionError("something was trained")

    old = archived(7, champion("binary", changed=True), 0)
    monkeypatch.setattr(contests, "rolled", must_not)
    found = held(mixed(600), fresh=600, change=600, archive=[old, replace(old, version=8)])
    assert (found.archived, found.challenger) == (7, None)
    assert found.rivals[0].name == "version 7"
    assert found.rivals[0].comparison.rows == 600


def test_an_archived_version_is_not_tested_on_rows_that_made_it() -> None:
    """What was trained on a part of the new rows is tested on the others, and not at all if none are left."""
    answers = champion("binary", changed=True)
    half = archived(7, answers, START_MS + 900 * SECOND_MS)
    whole = archived(8, answers, START_MS + 1_200 * SECOND_MS)
    found = held(mixed(600), fresh=600, change=600, archive=[half, whole])
    (rival,) = found.rivals
    assert (rival.name, rival.comparison.rows) == ("version 7", 300)


def test_without_enough_rows_to_train_on_only_the_archive_is_asked() -> None:
    """A few rows show whether a concept has come back, and are too few to learn it from."""
    found = held(mixed(600), fresh=600, archive=[archived(7, champion("binary"), 0)], trains=False)
    assert [rival.name for rival in found.rivals] == ["version 7"]
    assert (found.archived, found.challenger) == (None, None)


def test_outcomes_of_one_class_promote_nobody() -> None:
    """A feed that has lost the other class would make whoever leans to this one the champion, old or new."""
    rows = mixed(600)
    one_sided = replace(rows, target=np.r_[rows.target[:600], np.zeros(600)])
    always = archived(7, lambda features: np.zeros(len(features)), 0)
    found = held(one_sided, fresh=600, archive=[always], trains=False)
    assert (found.archived, found.rivals) == (None, ())
    with pytest.raises(Refused, match="the outcomes to test on have one class only, 'bad'"):
        held(one_sided, fresh=600, archive=[always])


def test_what_is_exported_is_tested_on_rows_that_it_has_not_seen() -> None:
    """Noise in the newest block costs it its answers there, and leaves the model as it is."""
    data = mixed(0)
    shuffled = data.target.copy()
    shuffled[578:] = np.random.default_rng(1).integers(0, 2, 22)
    one, two = held(data), held(replace(data, target=shuffled))
    assert one.challenger is not None
    assert two.challenger is not None
    assert one.challenger.profile == two.challenger.profile
    assert one.challenger.baseline.value - two.challenger.baseline.value == pytest.approx(0.06, abs=0.03)


def test_a_new_concept_is_learnt_though_most_test_rows_are_of_the_old_one() -> None:
    """Nobody has said when it changed: the newest rows tell that the champion is wrong by now.

    What is trained on few of them is better than what is trained on those of both concepts.
    """
    rows = mixed(600)
    shipped = SETTINGS.model_copy(update={"recent_rows": RetrainSettings().recent_rows})
    found = held(rows, fresh=0, settings=shipped)
    assert found.challenger is not None
    assert found.challenger.source == "the newest 500"
    assert found.challenger.baseline.value > 0.95
    assert found.rivals[0].comparison.rows < 600
    assert found.challenger.baseline.n == found.rivals[0].comparison.rows
    enough = shipped.model_copy(update={"minimum_rows": 600})
    assert {rival.name for rival in held(rows, fresh=0, settings=enough).rivals} == {"the newest 1,000", "all"}
    old = archived(7, champion("binary", changed=True), 0)
    back = held(rows, fresh=0, archive=[old])
    assert back.archived == 7
    assert back.rivals[0].comparison.rows <= 800


def test_nobody_wins_by_what_was_before_the_newest_rows() -> None:
    """The old concept ended 100 rows ago: the archive's best is right on most of the rows, and wrong by now."""
    old, new = rows_of("binary", changed=False, seed=2), rows_of("binary", changed=True, seed=3)

    def rows(changed: int) -> Dataset:
        n = len(old) + changed
        return Dataset(
            np.concatenate([old.features, new.features[:changed]]),
            np.concatenate([old.target, new.target[:changed]]),
            np.full(n, np.nan),
            START_MS + SECOND_MS * np.arange(n, dtype=np.int64),
            {},
            {},
        )

    known: dict[str, Any] = {"champion": champion("binary", changed=True, seed=5), "trains": False}
    archive = [archived(9, champion("binary"), 0)]
    assert held(rows(0), archive=archive, **known).archived == 9
    found = held(rows(100), archive=archive, **known)
    assert found.archived is None
    assert "version 9: it does worse on the newest 100 rows: share wrong" in found.verdict


def test_one_that_does_not_convert_is_followed_by_the_next_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity gate refuses the best: the run does not end for that."""
    refused = list[str]()

    def gate(*arguments: Any, **named: Any) -> Any:
        if not refused:
            refused.append(named["source"])
            raise Refused("the exported model is not the trained one")
        return finished(*arguments, **named)

    monkeypatch.setattr(contests, "finished", gate)
    found = held(mixed(600), fresh=600, change=600)
    assert found.challenger is not None
    assert found.challenger.source not in refused
    assert found.refused == (f"{refused[0]}: the exported model is not the trained one",)


def test_nobody_to_weigh_is_a_refusal_with_the_reasons() -> None:
    """Rows of one class teach nothing."""
    data = mixed(0)
    with pytest.raises(Refused, match="all: the training rows have one class only"):
        held(replace(data, target=np.r_[np.zeros(420), data.target[420:]]))


def test_a_gain_below_the_minimum_is_none() -> None:
    """Sure, but too small to be worth a new version."""
    data = rows_of("binary", changed=True, seed=1)
    strict = SETTINGS.model_copy(update={"minimum_gain": 0.9})
    found = held(data, settings=strict)
    assert found.challenger is None
    assert "needed > 0.9" in found.verdict


def test_an_archived_version_that_answers_no_numbers_leaves_the_others() -> None:
    """Each is asked by itself: one cannot answer, one says NaN, and the third wins."""

    def fails(features: Any) -> Any:
        raise Refused("version 5 cannot answer: a number is not finite")

    knows = archived(7, champion("regression", changed=True))
    nan = archived(6, lambda features: np.full(len(features), np.nan))
    found = held(rows_of("regression", changed=True, seed=1), "regression", archive=[archived(5, fails), nan, knows])
    assert found.archived == 7
    assert [rival.name for rival in found.rivals] == ["version 7"]
    assert found.left_out == (
        "version 5 cannot answer: a number is not finite",
        "version 6 cannot answer: it says what is no number, or no class",
    )
    alone = held(mixed(600), fresh=600, archive=[nan], left_out=["version 4 does not load"], trains=False)
    assert alone.left_out[0] == "version 4 does not load"
    assert "version 4 does not load; version 6 cannot answer" in alone.verdict


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"maximum_model_mb": 1e-9}, "MB, at most 1e-09 are allowed"),
        ({"maximum_latency_ms": 1e-9}, "ms, at most 1e-09 are allowed"),
    ],
)
def test_an_archived_version_may_cost_no_more_than_a_new_one(changed: dict[str, float], reason: str) -> None:
    """What is too large or too slow by today's settings does not come back, however good it is."""
    old = archived(7, champion("binary", changed=True))
    found = held(mixed(0), archive=[old], trains=False, settings=SETTINGS.model_copy(update=changed))
    assert found.archived is None
    assert found.refused[0].startswith("version 7: ")
    assert reason in found.refused[0]


def test_after_an_archived_version_that_is_refused_the_next_one_is_asked() -> None:
    """The best is no model at all, and the second best comes back."""
    best = replace(archived(7, lambda features: mixed(0).target[-len(features) :]), onnx=b"nothing")
    second = archived(8, champion("binary", changed=True))
    found = held(mixed(0), archive=[best, second], trains=False)
    assert found.archived == 8
    assert found.refused[0].startswith("version 7: the exported model does not load")


def test_nobody_takes_away_missing_values_where_they_matter() -> None:
    """An archived version, then a forest: the reason is told of each, and boosted trees win."""
    old = archived(7, champion("binary", changed=True), accepts_missing=False)
    found = held(mixed(600), fresh=600, archive=[old], missing="the rows have some", settings=BOTH)
    assert found.archived is None
    assert found.challenger is not None
    assert found.challenger.accepts_missing
    assert "version 7: it does not accept missing values, the champion does, and the rows have some" in found.refused[0]
    with pytest.raises(Refused, match="all: it does not accept missing values"):
        held(mixed(0), missing="the rows have some", settings=SETTINGS.model_copy(update={"algorithms": [FOREST]}))
    assert held(mixed(600), fresh=600, archive=[old], settings=BOTH).archived == 7
