"""JSON Schemas of the public events and one AsyncAPI 3 document, generated from the structs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streams.events import (
    ALERT_TYPE,
    MODEL_EVENT_TYPE,
    OUTCOME_TYPE,
    PREDICTION_TYPE,
    Alert,
    FullPrediction,
    ModelEvent,
    ModelEventKind,
    Outcome,
)
from streams.topics import Topics

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI = "asyncapi.json"
VERSION = "1.0.0"
"""Of the contract; it grows with the events, not with releases."""


@dataclass(frozen=True, slots=True)
class PublicEvent:
    """An event that others write or read. ``received``: by Driftline."""

    name: str
    struct: type[msgspec.Struct]
    types: tuple[str, ...]
    topic: str
    key: str
    received: bool
    summary: str


_TOPICS = Topics()
EVENTS = (
    PublicEvent(
        "prediction",
        FullPrediction,
        (PREDICTION_TYPE,),
        _TOPICS.predictions,
        "prediction_id, partitioned by murmur2 as Java clients do (librdkafka: partitioner=murmur2_random)",
        True,
        "What a model said, published when it said it.",
    ),
    PublicEvent(
        "outcome",
        Outcome,
        (OUTCOME_TYPE,),
        _TOPICS.outcomes,
        "prediction_id, partitioned by murmur2 as Java clients do (librdkafka: partitioner=murmur2_random)",
        True,
        "What turned out to be true of a prediction.",
    ),
    PublicEvent(
        "alert",
        Alert,
        (ALERT_TYPE,),
        _TOPICS.alerts,
        "the alert's fingerprint",
        False,
        "An alert that begins, goes on or ends, in the shape of Alertmanager's webhook.",
    ),
    PublicEvent(
        "model-event",
        ModelEvent,
        tuple(MODEL_EVENT_TYPE.format(what=kind) for kind in ModelEventKind.__args__),  # type: ignore[attr-defined]  # a Literal
        _TOPICS.model_events,
        "the model's name",
        False,
        "Something happened to a model, with the model's whole state after it.",
    ),
)


def documents() -> dict[str, bytes]:
    """File name → contents of every document."""
    files = {f"{event.name}.json": _schema(event) for event in EVENTS}
    return {name: _pretty(content) for name, content in {**files, ASYNCAPI: _asyncapi()}.items()}


def write(folder: Path) -> list[Path]:
    """Write every document → its path. The folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in documents().items():
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths


def _pretty(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _schema(event: PublicEvent) -> dict[str, Any]:
    (root,), components = msgspec.json.schema_components([event.struct], ref_template="#/$defs/{name}")
    name = root["$ref"].rpartition("/")[2]
    body = components.pop(name)
    schema = {"$schema": DIALECT, "title": event.name, "description": _plain(event.struct), **_without(body)}
    return {**schema, "$defs": _described(components)} if components else schema


def _without(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("title", "description")}


def _described(components: dict[str, Any]) -> dict[str, Any]:
    """Components with their docstrings in one line each."""
    return {
        name: {**body, "description": " ".join(body["description"].split())} if "description" in body else body
        for name, body in sorted(components.items())
    }


def _plain(struct: type[msgspec.Struct]) -> str:
    return " ".join((struct.__doc__ or "").split())


def _asyncapi() -> dict[str, Any]:
    structs = [event.struct for event in EVENTS]
    roots, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Driftline",
            "version": VERSION,
            "description": "Driftline joins predictions with their outcomes, watches every model, and alerts."
            " CloudEvents 1.0 in binary mode; predictions and outcomes are also accepted in structured mode and as"
            " plain JSON without any ce_ header. Topic names may carry a prefix (kafka.topic_prefix).",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            event.topic: {
                "address": event.topic,
                "description": f"Key: {event.key}.",
                "messages": {event.name: {"$ref": f"#/components/messages/{event.name}"}},
            }
            for event in EVENTS
        },
        "operations": {
            f"{'receive' if event.received else 'send'}-{event.name}": {
                "action": "receive" if event.received else "send",
                "summary": event.summary,
                "channel": {"$ref": f"#/channels/{event.topic}"},
                "messages": [{"$ref": f"#/channels/{event.topic}/messages/{event.name}"}],
            }
            for event in EVENTS
        },
        "components": {
            "messages": {
                event.name: {
                    "name": event.name,
                    "summary": event.summary,
                    "contentType": "application/json",
                    "headers": _headers(event),
                    "payload": root,
                    "bindings": {
                        "kafka": {"key": {"type": "string", "description": event.key}, "bindingVersion": "0.5.0"}
                    },
                }
                for event, root in zip(EVENTS, roots, strict=True)
            },
            "schemas": _described(components),
        },
    }


def _headers(event: PublicEvent) -> dict[str, Any]:
    """CloudEvents' attributes; those who send to us may leave all of them out."""
    fields = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string"},
        "ce_source": {"type": "string"},
        "ce_type": {"type": "string", "enum": list(event.types)},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"type": "string"},
    }
    required = [] if event.received else ["ce_specversion", "ce_id", "ce_source", "ce_type"]
    return {"type": "object", "properties": fields, "required": required}
