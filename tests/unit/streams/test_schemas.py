"""The generated contracts: current, valid, and true of what the codec accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streams.codec import full_prediction_decoder
from streams.events import Alert, Baseline, Drift, ModelEvent, ModelState
from streams.schemas import ASYNCAPI, EVENTS, documents, write

CHECKED_IN = Path(__file__).parents[3] / "ops" / "schemas"


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_checked_in_copy_is_current(name: str) -> None:
    """A change of an event changes its schema: `driftline schemas ops/schemas` writes them anew."""
    assert (CHECKED_IN / name).read_bytes() == documents()[name]


def test_nothing_else_is_checked_in() -> None:
    """A schema of an event that is gone goes too."""
    assert {path.name for path in CHECKED_IN.iterdir()} == documents().keys()


def schema(name: str) -> Any:
    return json.loads(documents()[f"{name}.json"])


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_each_is_a_valid_schema(event: Any) -> None:
    """Of the dialect that it names."""
    jsonschema.Draft202012Validator.check_schema(schema(event.name))


PREDICTION = {"prediction_id": "a", "model": "loans", "version": "1", "prediction": 1}


@pytest.mark.parametrize(
    ("event", "valid"),
    [
        (PREDICTION, True),
        ({**PREDICTION, "version": 3, "score": 0.5, "predicted_at": "2026-01-01T00:00:00Z"}, True),
        ({**PREDICTION, "features": {"a": 1.5, "b": "x", "c": None}, "predicted_at": 1_700_000_000_000}, True),
        ({**PREDICTION, "prediction_id": 17}, False),
        ({**PREDICTION, "prediction_id": ""}, False),
        ({**PREDICTION, "prediction": [1]}, False),
        ({name: value for name, value in PREDICTION.items() if name != "model"}, False),
    ],
)
def test_schema_and_codec_agree_on_predictions(event: dict[str, Any], valid: bool) -> None:
    """What the schema lets through decodes, what it refuses does not."""
    assert jsonschema.Draft202012Validator(schema("prediction")).is_valid(event) is valid
    try:
        full_prediction_decoder().decode_any(json.dumps(event).encode())
    except ValueError:
        decoded = False
    else:
        decoded = True
    assert decoded is valid


def test_events_of_ours_are_what_their_schemas_say() -> None:
    """An alert and a model event as they are encoded."""
    import msgspec

    drift = Drift("adwin", change_offsets={"0": 5}, evidence=[{"n": 1}])
    alert = Alert("firing", {"alertname": "A", "model": "m"}, {}, "s", "e", "g", "f", drift, 1)
    state = ModelState("m", 1, "binary", [0, 1], 1, {"champion": "1"}, {"1": Baseline("accuracy", 0.9, 10)})
    for name, event in (("alert", alert), ("model-event", ModelEvent("promoted", state, version="1"))):
        jsonschema.Draft202012Validator(schema(name)).validate(json.loads(msgspec.json.encode(event)))


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Channels, messages, operations and schemas refer to each other within the one document."""
    document = json.loads(documents()[ASYNCAPI])
    assert document["asyncapi"] == "3.0.0"
    references = _references(document)
    assert references
    for reference in references:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    assert {each["action"] for each in document["operations"].values()} == {"send", "receive"}


def test_they_are_written_to_a_folder(tmp_path: Path) -> None:
    """A missing folder is made."""
    paths = write(tmp_path / "new" / "folder")
    assert {path.name: path.read_bytes() for path in paths} == documents()
