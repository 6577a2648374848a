"""The Open Inference Protocol v2 as JSON: requests to rows of numbers, predictions to responses. Pure.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.engine import Features, Predicted
from serving.manifest import Feature, Manifest, Signature
from streams.events import Id

NUMBERS = frozenset(
    {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL"}
)
TEXT = "BYTES"
MAX_SEGMENT = 200


class RequestError(Exception):
    """A request that cannot be answered: the HTTP status, and what is wrong in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class InputTensor(msgspec.Struct):
    """One input; ``data`` flat or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw


class Parameters(msgspec.Struct):
    """Parameters of ours in a request: the rows' prediction ids and their segment. Others are left alone."""

    prediction_ids: list[Id] | None = None
    segment: str | None = None


class RequestedOutput(msgspec.Struct):
    """One output that the client asks for."""

    name: str


class InferRequest(msgspec.Struct):
    """An inference request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct):
    """One output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """An inference response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a request: as the model takes them, and as they were sent (``texts`` by column)."""

    tensor: Features
    sent: NDArray[np.float64]
    texts: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tensor)

    def features(self, names: Sequence[str]) -> list[dict[str, float | int | str | bool | None]]:
        """Each row's features by name, as they were sent; a missing one is None."""
        table: list[list[Any]] = self.sent.tolist()
        if np.isnan(self.sent).any():
            table = [[None if math.isnan(value) else value for value in row] for row in table]
        for column, texts in self.texts.items():
            for row, text in zip(table, texts, strict=True):
                row[column] = text
        return [dict(zip(names, row, strict=True)) for row in table]


_request = msgspec.json.Decoder(InferRequest)
_flat = msgspec.json.Decoder(list[float])
_numbers = tuple(
    msgspec.json.Decoder(kind)
    for kind in (list[list[float]], list[float | None], list[list[float | None]], list[bool], list[list[bool]])
)
_texts = tuple(msgspec.json.Decoder(kind) for kind in (list[str], list[list[str]]))


def decode(body: bytes) -> InferRequest:
    """The request in a body. Raises :class:`RequestError`."""
    try:
        return _request.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(400, f"not an inference request: {error}") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, _malformed(body, error)) from None


