"""Trains a challenger on float32 rows: boosted trees, a forest, or a user's own. Pure given the arrays and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
BuiltIn = Literal["xgboost", "random_forest"]
Algorithm = BuiltIn | Literal["estimator"]
"""``estimator`` is a user's own: see :mod:`retrain.estimators`."""
TrainedTask = Literal["binary", "multiclass", "regression"]

OBJECTIVES: dict[TrainedTask, str] = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
}
LEARNING_RATE = 0.3
ROWS_A_LEAF = 64
"""A tree of a forest draws at most so many rows for each leaf that it may have: more would not show in so few leaves,
and 20,000 rows would take five times as long as 2,000.
"""
THREADS = 1
"""One core: the rows are few, and the machine's other cores belong to the stream."""


class Refused(Exception):
    """A challenger cannot be made of these rows or this model. ``str()`` is the reason, in one line, for a person."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. ``estimator`` names the user's own; trees and depth say nothing to it."""

    algorithm: Algorithm
    trees: int
    depth: int
    seed: int
    estimator: str = ""

    def __str__(self) -> str:
        """What a person calls it."""
        return self.estimator or self.algorithm.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in its own library. ``classes`` is the number of classes, 0 for a regression."""

    task: TrainedTask
    algorithm: Algorithm
    features: int
    classes: int
    native: Any
    estimator: str = ""

    @property
    def takes_nan(self) -> bool:
        """Whether NaN is a missing value to it; a forest trained with NaN converts wrongly and silently."""
        if self.algorithm == "estimator":
            from retrain import estimators

            return estimators.takes_nan(self.native)
        return self.algorithm == "xgboost"

    def predict(self, rows: Floats) -> Doubles:
        """n × classes probabilities, or n values of a regression."""
        if self.algorithm == "estimator":
            from retrain import estimators

            return estimators.predict(self.estimator, self.native, self.task, self.classes, rows)
        if self.algorithm == "random_forest":
            if self.task == "regression":
                return np.asarray(self.native.predict(rows), dtype=np.float64)
            return np.asarray(self.native.predict_proba(rows), dtype=np.float64)
        import xgboost

        raw = np.asarray(self.native.predict(xgboost.DMatrix(rows, nthread=THREADS)), dtype=np.float64)
        return np.column_stack([1.0 - raw, raw]) if self.task == "binary" else raw

    def thresholds(self) -> list[Floats]:
        """Per feature the values at which some tree splits, ascending: where a conversion goes wrong first."""
        if self.algorithm == "estimator":
            from retrain import estimators

            return estimators.thresholds(self.estimator, self.native, self.features)
        found: list[list[float]] = [[] for _ in range(self.features)]
        if self.algorithm == "xgboost":
            frame = self.native.trees_to_dataframe()
            splits = frame[frame["Feature"] != "Leaf"]
            for feature, split in zip(splits["Feature"], splits["Split"], strict=True):
                found[int(str(feature).removeprefix("f"))].append(float(split))
        else:
            for estimator in self.native.estimators_:
                for feature, split in zip(estimator.tree_.feature, estimator.tree_.threshold, strict=True):
                    if feature >= 0:
                        found[int(feature)].append(float(split))
        arrays = [np.unique(np.asarray(values, dtype=np.float32)) for values in found]
        return [values[np.isfinite(values)] for values in arrays]  # a split by absence alone lies at infinity


def train(
    task: TrainedTask,
    classes: int,
    rows: Floats,
    target: npt.NDArray[Any],
    recipe: Recipe,
    weights: Doubles | None = None,
) -> Trained:
    """Train on ``rows`` (n × features) and ``target`` (class indices from 0, or numbers); ``weights`` are n, above 0.

    Raises :class:`Refused` for rows that cannot be learnt from.
    """
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise Refused(f"the rows must be a float32 table, not {rows.dtype} with {rows.ndim} dimensions")
    if len(rows) < 2:
        raise Refused(f"{len(rows)} rows are too few to learn from")
    if np.isinf(rows).any():
        raise Refused("a feature is infinite")
    if task != "regression":
        seen = np.unique(target)
        if len(seen) < 2:
            raise Refused("the training rows have one class only")
        if seen[0] < 0 or seen[-1] >= classes:
            raise Refused(f"class indices {seen[0]}–{seen[-1]} do not fit {classes} classes")
    train_native = {"random_forest": _forest, "xgboost": _boost, "estimator": _own}[recipe.algorithm]
    native = train_native(task, classes, rows, target, recipe, weights)
    answers = 0 if task == "regression" else classes
    return Trained(task, recipe.algorithm, rows.shape[1], answers, native, recipe.estimator)


def _own(
    task: TrainedTask,
    classes: int,
    rows: Floats,
    target: npt.NDArray[Any],
    recipe: Recipe,
    weights: Doubles | None,
) -> Any:
    from retrain import estimators  # here, not above: it needs what this module defines

    return estimators.fit(
        recipe.estimator, task, 0 if task == "regression" else classes, rows, target, weights, recipe.seed
    )


def _boost(
    task: TrainedTask,
    classes: int,
    rows: Floats,
    target: npt.NDArray[Any],
    recipe: Recipe,
    weights: Doubles | None,
) -> Any:
    import xgboost  # here, not above: half a second that commands which train nothing need not pay

    parameters: dict[str, Any] = {
        "objective": OBJECTIVES[task],
        "max_depth": recipe.depth,
        "eta": LEARNING_RATE,
        "tree_method": "hist",
        "seed": recipe.seed,
        "nthread": THREADS,
        "verbosity": 0,
    }
    if task == "multiclass":
        parameters["num_class"] = classes
    # A Booster, not the scikit-learn wrapper: it takes a class that has no row, and it converts as it was trained.
    return xgboost.train(
        parameters, xgboost.DMatrix(rows, label=target, weight=weights, nthread=THREADS), num_boost_round=recipe.trees
    )


def _forest(
    task: TrainedTask,
    classes: int,
    rows: Floats,
    target: npt.NDArray[Any],
    recipe: Recipe,
    weights: Doubles | None,
) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if np.isnan(rows).any():
        raise Refused("a random forest trained with missing values converts wrongly: use algorithm xgboost")
    most = ROWS_A_LEAF * 2**recipe.depth
    common: dict[str, Any] = {
        "n_estimators": recipe.trees,
        "max_depth": recipe.depth,
        "max_samples": most if most < len(rows) else None,
        "random_state": recipe.seed,
        "n_jobs": THREADS,
    }
    if task == "regression":
        return RandomForestRegressor(**common).fit(rows, target, weights)
    if len(np.unique(target)) < classes:
        raise Refused("a random forest needs a row of every class: wait for more labels or use algorithm xgboost")
    return RandomForestClassifier(**common).fit(rows, target, weights)
