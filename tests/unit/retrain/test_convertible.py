"""The table of what converts to ONNX: what does passes the gate, the silently wrong is refused by name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxmltools
import pandas as pd
import pytest
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_converter
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType as SklearnFloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retrain.convertible import CORE_OPSET, require_convertible, require_opset
from retrain.parity import ABSOLUTE, Parity, check
from retrain.scoring import open_session, run_session
from retrain.training import Doubles, Floats, Refused, Trained, TrainedTask
from tests.unit.retrain.rows import features

ROWS = 600
PROBES = 10_000


def rows_of(*, missing: float = 0.0, categories: bool = False) -> Floats:
    """Three features; `c` may be a category's code, any may be missing."""
    rows = features(ROWS)
    if categories:
        rows[:, 2] = np.floor(rows[:, 2] * 5)
    if missing:
        rows[np.random.default_rng(1).random(rows.shape) < missing] = np.nan
    return rows


def target_of(rows: Floats, classes: int = 2) -> Any:
    """A learnable class; 0 classes ask for a number."""
    filled = np.nan_to_num(rows, nan=0.3)
    if classes == 0:
        return filled[:, 0] * 1_000 + filled[:, 1] * 100
    if classes == 2:
        return (filled[:, 0] > filled[:, 1]).astype(np.int64)
    return np.minimum(np.floor(filled[:, 0] * classes), classes - 1).astype(np.int64)


def converted(native: Any, opset: int = CORE_OPSET) -> bytes:
    """The conversion without any question."""
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = onnxmltools.convert_xgboost(
            native, initial_types=[("features", FloatTensorType([None, 3]))], target_opset=opset
        )
    content: bytes = graph.SerializeToString()
    return content


class Wrapped(Trained):
    """A booster with what its own library answers, whatever made it."""

    def predict(self, rows: Floats) -> Doubles:
        answered = np.asarray(self.native.inplace_predict(rows), dtype=np.float64)
        return np.column_stack([1.0 - answered, answered]) if self.task == "binary" else answered


# What converts ----------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A model that must pass: what it is, how it is trained, and on which rows."""

    task: TrainedTask
    fit: Callable[[Floats, Any], Any]
    missing: float = 0.0
    categories: bool = False
    classes: int = 2


def classifier(**more: Any) -> Any:
    """The wrapper that most people use."""
    return xgboost.XGBClassifier(**{"n_estimators": 12, "max_depth": 4, **more})


def stopped_early(rows: Floats, target: Any) -> Any:
    """Fewer rounds than were asked for."""
    model = classifier(n_estimators=200, early_stopping_rounds=3)
    return model.fit(rows[:400], target[:400], eval_set=[(rows[400:], target[400:])], verbose=False)


def with_categories(rows: Floats, target: Any) -> Any:
    """One feature is a category: splits on sets of codes."""
    data = xgboost.DMatrix(rows, label=target, feature_types=["q", "q", "c"], enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "max_depth": 4, "max_cat_to_onehot": 1}, data, 12)


CONVERTS: dict[str, Case] = {
    "binary": Case("binary", lambda x, y: classifier().fit(x, y)),
    "multiclass": Case("multiclass", lambda x, y: classifier().fit(x, y), classes=3),
    "missing": Case("binary", lambda x, y: classifier().fit(x, y), missing=0.2),
    "base_score": Case("binary", lambda x, y: classifier(base_score=0.3).fit(x, y)),
    "early_stopping": Case("binary", stopped_early),
    "scale_pos_weight": Case("binary", lambda x, y: classifier(scale_pos_weight=3).fit(x, y)),
    "random_forest": Case("binary", lambda x, y: xgboost.XGBRFClassifier(n_estimators=12, max_depth=4).fit(x, y)),
    "regression": Case("regression", lambda x, y: xgboost.XGBRegressor(n_estimators=12).fit(x, y), classes=0),
}


