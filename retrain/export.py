"""Exports a trained model to ONNX: only what is known to convert exactly; the parity gate judges the result."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from retrain.convertible import CORE_OPSET, require_convertible, require_no_scaled_trees
from retrain.estimators import to_onnx
from retrain.scoring import open_session, run_session
from retrain.training import Refused, Trained

INPUT = "features"
ML_OPSET = 3


def outputs(content: bytes) -> tuple[str, ...]:
    """Names of the ONNX outputs, in order: label and probabilities, or the value of a regression."""
    import onnx  # here, not above: commands that export nothing need not pay for it

    return tuple(output.name for output in onnx.load_model_from_string(content).graph.output)


def export(trained: Trained, *, model: str, version: int, data_sha256: str) -> bytes:
    """The model as ONNX; its metadata carry the name, the version and the hash of the training data.

    Input ``features`` is float32 n × f. Outputs: a label (int64 class index, n) and probabilities (n × classes), or a
    value (n × 1). Raises :class:`Refused` for a kind of model that is known to convert wrongly, and for a user's own
    estimator that does not convert to this.
    """
    if trained.algorithm == "estimator":
        graph = _own(trained)
    else:
        require_convertible(trained.native, trained.task)
        graph = convert(trained)
    graph.graph.name = model  # the converters draw one by lot: the same training would never give the same bytes
    for key, value in (("model", model), ("version", str(version)), ("data_sha256", data_sha256)):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = graph.SerializeToString()
    if trained.algorithm == "estimator":
        _require_shape(trained, content)
    return content


def _own(trained: Trained) -> Any:
    """The graph of a user's estimator, by its own conversion or by the converters."""
    name, native = trained.estimator, trained.native
    made = to_onnx(name, native, trained.features)
    if made is not None:
        return made
    if _is_boosted(native):
        require_convertible(native, trained.task)
    require_no_scaled_trees(native)
    try:
        return convert(trained)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise Refused(f"the estimator {name} has no to_onnx, and the converters do not know it: {said}") from error


def _is_boosted(native: Any) -> bool:
    return type(native).__module__.partition(".")[0] == "xgboost"


def _require_shape(trained: Trained, content: bytes) -> None:
    """Raise :class:`Refused` for a graph that is not called or does not answer as the contract says."""
    name, session = trained.estimator, open_session(content)
    inputs = [(each.name, each.type) for each in session.get_inputs()]
    if inputs != [(INPUT, "tensor(float)")]:
        found = ", ".join(f"{each}: {kind}" for each, kind in inputs)
        raise Refused(f"the ONNX of the estimator {name} takes {found}, not one {INPUT}: tensor(float)")
    wanted = ["tensor(float)"] if trained.task == "regression" else ["tensor(int64)", "tensor(float)"]
    kinds = [each.type for each in session.get_outputs()]
    if kinds != wanted:
        raise Refused(f"the ONNX of the estimator {name} answers {', '.join(kinds)}, not {', '.join(wanted)}")
    try:
        run_session(session, np.zeros((2, trained.features), dtype=np.float32))
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise Refused(f"the ONNX of the estimator {name} does not answer two rows: {said}") from error


def convert(trained: Trained) -> Any:
    """The ONNX graph, without asking whether its kind converts exactly."""
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters warn about their own dependencies
        if _is_boosted(trained.native):
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
