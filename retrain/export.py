"""Exports a trained model to ONNX: only what is known to convert exactly; the parity gate judges the result."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

from retrain.training import OBJECTIVES, Refused, Trained

INPUT = "features"
ML_OPSET = 3
CORE_OPSET = 15
"""Newer than 15 the tree operators do not convert."""


def outputs(trained: Trained) -> tuple[str, ...]:
    """Names of the ONNX outputs, in order."""
    return ("variable",) if trained.task == "regression" else ("label", "probabilities")


def export(trained: Trained, *, model: str, version: int, data_sha256: str) -> bytes:
    """The model as ONNX; its metadata carry the name, the version and the hash of the training data.

    Input ``features`` is float32 n × f. Outputs: ``label`` (int64 class index, n) and ``probabilities`` (n × classes),
    or ``variable`` (n × 1). Raises :class:`Refused` for a kind of model that is known to convert wrongly.
    """
    _refuse_unknown(trained)
    graph = convert(trained)
    for key, value in (("model", model), ("version", str(version)), ("data_sha256", data_sha256)):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = graph.SerializeToString()
    return content


def convert(trained: Trained) -> Any:
    """The ONNX graph, without asking whether its kind converts exactly."""
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters warn about their own dependencies
        if trained.algorithm == "xgboost":
            import onnxmltools
            from onnxmltools.convert.common.data_types import FloatTensorType

            return onnxmltools.convert_xgboost(
                trained.native,
                initial_types=[(INPUT, FloatTensorType([None, trained.features]))],
                target_opset=CORE_OPSET,
            )
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType as SklearnFloatTensorType

        options = None if trained.task == "regression" else {id(trained.native): {"zipmap": False}}
        return convert_sklearn(
            trained.native,
            initial_types=[(INPUT, SklearnFloatTensorType([None, trained.features]))],
            target_opset={"": CORE_OPSET, "ai.onnx.ml": ML_OPSET},
            options=options,
        )


def _refuse_unknown(trained: Trained) -> None:
    if trained.algorithm == "random_forest":
        return
    learner = json.loads(trained.native.save_config())["learner"]
    booster = learner["gradient_booster"]["name"]
    objective = learner["objective"]["name"]
    if booster != "gbtree":
        raise Refused(f"booster {booster} does not convert to ONNX: use gbtree")
    if objective != OBJECTIVES[trained.task]:
        raise Refused(f"objective {objective} of a {trained.task} model does not convert to ONNX exactly")
    parallel = int(learner["gradient_booster"]["gbtree_model_param"]["num_parallel_tree"])
    if parallel != 1:
        raise Refused(f"num_parallel_tree {parallel} converts wrongly and silently: use 1")
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise Refused("a regression with several targets converts wrongly and silently")
