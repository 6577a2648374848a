"""Estimators of users, good and bad: a test installs this module as a package of its own with entry points."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def boosted(task: str, classes: int, seed: int) -> Any:
    """scikit-learn's boosted trees as they are: the converters know them."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    kind = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    return kind(n_estimators=10, max_depth=3, random_state=seed)


def xgb(task: str, classes: int, seed: int) -> Any:
    """A wrapper of XGBoost, which knows missing values."""
    from xgboost import XGBClassifier

    made = XGBClassifier(n_estimators=10, max_depth=3, random_state=seed)
    made.accepts_missing = True
    return made


def parallel(task: str, classes: int, seed: int) -> Any:
    """Converts wrongly and silently."""
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=5, num_parallel_tree=2)


def scaled_trees(task: str, classes: int, seed: int) -> Any:
    """Converts wrongly and silently."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=5))


class Prior:
    """Answers how often each class was, and converts to nothing."""

    def __init__(self, task: str, classes: int, seed: int) -> None:
        self.classes = classes
        self.share: Any = None

    def fit(self, rows: Any, target: Any, sample_weight: Any = None) -> None:
        self.share = np.bincount(target, minlength=self.classes) / len(target)

    def predict_proba(self, rows: Any) -> Any:
        return np.tile(self.share, (len(rows), 1))


class RaisesInTheMaking:
    def __init__(self, task: str, classes: int, seed: int) -> None:
        raise ValueError("no licence")


class Raises(Prior):
    def fit(self, rows: Any, target: Any, sample_weight: Any = None) -> None:
        raise MemoryError("too many rows")


class Exits(Prior):
    def fit(self, rows: Any, target: Any, sample_weight: Any = None) -> None:
        raise SystemExit(3)


class Hangs(Prior):
    def fit(self, rows: Any, target: Any, sample_weight: Any = None) -> None:
        time.sleep(3_600)


class OneColumn(Prior):
    def predict_proba(self, rows: Any) -> Any:
        return super().predict_proba(rows)[:, :1]


class NoProbabilities(Prior):
    def predict_proba(self, rows: Any) -> Any:
        return 2 * super().predict_proba(rows)


class NotANumber(Prior):
    def predict_proba(self, rows: Any) -> Any:
        return np.nan * super().predict_proba(rows)


class FitsNothing:
    def __init__(self, task: str, classes: int, seed: int) -> None:
        pass


class Converted(Prior):
    """Learns one threshold of the first feature, and answers as its own graph does."""

    def fit(self, rows: Any, target: Any, sample_weight: Any = None) -> None:
        from sklearn.tree import DecisionTreeClassifier

        self.tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(rows, target)

    def predict_proba(self, rows: Any) -> Any:
        return self.tree.predict_proba(rows)

    def graph(self, features: int, tree: Any, name: str = "features", zipmap: bool = False) -> Any:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType

        return convert_sklearn(
            tree,
            initial_types=[(name, FloatTensorType([None, features]))],
            options={id(tree): {"zipmap": zipmap}},
            target_opset={"": 15, "ai.onnx.ml": 3},
        )

    def to_onnx(self, features: int) -> Any:
        return self.graph(features, self.tree).SerializeToString()


class ConvertedWrongly(Converted):
    """Its graph is of another tree: nearly the same, and wrong where it splits."""

    def to_onnx(self, features: int) -> Any:
        from sklearn.tree import DecisionTreeClassifier

        rows = np.random.default_rng(0).random((300, features)).astype(np.float32)
        other = DecisionTreeClassifier(max_depth=1).fit(rows, (rows[:, 0] > 0.6).astype(np.int64))
        return self.graph(features, other)


class OtherInput(Converted):
    def to_onnx(self, features: int) -> Any:
        return self.graph(features, self.tree, "X")


class ZipMapped(Converted):
    def to_onnx(self, features: int) -> Any:
        return self.graph(features, self.tree, zipmap=True)


class NoGraph(Converted):
    def to_onnx(self, features: int) -> Any:
        return "model.onnx"


class FailsToConvert(Converted):
    def to_onnx(self, features: int) -> Any:
        raise RuntimeError("unsupported operator")
