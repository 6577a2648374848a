"""Whether the bytes of a model may be loaded: the right ones, and nothing outside of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, without types


class UnsafeModel(ValueError):
    """Bytes that must not reach ONNX Runtime."""


def sha256(data: bytes) -> str:
    """The hash as manifests carry it."""
    return hashlib.sha256(data).hexdigest()


def check_hash(data: bytes, expected: str) -> None:
    """Raise :class:`UnsafeModel` for other bytes than the manifest's."""
    if (found := sha256(data)) != expected:
        raise UnsafeModel(f"its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…")


def check_self_contained(data: bytes) -> None:
    """Raise :class:`UnsafeModel` for bytes that are no ONNX model, or one whose weights lie in other files.

    ONNX Runtime resolves such a reference against the working folder and follows hard links out of it.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise UnsafeModel("it is not an ONNX model") from None
    if not model.graph.node:
        raise UnsafeModel("it is not an ONNX model: its graph is empty")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UnsafeModel(f"its tensor {tensor.name!r} is stored in another file")


def _tensors(model: Any) -> Iterator[Any]:
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of_graph(graph)
