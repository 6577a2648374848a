"""Answers of an exported model, straight from ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrain.training import Doubles, Floats, Indices, Refused

ERRORS_ONLY = 3


def open_session(onnx: bytes) -> Any:
    """A session of one thread. Raises :class:`Refused` for what does not load."""
    import onnxruntime  # here, not above: commands that score nothing need not pay for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(f"the exported model does not load: {str(error).splitlines()[0][:200]}") from error


def run_session(session: Any, rows: Floats) -> tuple[Indices | None, Doubles]:
    """Labels (None of a regression) and probabilities or values, in the shapes that the graph gives them."""
    results = session.run(None, {session.get_inputs()[0].name: rows})
    answers = np.asarray(results[-1], dtype=np.float64)
    return (np.asarray(results[0]) if len(results) == 2 else None), answers
