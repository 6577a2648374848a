"""The swap: under load, refused, retired."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from serving.engine import LoadedModel, UnusableModel
from serving.manifest import Feature
from serving.metrics import ServeMetrics
from serving.registry import ModelRegistry
from serving.repository import CorruptVersion, Repository
from streams.errors import DriftlineError
from streams.events import ModelState
from tests.unit.serving import models
from tests.unit.serving.conftest import Running
from tests.unit.serving.waiting import eventually

ROW = np.array([[2.0, 0.0, 0.0]], np.float32)


@pytest.fixture
def metrics() -> ServeMetrics:
    return ServeMetrics()


@pytest.fixture
def registry(repository: Repository, metrics: ServeMetrics) -> ModelRegistry:
    return ModelRegistry(repository, metrics)


def says(registry: ModelRegistry, version: int | None = None) -> object:
    """What `loan` answers for one row."""
    loaded = registry.find("loan", version)
    assert loaded is not None
    return loaded.engine.predict(ROW).predictions[0]


def champion_becomes(version: int) -> Callable[[ModelState], ModelState]:
    """A change of the champion."""
    return lambda state: msgspec.structs.replace(state, aliases={"champion": str(version)})


def wait_for_more(answers: list[tuple[str, str]], count: int) -> None:
    """Wait until there are more answers than ``count``."""
    eventually(lambda: len(answers) > count, "requests go on")


def test_no_request_fails_while_versions_change(repository: Repository, start: Callable[..., Running]) -> None:
    """Twenty swaps under the load of four clients: every request is answered, by the version that it names."""
    good, flipped = models.binary(), models.binary(flipped=True)
    models.serve_first(repository, "loan", good)
    models.put(repository, "loan", flipped)
    running = start()
    stop = threading.Event()
    answers: list[tuple[str, str]] = []
    problems: list[object] = []
    body = json.dumps({"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": ROW[0].tolist()}]})

    def ask() -> None:
        connection = http.client.HTTPConnection(running.address, timeout=30)
        while not stop.is_set():
            try:
                connection.request("POST", "/v2/models/loan/infer", body)
                response = connection.getresponse()
                content = json.loads(response.read())
                if response.status != 200:
                    problems.append(content)
                answers.append((content["model_version"], content["outputs"][0]["data"][0]))
            except (OSError, http.client.HTTPException, KeyError) as error:
                problems.append(error)
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for swap in range(20):
        seen = len(answers)
        state = repository.change("loan", champion_becomes(2 - swap % 2))
        assert running.registry.apply(state)
        wait_for_more(answers, seen + 20)
    stop.set()
    for client in clients:
        client.join()
    assert problems == []
    assert set(answers) == {("1", "approve"), ("2", "deny")}
    eventually(lambda: len(running.sender.sent) == len(answers), "each answer is published once")


def test_a_version_that_fails_leaves_the_old_one(repository: Repository, registry: ModelRegistry) -> None:
    """Corrupt bytes, a missing version, a wrong name: refused, and the old champion answers."""
    made = models.binary()
    first = models.serve_first(repository, "loan", made)
    registry.apply(first)
    models.put(repository, "loan", models.binary(flipped=True))
    (Path(repository.uri("loan", 2)) / "model.onnx").write_bytes(b"x")
    for revision, version in enumerate(("2", "9", "latest"), 2):
        with pytest.raises(DriftlineError) as raised:
            registry.apply(msgspec.structs.replace(first, revision=revision, aliases={"champion": version}))
        assert "\n" not in str(raised.value)
        assert says(registry) == "approve"


def test_a_failed_state_can_be_applied_again(repository: Repository, registry: ModelRegistry) -> None:
    """What could not be loaded is not remembered as served: once the file is whole, the same state is applied."""
    first = models.serve_first(repository, "loan", models.binary())
    registry.apply(first)
    models.put(repository, "loan", models.binary(flipped=True))
    file = Path(repository.uri("loan", 2)) / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    second = msgspec.structs.replace(first, revision=2, aliases={"champion": "2"})
    with pytest.raises(CorruptVersion):
        registry.apply(second)
    file.write_bytes(whole)
    assert registry.apply(second)
    assert says(registry) == "deny"


def test_the_highest_revision_wins(repository: Repository, registry: ModelRegistry) -> None:
    """A state of the same or an older revision changes nothing."""
    first = models.serve_first(repository, "loan", models.binary())
    models.put(repository, "loan", models.binary(flipped=True))
    assert registry.apply(msgspec.structs.replace(first, revision=5, aliases={"champion": "2"}))
    for revision in (1, 4, 5):
        assert not registry.apply(msgspec.structs.replace(first, revision=revision))
    assert says(registry) == "deny"


def test_named_versions_are_served_and_retired(
    repository: Repository, registry: ModelRegistry, metrics: ServeMetrics
) -> None:
    """Every version with an alias answers by its number; without one it is gone, and its series too."""
    made = models.binary()
    first = models.serve_first(repository, "loan", made)
    models.put(repository, "loan", models.binary(flipped=True))
    registry.apply(msgspec.structs.replace(first, revision=2, aliases={"champion": "2", "previous": "1"}))
    assert (says(registry), says(registry, 1), says(registry, 2)) == ("deny", "approve", "deny")
    assert [(line.version, line.ready) for line in registry.index()] == [(1, True), (2, True)]
    registry.apply(msgspec.structs.replace(first, revision=3, aliases={"champion": "2"}))
    assert registry.find("loan", 1) is None
    text = generate_latest(metrics.registry).decode()
    assert 'version="2"' in text
    assert 'version="1"' not in text
    registry.apply(msgspec.structs.replace(first, revision=4, aliases={}))
    assert registry.models() == []
    assert 'model="loan"' not in generate_latest(metrics.registry).decode()


def test_a_request_in_flight_revives_no_series(
    repository: Repository, registry: ModelRegistry, metrics: ServeMetrics
) -> None:
    """A request that ends after its version retired is answered, and leaves no series behind."""
    first = models.serve_first(repository, "loan", models.binary())
    registry.apply(first)
    in_flight = registry.find("loan")
    assert in_flight is not None
    registry.unload("loan")
    assert in_flight.engine.predict(ROW).predictions == ["approve"]
    in_flight.seconds.observe(0.001)
    assert 'model="loan"' not in generate_latest(metrics.registry).decode()


def test_an_unloaded_model_stays_unloaded(repository: Repository, registry: ModelRegistry) -> None:
    """A model event does not load what an operator unloaded; the operator's load does."""
    first = models.serve_first(repository, "loan", models.binary())
    registry.apply(first)
    assert registry.unload("loan")
    assert not registry.unload("loan")
    assert not registry.apply(msgspec.structs.replace(first, revision=2))
    assert registry.find("loan") is None
    registry.load("loan")
    assert says(registry) == "approve"


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        ({"probabilities": "p"}, "no output p"),
        ({"probabilities": "label"}, "not tensor"),
        ({"probabilities": "probabilities", "input": "rows"}, "the manifest says rows"),
    ],
)
def test_a_graph_unlike_its_manifest_is_refused(signature: dict[str, str], says: str) -> None:
    """Inputs, outputs and their types are checked before a version serves."""
    made = models.binary()
    chosen = msgspec.structs.replace(models.signature(), **signature)
    with pytest.raises(UnusableModel, match=says):
        LoadedModel(made.onnx, made.manifest("loan", 1, signature=chosen))


def test_a_graph_of_another_width_is_refused(repository: Repository, registry: ModelRegistry) -> None:
    """A manifest with more features than the graph takes never serves."""
    made = models.binary()
    features = [*made.signature.features, Feature("more")]
    wide = made.manifest("loan", 1, signature=msgspec.structs.replace(made.signature, features=features))
    repository.write_version("loan", repository.reserve_version("loan"), made.onnx, wide, "")
    with pytest.raises(CorruptVersion, match="3 features, the manifest names 4"):
        registry.apply(models.state("loan", made, 1))


def test_a_label_only_model_answers_its_labels() -> None:
    """A classifier without probabilities answers labels and no score."""
    made = models.binary()
    manifest = made.manifest("loan", 1, signature=models.signature(label="label"))
    predicted = LoadedModel(made.onnx, manifest).predict(made.rows)
    assert predicted.predictions == made.native.predict(made.rows).tolist()
    assert (predicted.scores, predicted.probabilities) == (None, None)
