"""Exports a trained model to ONNX: only what is known to convert exactly; the parity gate judges the result."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from retrain.convertible import CORE_OPSET, require_convertible
from retrain.training import Trained

INPUT = "features"
ML_OPSET = 3


def outputs(trained: Trained) -> tuple[str, ...]:
    """Names of the ONNX outputs, in order."""
    return ("variable",) if trained.task == "regression" else ("label", "probabilities")


def export(trained: Trained, *, model: str, version: int, data_sha256: str) -> bytes:
    """The model as ONNX; its metadata carry the name, the version and the hash of the training data.

    Input ``features`` is float32 n × f. Outputs: ``label`` (int64 class index, n) and ``probabilities`` (n × classes),
    or ``variable`` (n × 1). Raises :class:`Refused` for a kind of model that is known to convert wrongly.
    """
    require_convertible(trained.native, trained.task)
    graph = convert(trained)
    graph.graph.name = model  # the converters draw one by lot: the same training would never give the same bytes
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