def parity_of(case: Case) -> Parity:
    """The gate's verdict on a conversion."""
    rows = rows_of(missing=case.missing, categories=case.categories)
    native = case.fit(rows, target_of(rows, case.classes))
    require_convertible(native, case.task)
    booster = native.get_booster() if hasattr(native, "get_booster") else native
    if booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]  # what the wrapper itself answers with
    model = Wrapped(case.task, "xgboost", 3, case.classes, booster)
    return check(model, converted(native), rows, minimum_rows=PROBES, seed=0)


@pytest.mark.parametrize("name", list(CONVERTS))
def test_what_converts_passes_the_gate(name: str) -> None:
    """10,000 rows and more, thresholds, missing values and beyond every range: none over the tolerance."""
    report = parity_of(CONVERTS[name])
    assert report.passed, report.describe()
    assert report.rows >= PROBES
    assert min(report.threshold_rows, report.nan_rows, report.unseen_rows, report.single_rows) > 0


def test_categories_convert_on_those_that_were_seen() -> None:
    """Splits on sets of categories convert exactly, also for missing ones and for codes that nobody has seen."""
    rows = rows_of(categories=True)
    native = with_categories(rows, target_of(rows))
    require_convertible(native, "binary")
    probes = np.concatenate([rows, rows])
    probes[ROWS:, 2] = np.where(np.arange(ROWS) % 2, np.nan, 9.0)
    told = xgboost.DMatrix(probes, feature_types=["q", "q", "c"], enable_categorical=True)
    expected = np.asarray(native.predict(told), dtype=np.float64)
    _, answers = run_session(open_session(converted(native)), probes)
    assert np.abs(answers[:, 1] - expected).max() <= ABSOLUTE


# What does not ----------------------------------------------------------------------------------------------------


def warm_started(rows: Floats, target: Any) -> Any:
    """Twice the rounds of n_estimators."""
    first = classifier().fit(rows, target)
    return classifier().fit(rows, target, xgb_model=first.get_booster())


def several_targets(rows: Floats, _: Any) -> Any:
    """Two numbers a row."""
    return xgboost.XGBRegressor(n_estimators=12).fit(rows, rows[:, :2])


def with_names(rows: Floats, target: Any) -> Any:
    """A data frame's columns."""
    return classifier().fit(pd.DataFrame(rows, columns=["age", "income", "debt"]), target)


@dataclass
class Wrong:
    """A model that must be refused, and what a conversion of it would do: answer wrongly, or raise."""

    task: TrainedTask
    fit: Callable[[Floats, Any], Any]
    reason: str
    raises: bool = False


