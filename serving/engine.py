"""One version in ONNX Runtime: numbers in, the model's own class labels and scores out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.manifest import Manifest
from streams.events import Label, Value

Features = NDArray[np.float32]
TENSOR = "tensor(float)"
NO_SPINNING = "session.intra_op.allow_spinning"
ERRORS_ONLY = 3


class UnusableModel(ValueError):
    """A model that ONNX Runtime refuses, or whose graph is not what its manifest says."""


class UnusableOutput(ArithmeticError):
    """A model answered with a number that is none, or with a class that it does not have."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a model said about some rows.

    ``scores`` are the probability of the positive class (binary) or of the predicted class (multiclass);
    ``probabilities`` have one column per class of the manifest. A regression has neither.
    """

    predictions: list[Value]
    scores: list[float] | None
    probabilities: list[list[float]] | None


class LoadedModel:
    """A session made of bytes, checked against its manifest's signature. Thread-safe.

    Raises :class:`UnusableModel`. ``threads`` are ONNX Runtime's for one request.
    """

    def __init__(self, onnx: bytes, manifest: Manifest, threads: int = 1) -> None:
        self.manifest = manifest
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry(NO_SPINNING, "0")  # a spinning thread takes the core that HTTP needs
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 — the runtime raises classes of its own per status, without a base
            raise UnusableModel(f"ONNX Runtime refuses it: {str(error).splitlines()[0]}") from None
        self._check_graph()
        signature = manifest.signature
        self._input = signature.input
        self._output = signature.value or signature.probabilities or signature.label
        self._classes = manifest.classes
        self._positive = None if manifest.task == "regression" else self._column_of(manifest.positive)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.manifest.model

    @property
    def version(self) -> int:
        """The version's number."""
        return self.manifest.version

    def _column_of(self, positive: Label | None) -> int | None:
        return self._classes.index(positive) if positive is not None and self.manifest.task == "binary" else None

    def _check_graph(self) -> None:
        signature = self.manifest.signature
        inputs = self._session.get_inputs()
        if [i.name for i in inputs] != [signature.input] or inputs[0].type != TENSOR:
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs)
            raise UnusableModel(f"its inputs are {found}, the manifest says {signature.input}: {TENSOR}")
        width = inputs[0].shape[-1] if inputs[0].shape else None
        if isinstance(width, int) and width != len(signature.features):
            raise UnusableModel(f"it takes {width} features, the manifest names {len(signature.features)}")
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        for name in (signature.label, signature.probabilities, signature.value):
            if name is not None and name not in outputs:
                raise UnusableModel(f"it has no output {name}, only {', '.join(outputs)}")
        for name in (signature.probabilities, signature.value):
            if name is not None and outputs[name] != TENSOR:
                raise UnusableModel(f"its output {name} is {outputs[name]}, not {TENSOR} (convert it without ZipMap)")

    def predict(self, features: Features, options: onnxruntime.RunOptions | None = None) -> Predicted:
        """Predictions for [rows, features]. Raises :class:`UnusableOutput` for what no reader could use.

        ``options`` let another thread end the call, which then raises what the runtime raises.
        """
        output = self._session.run([self._output], {self._input: features}, options)[0]
        if self.manifest.task == "regression":
            return Predicted(_finite(np.asarray(output, np.float32).reshape(len(features))).tolist(), None, None)
        if self.manifest.signature.probabilities is None:
            return Predicted([self._label(label) for label in np.asarray(output).reshape(-1).tolist()], None, None)
        return self._classify(_finite(np.asarray(output, np.float32)), len(features))

    def _classify(self, probabilities: Features, rows: int) -> Predicted:
        if probabilities.shape != (rows, len(self._classes)):
            raise UnusableOutput(f"the model answered {probabilities.shape} for {rows} rows")
        bounded = np.clip(probabilities, 0.0, 1.0)  # a sum of trees may end at 1.0000001
        best = bounded.argmax(axis=1)
        scores = bounded.max(axis=1) if self._positive is None else bounded[:, self._positive]
        return Predicted([self._classes[i] for i in best.tolist()], scores.tolist(), bounded.tolist())

    def _label(self, label: Any) -> Label:
        if label not in self._classes:
            raise UnusableOutput(f"the model answered {label!r}, which is none of its classes")
        return self._classes[self._classes.index(label)]

    def warm_up(self) -> None:
        """Predict one row, so that the first request does not pay for allocations. Raises :class:`UnusableModel`."""
        try:
            self.predict(np.zeros((1, len(self.manifest.signature.features)), np.float32))
        except Exception as error:  # noqa: BLE001 — as above; whatever it is, this model must not serve
            raise UnusableModel(f"it cannot predict: {str(error).splitlines()[0]}") from None


def _finite(numbers: Features) -> Features:
    if not np.isfinite(numbers).all():
        raise UnusableOutput("the model answered with a number that is not finite")
    return numbers
