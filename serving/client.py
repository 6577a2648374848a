"""A client of the inference server: one connection kept open, patient with a server that restarts."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from serving.table import FeatureValue
from streams.errors import MissingInput, Unavailable, WrongSetting
from streams.events import Label, Task, Value

TIMEOUT_S = 60.0
RETRY_S = 0.2


class Refused(Exception):
    """The server does not answer this request; asking again would not help."""


class _Described(msgspec.Struct):
    name: str
    kind: str
    categories: list[str] = []


class _Parameters(msgspec.Struct):
    version: str
    task: Task
    features: list[_Described]
    classes: list[Label] = []


class _Input(msgspec.Struct):
    name: str


class ServedModel(msgspec.Struct):
    """What the server says of a model."""

    name: str
    inputs: list[_Input]
    parameters: _Parameters

    @property
    def features(self) -> list[str]:
        """The features' names in the tensor's order."""
        return [feature.name for feature in self.parameters.features]

    @property
    def text_features(self) -> set[str]:
        """Features that may be sent as text."""
        return {feature.name for feature in self.parameters.features if feature.categories}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said of one row."""

    prediction_id: str
    prediction: Value
    score: float | None
    version: str


class ServeClient:
    """Asks one server. Not thread-safe.

    A server that is away or busy (503) is asked again for ``patience_s``, except by :meth:`model`, which asks once.
    """

    def __init__(self, url: str, patience_s: float = 60.0) -> None:
        wrong = WrongSetting(f"{url!r} is not the URL of a server", "for example --url http://127.0.0.1:8080")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise wrong
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._url = url
        self._base = parts.path.rstrip("/")
        self._connection = kind(parts.hostname, port, timeout=TIMEOUT_S)
        self._patience_s = patience_s

    def model(self, name: str | None = None) -> ServedModel:
        """The model of that name, or the only one.

        Raises :class:`Unavailable` if the server does not answer, :class:`MissingInput` for an unknown model.
        """
        try:
            name = name or self._only_model()
            status, body = self._exchange("GET", f"/v2/models/{quote(name, safe='')}")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"no inference server answers at {self._url} ({error})", "start `driftline serve`, or give its --url"
            ) from None
        if status != 200:
            raise MissingInput(f"{self._url}: {_error(body)}", "`driftline train` makes a first version")
        try:
            return msgspec.json.decode(body, type=ServedModel)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{self._url} is not a `driftline serve`: {error}", "check --url") from None

    def _only_model(self) -> str:
        status, body = self._exchange("POST", "/v2/repository/index")
        try:
            listed = msgspec.json.decode(body, type=list[dict[str, str]]) if status == 200 else []
        except msgspec.DecodeError as error:
            raise Unavailable(f"{self._url} is not a `driftline serve`: {error}", "check --url") from None
        names = sorted({line["name"] for line in listed if line.get("state") == "READY"})
        if len(names) != 1:
            raise MissingInput(
                f"{self._url} serves {len(names)} models: {', '.join(names) or 'none'}", "name one: --model"
            )
        return names[0]

    def ask(self, model: ServedModel, rows: Sequence[dict[str, FeatureValue]], ids: Sequence[str]) -> list[Answer]:
        """Answers to some rows under the given prediction ids.

        Raises :class:`Refused` for rows that the model cannot take, :class:`Unavailable` when patience ends.
        """
        body = msgspec.json.encode({"inputs": _tensors(model, rows), "parameters": {"prediction_ids": ids}})
        path = f"/v2/models/{quote(model.name, safe='')}/infer"
        status, content = self._patiently("POST", path, body)
        if status != 200:
            raise Refused(_error(content))
        answer = msgspec.json.decode(content)
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        scores = found.get("score") or [None] * len(rows)
        version = answer["model_version"]
        said = zip(found["prediction_id"], found["prediction"], scores, strict=True)
        return [Answer(prediction_id, prediction, score, version) for prediction_id, prediction, score in said]

    def _patiently(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                status, content = self._exchange(method, path, body)
                problem = _error(content)
            except (OSError, http.client.HTTPException) as error:
                status, content, problem = 503, b"", str(error) or type(error).__name__
            if status != 503:
                return status, content
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._url} does not answer: {problem}", "is `driftline serve` running?")
            time.sleep(RETRY_S)

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, self._base + path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.read()
        except BaseException:
            self._connection.close()  # the next request connects again
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _tensors(model: ServedModel, rows: Sequence[dict[str, FeatureValue]]) -> list[dict[str, object]]:
    names, whole = model.features, model.inputs[0].name
    columns = [[row[name] for row in rows] for name in names]
    texts = [any(isinstance(cell, str) for cell in column) for column in columns]
    if whole not in names and not any(texts):
        data = [row[name] for row in rows for name in names]
        return [{"name": whole, "shape": [len(rows), len(names)], "datatype": "FP64", "data": data}]
    return [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": "BYTES" if text else "FP64",
            "data": ["" if cell is None else str(cell) for cell in column] if text else column,
        }
        for name, column, text in zip(names, columns, texts, strict=True)
    ]


def _error(body: bytes) -> str:
    try:
        found: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = None
    return str(found.get("error", found)) if isinstance(found, dict) else body[:200].decode("utf-8", "replace")