REFUSED: dict[str, Wrong] = {
    "warm_start": Wrong("binary", warm_started, "warm start made 24 rounds of n_estimators = 12"),
    "num_parallel_tree": Wrong(
        "binary", lambda x, y: classifier(num_parallel_tree=2, subsample=0.5).fit(x, y), "num_parallel_tree 2"
    ),
    "regressor_with_logistic": Wrong(
        "binary",
        lambda x, y: xgboost.XGBRegressor(n_estimators=12, objective="binary:logistic").fit(x, y),
        "XGBRegressor with binary:logistic",
    ),
    "several_targets": Wrong("regression", several_targets, "several targets"),
    "dart": Wrong("binary", lambda x, y: classifier(booster="dart").fit(x, y), "booster dart", raises=True),
    "gblinear": Wrong("binary", lambda x, y: classifier(booster="gblinear").fit(x, y), "booster gblinear", raises=True),
    "feature_names": Wrong("binary", with_names, "feature names such as 'age'", raises=True),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_converts_wrongly_is_refused_by_name(name: str) -> None:
    """Before any conversion, with the cause; and the conversion would indeed be wrong, which this list is there for."""
    wrong = REFUSED[name]
    rows = rows_of()
    native = wrong.fit(rows, target_of(rows))
    with pytest.raises(Refused, match=wrong.reason):
        require_convertible(native, wrong.task)
    if wrong.raises:
        with pytest.raises((KeyError, RuntimeError)):
            converted(native)
        return
    answered = native.predict_proba(rows) if hasattr(native, "predict_proba") else native.predict(rows)
    expected = np.asarray(answered, dtype=np.float64).reshape(ROWS, -1)
    _, answers = run_session(open_session(converted(native)), rows)
    assert answers.shape != expected.shape or np.abs(answers - expected).max() > 0.01


def test_another_objective_is_refused() -> None:
    """Poisson converts to something; only the objective of the task is known to convert exactly."""
    rows = rows_of()
    counts = np.floor(target_of(rows, 0) / 100)
    native = xgboost.XGBRegressor(n_estimators=5, objective="count:poisson").fit(rows, counts)
    with pytest.raises(Refused, match="objective count:poisson of a regression model"):
        require_convertible(native, "regression")


def test_a_booster_of_a_warm_start_converts() -> None:
    """The way out that the refusal names."""
    rows = rows_of()
    booster = warm_started(rows, target_of(rows)).get_booster()
    require_convertible(booster, "binary")
    model = Trained("binary", "xgboost", 3, 2, booster)
    assert check(model, converted(booster), rows, minimum_rows=2_000, seed=0).passed


def test_a_forest_trained_with_missing_values_is_refused() -> None:
    """It converts, and answers something else: by more than a fifth somewhere."""
    rows = rows_of(missing=0.3)
    forest = RandomForestClassifier(20, max_depth=6, random_state=0).fit(rows, target_of(rows))
    with pytest.raises(Refused, match="random forest trained with missing values"):
        require_convertible(forest, "binary", rows)
    graph = convert_sklearn(
        forest, initial_types=[("features", SklearnFloatTensorType([None, 3]))], options={id(forest): {"zipmap": False}}
    )
    _, answers = run_session(open_session(graph.SerializeToString()), rows)
    assert np.abs(answers - forest.predict_proba(rows)).max() > 0.1
    require_convertible(forest, "binary", rows_of())  # what it was not told it cannot know


def test_a_scaler_before_the_trees_is_refused() -> None:
    """The scaler's float32 rounds otherwise than training's float64: rows near a threshold fall to the other side."""
    rows = (features(5_000) * np.asarray([1e5, 1, 1e-3], dtype=np.float32)).astype(np.float32)
    model = make_pipeline(StandardScaler(), classifier(n_estimators=50, max_depth=8)).fit(
        rows, target_of(features(5_000))
    )
    with pytest.raises(Refused, match="Pipeline converts wrongly and silently: trees need no scaling"):
        require_convertible(model, "binary")
    update_registered_converter(
        xgboost.XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        xgboost_converter,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = convert_sklearn(
            model,
            initial_types=[("features", SklearnFloatTensorType([None, 3]))],
            target_opset={"": CORE_OPSET, "ai.onnx.ml": 3},
            options={id(model): {"zipmap": False}},
        )
    _, answers = run_session(open_session(graph.SerializeToString()), rows)
    assert np.abs(answers - model.predict_proba(rows)).max() > 0.01


def test_a_kind_that_nobody_has_measured_is_refused() -> None:
    """An allow-list: what is not on it does not convert."""
    rows = rows_of()
    with pytest.raises(Refused, match="LogisticRegression is not known to convert"):
        require_convertible(LogisticRegression().fit(rows, target_of(rows)), "binary")


def test_an_opset_that_is_too_new_is_refused() -> None:
    """16 and above: the converter raises, and the refusal says what to use."""
    require_opset(CORE_OPSET)
    with pytest.raises(Refused, match="opset 16 is too new for the tree operators: use 15"):
        require_opset(CORE_OPSET + 1)
    rows = rows_of()
    with pytest.raises(RuntimeError, match="opset"):
        converted(classifier().fit(rows, target_of(rows)), CORE_OPSET + 1)