def _malformed(body: bytes, error: msgspec.DecodeError) -> str:
    """``NaN`` is not JSON, but Python's own encoder writes it: say so."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return f"the body is not JSON: {error}"
    return "NaN and Infinity are not JSON numbers; send null for a missing value"


def rows(request: InferRequest, signature: Signature, limit: int) -> Rows:
    """The rows that a request asks about: one tensor [n, f], or one [n] or [n, 1] per feature.

    Raises :class:`RequestError`: 413 for more than ``limit`` rows, else 400.
    """
    given = {tensor.name: tensor for tensor in request.inputs}
    if len(given) != len(request.inputs) or not given:
        raise RequestError(400, "inputs must be there and have different names")
    if list(given) == [signature.input] and signature.input not in signature.names:
        found = _one_tensor(given[signature.input], signature, limit)
    else:
        found = _tensor_per_feature(given, signature, limit)
    _check_values(found, signature)
    return found


def _one_tensor(tensor: InputTensor, signature: Signature, limit: int) -> Rows:
    width = len(signature.features)
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise RequestError(400, f"input {tensor.name} has shape {tensor.shape}, the model takes [rows, {width}]")
    count = _check_count(tensor, limit)
    values = _decode_numbers(tensor, count * width).reshape(count, width)
    return _as_rows(values, {})


def _tensor_per_feature(given: dict[str, InputTensor], signature: Signature, limit: int) -> Rows:
    if set(given) != set(signature.names):
        missing = ", ".join(n for n in signature.names if n not in given) or "none"
        unknown = ", ".join(n for n in given if n not in signature.names) or "none"
        raise RequestError(
            400,
            f"send one input {signature.input!r}, or one per feature"
            f" (missing: {missing}; not of this model: {unknown})",
        )
    counts = {_check_column(tensor, limit) for tensor in given.values()}
    if len(counts) != 1:
        raise RequestError(400, f"the inputs have different numbers of rows: {sorted(counts)}")
    count = counts.pop()
    values = np.empty((count, len(signature.features)), np.float64)
    texts: dict[int, list[str]] = {}
    for column, feature in enumerate(signature.features):
        tensor = given[feature.name]
        if tensor.datatype == TEXT:
            texts[column] = _decode_texts(tensor, count)
            values[:, column] = _codes(texts[column], feature)
        else:
            values[:, column] = _decode_numbers(tensor, count)
    return _as_rows(values, texts)


def _check_column(tensor: InputTensor, limit: int) -> int:
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        raise RequestError(400, f"input {tensor.name} has shape {tensor.shape}, expected [rows] or [rows, 1]")
    return _check_count(tensor, limit)


def _check_count(tensor: InputTensor, limit: int) -> int:
    count = tensor.shape[0]
    if count < 1:
        raise RequestError(400, f"input {tensor.name} has no rows")
    if count > limit:
        raise RequestError(413, f"{count} rows in one request, the limit is {limit} (serve.max_in_flight)")
    return count


def _decode_numbers(tensor: InputTensor, count: int) -> NDArray[np.float64]:
    if tensor.datatype not in NUMBERS:
        known = ", ".join(sorted(NUMBERS))
        raise RequestError(400, f"input {tensor.name} has datatype {tensor.datatype}, expected one of {known}")
    try:
        values = np.asarray(_flat.decode(tensor.data), np.float64)
    except msgspec.ValidationError:
        values = _first_that_fits(tensor, _numbers, np.float64)
    if values.size != count:
        raise RequestError(400, f"input {tensor.name} has {values.size} values, its shape says {count}")
    return values.reshape(count)


def _decode_texts(tensor: InputTensor, count: int) -> list[str]:
    values = _first_that_fits(tensor, _texts, object)
    if values.size != count:
        raise RequestError(400, f"input {tensor.name} has {values.size} values, its shape says {count}")
    found: list[str] = values.reshape(count).tolist()
    return found


def _first_that_fits(tensor: InputTensor, decoders: Sequence[Any], dtype: Any) -> NDArray[Any]:
    for decoder in decoders:
        try:
            return np.asarray(decoder.decode(tensor.data), dtype)
        except msgspec.ValidationError:
            continue
        except ValueError:
            break
    raise RequestError(400, f"the data of input {tensor.name} are not {tensor.datatype}, flat or in equal rows")


def _codes(texts: list[str], feature: Feature) -> list[float]:
    if not feature.categories:
        raise RequestError(400, f"input {feature.name} takes numbers, not BYTES")
    code = {category: float(i) for i, category in enumerate(feature.categories)}
    return [code.get(text, math.nan) for text in texts]


def _as_rows(values: NDArray[np.float64], texts: dict[int, list[str]]) -> Rows:
    with np.errstate(over="ignore"):  # refused below, by name
        return Rows(values.astype(np.float32), values, texts)


def _check_values(found: Rows, signature: Signature) -> None:
    if np.isfinite(found.tensor).all():
        return
    infinite, missing = np.isinf(found.tensor), np.isnan(found.tensor)
    if infinite.any():
        raise RequestError(400, f"a value of {_named(infinite, signature)} does not fit a 32-bit float")
    if not signature.accepts_missing:
        raise RequestError(400, f"{_named(missing, signature)} is missing or unknown; this model needs every value")


def _named(cells: NDArray[np.bool_], signature: Signature) -> str:
    return signature.names[int(np.argwhere(cells)[0][1])]


def prediction_ids(request: InferRequest, count: int) -> list[str] | None:
    """The ids that the client chose. Raises :class:`RequestError` unless there is a different one for each row."""
    chosen = request.parameters.prediction_ids
    if chosen is not None and (len(chosen) != count or len(set(chosen)) != count):
        raise RequestError(400, f"prediction_ids must be {count} different strings, one a row")
    segment = request.parameters.segment
    if segment is not None and not 0 < len(segment) <= MAX_SEGMENT:
        raise RequestError(400, f"segment must have 1 to {MAX_SEGMENT} characters")
    return chosen


def label_datatype(manifest: Manifest) -> str:
    """The datatype of the output ``prediction``."""
    if manifest.task == "regression":
        return "FP32"
    return {bool: "BOOL", int: "INT64"}.get(type(manifest.classes[0]), TEXT)


def respond(request: InferRequest, manifest: Manifest, predicted: Predicted, ids: list[str]) -> InferResponse:
    """The response. Raises :class:`RequestError` for an output that the model does not have."""
    count = len(ids)
    tensors = [OutputTensor("prediction", label_datatype(manifest), [count], predicted.predictions)]
    if predicted.scores is not None:
        tensors.append(OutputTensor("score", "FP32", [count], predicted.scores))
    if predicted.probabilities is not None:
        flat = [p for row in predicted.probabilities for p in row]
        tensors.append(OutputTensor("probabilities", "FP32", [count, len(manifest.classes)], flat))
    tensors.append(OutputTensor("prediction_id", TEXT, [count], list(ids)))
    if request.outputs:
        by_name = {tensor.name: tensor for tensor in tensors}
        if unknown := [o.name for o in request.outputs if o.name not in by_name]:
            raise RequestError(400, f"there is no output {unknown[0]}, only {', '.join(by_name)}")
        tensors = [by_name[o.name] for o in request.outputs]
    return InferResponse(manifest.model, str(manifest.version), tensors, request.id)


def metadata(manifest: Manifest, versions: Sequence[int]) -> dict[str, Any]:
    """A model's metadata; ``parameters`` name its features, task and classes."""
    signature = manifest.signature
    outputs = [{"name": "prediction", "datatype": label_datatype(manifest), "shape": [-1]}]
    if signature.probabilities is not None:
        outputs.append({"name": "score", "datatype": "FP32", "shape": [-1]})
        outputs.append({"name": "probabilities", "datatype": "FP32", "shape": [-1, len(manifest.classes)]})
    return {
        "name": manifest.model,
        "versions": [str(version) for version in versions],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": signature.input, "datatype": "FP32", "shape": [-1, len(signature.features)]}],
        "outputs": [*outputs, {"name": "prediction_id", "datatype": TEXT, "shape": [-1]}],
        "parameters": {
            "version": str(manifest.version),
            "task": manifest.task,
            "classes": manifest.classes,
            "positive": manifest.positive,
            "accepts_missing": signature.accepts_missing,
            "features": [
                {"name": f.name, "kind": f.kind, "categories": f.categories}
                if f.categories
                else {"name": f.name, "kind": f.kind}
                for f in signature.features
            ],
        },
    }
