"""Small real models for the tests: trained here, converted to ONNX, put into a repository."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import onnxmltools
import xgboost
from numpy.typing import NDArray
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression

from serving.manifest import Feature, Manifest, Signature
from serving.model_file import sha256
from serving.repository import Repository
from streams.events import Label, ModelState, Task

FEATURES = ["income", "age", "debt"]


@dataclass(frozen=True)
class Made:
    """A converted model, what trained it, and rows to ask about."""

    onnx: bytes
    native: Any
    rows: NDArray[np.float32]
    task: Task
    classes: list[Label] = field(default_factory=list)
    positive: Label | None = None
    signature: Signature = field(default_factory=lambda: signature(probabilities="probabilities"))

    def manifest(self, model: str, version: int, **changes: Any) -> Manifest:
        """A manifest that fits."""
        made = Manifest(
            model=model,
            version=version,
            sha256=sha256(self.onnx),
            size_bytes=len(self.onnx),
            created_at="2026-01-01T00:00:00Z",
            task=self.task,
            signature=self.signature,
            classes=self.classes,
            positive=self.positive,
        )
        return msgspec.structs.replace(made, **changes)


def signature(**changes: Any) -> Signature:
    """The signature of the tests' three features."""
    return Signature(features=[Feature(name) for name in FEATURES], input="X", **changes)


def rows(seed: int = 0, count: int = 400) -> NDArray[np.float32]:
    """Rows of three features."""
    return np.random.default_rng(seed).normal(size=(count, len(FEATURES))).astype(np.float32)


def binary(*, flipped: bool = False, seed: int = 0) -> Made:
    """A logistic regression with text labels that approves an income above zero; ``flipped`` denies it."""
    x = rows(seed)
    y = np.where((x[:, 0] > 0) != flipped, "approve", "deny")
    native = LogisticRegression().fit(x, y)
    onnx = to_onnx(native, x[:1], options={"zipmap": False}).SerializeToString()
    return Made(onnx, native, x, "binary", ["approve", "deny"], "approve")


def multiclass() -> Made:
    """XGBoost with three integer classes."""
    x = rows(1)
    y = np.digitize(x[:, 0], [-0.5, 0.5])
    native = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(x, y)
    onnx = onnxmltools.convert_xgboost(
        native, initial_types=[("X", FloatTensorType([None, len(FEATURES)]))], target_opset=15
    ).SerializeToString()
    made = signature(probabilities="probabilities", label="label", accepts_missing=True)
    return Made(onnx, native, x, "multiclass", [0, 1, 2], None, made)


def regression() -> Made:
    """A linear regression."""
    x = rows(2)
    native = LinearRegression().fit(x, 3.0 * x[:, 0] - x[:, 2] + 1.0)
    return Made(
        to_onnx(native, x[:1]).SerializeToString(), native, x, "regression", signature=signature(value="variable")
    )


def put(repository: Repository, model: str, made: Made) -> int:
    """Write a model as the next version."""
    version = repository.reserve_version(model)
    repository.write_version(model, version, made.onnx, made.manifest(model, version), f"# {model} {version}\n")
    return version


def state(model: str, made: Made, champion: int, revision: int = 1, **aliases: int) -> ModelState:
    """A state whose champion is given."""
    named = {"champion": str(champion)} | {alias: str(version) for alias, version in aliases.items()}
    return ModelState(model, revision, made.task, made.classes or None, made.positive, named)


def serve_first(repository: Repository, model: str, made: Made) -> ModelState:
    """Write version 1 and make it the champion."""
    return repository.create_state(model, state(model, made, put(repository, model, made)))


def categorical(name: str, categories: list[str]) -> Feature:
    """A feature that may be sent as text."""
    return Feature(name, "categorical", categories)


def with_features(made: Signature, features: list[Feature]) -> Signature:
    """The signature with other features."""
    return msgspec.structs.replace(made, features=features)
