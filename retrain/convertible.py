"""Which models convert to ONNX exactly: an allow-list, since the converters are silently wrong about the others.

Measured with xgboost 3.2, onnxmltools 1.16 and skl2onnx 1.20: two trees a round, trees added by a warm start, a
regressor with another objective, several targets and forests trained with missing values convert without a word and
answer something else. The parity gate would see most of it; a name says what to change.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from retrain.training import OBJECTIVES, Floats, Refused, TrainedTask

CORE_OPSET = 15
"""Newer than 15 the tree operators do not convert."""


def require_convertible(native: Any, task: TrainedTask, rows: Floats | None = None) -> None:
    """Raise :class:`Refused`, naming the cause and what to use instead, for a model that does not convert exactly.

    ``native`` is a booster, a scikit-learn wrapper of one, or a forest; ``rows`` are what it was trained on, as far as
    known: a forest does not remember whether values were missing.
    """
    kind = type(native).__name__
    family = type(native).__module__.partition(".")[0]
    if kind in ("Pipeline", "ColumnTransformer") or hasattr(native, "steps"):
        raise Refused(f"a {kind} converts wrongly and silently: trees need no scaling, train them on float32 rows")
    if family == "xgboost":
        _require_boosted(native, task)
    elif kind in ("RandomForestClassifier", "RandomForestRegressor"):
        _require_forest(native, rows)
    else:
        raise Refused(f"{kind} is not known to convert to ONNX exactly: use XGBoost or a random forest")


def require_no_scaled_trees(native: Any) -> None:
    """Raise :class:`Refused` for a pipeline that ends in trees: behind a scaler they convert wrongly and silently."""
    steps = getattr(native, "steps", None)
    if not steps or len(steps) < 2:
        return
    last = steps[-1][1]
    trees = hasattr(last, "tree_") or type(last).__module__.partition(".")[0] in ("xgboost", "lightgbm", "catboost")
    ensemble = np.ravel(np.asarray(getattr(last, "estimators_", []), dtype=object))
    if trees or any(hasattr(member, "tree_") for member in ensemble) or "gradient_boosting" in type(last).__module__:
        raise Refused(f"a pipeline before {type(last).__name__} converts wrongly and silently: trees need no scaling")


def require_opset(opset: int) -> None:
    """Raise :class:`Refused` for a target that the tree operators do not convert to."""
    if opset > CORE_OPSET:
        raise Refused(f"opset {opset} is too new for the tree operators: use {CORE_OPSET}")


def _require_boosted(native: Any, task: TrainedTask) -> None:
    wrapper = native if hasattr(native, "get_booster") else None
    booster = native.get_booster() if wrapper is not None else native
    learner = json.loads(booster.save_config())["learner"]
    kind, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind != "gbtree":
        raise Refused(f"booster {kind} does not convert to ONNX: use gbtree")
    if objective != OBJECTIVES[task]:
        raise Refused(f"objective {objective} of a {task} model converts wrongly and silently: use {OBJECTIVES[task]}")
    if wrapper is not None and objective != "reg:squarederror" and type(wrapper).__name__.endswith("Regressor"):
        raise Refused(f"{type(wrapper).__name__} with {objective} converts wrongly and silently: use a classifier")
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise Refused("a regression with several targets converts wrongly and silently: train one model a target")
    random_forest = wrapper is not None and type(wrapper).__name__.startswith("XGBRF")
    parallel = int(learner["gradient_booster"]["gbtree_model_param"]["num_parallel_tree"])
    if parallel != 1 and not random_forest:
        raise Refused(f"num_parallel_tree {parallel} converts wrongly and silently: use 1")
    _require_plain_names(booster)
    if wrapper is not None and not random_forest:
        _require_own_rounds(wrapper, booster)


def _require_plain_names(booster: Any) -> None:
    names = booster.feature_names
    if names is not None and list(names) != [f"f{i}" for i in range(len(names))]:
        raise Refused(
            f"feature names such as {names[0]!r} do not convert: train on arrays, or name them f0 to f{len(names) - 1}"
        )


def _require_own_rounds(wrapper: Any, booster: Any) -> None:
    rounds, declared = booster.num_boosted_rounds(), wrapper.n_estimators
    if declared is not None and rounds > declared:
        raise Refused(
            f"a warm start made {rounds} rounds of n_estimators = {declared}, which converts wrongly and silently:"
            f" set n_estimators to {rounds}, or convert the booster"
        )


def _require_forest(native: Any, rows: Floats | None) -> None:
    if getattr(native, "n_outputs_", 1) > 1:
        raise Refused("a forest with several targets is not known to convert exactly: train one model a target")
    if rows is not None and np.isnan(rows).any():
        raise Refused("a random forest trained with missing values converts wrongly and silently: use XGBoost")
