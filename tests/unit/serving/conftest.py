"""A repository in a temporary folder, and a real server over it that publishes to a recording sender."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serving.metrics import ServeMetrics
from serving.process import StoppableServer, listen, url_of
from serving.publisher import PredictionPublisher
from serving.registry import ModelRegistry
from serving.repository import Repository
from serving.server import InferenceServer
from streams.settings import ServeSettings
from tests.unit.serving.fakes import RecordingSender
from tests.unit.serving.waiting import eventually


@dataclass
class Running:
    """A server that runs in this process, and its parts."""

    url: str
    repository: Repository
    registry: ModelRegistry
    publisher: PredictionPublisher
    metrics: ServeMetrics
    sender: RecordingSender
    failures: list[Exception] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One request → status and decoded body."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, raw, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        plain = (response.getheader("content-type") or "").startswith("text/plain")
        return response.status, content.decode() if plain else json.loads(content)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(str(tmp_path / "models"))


@pytest.fixture
def start(repository: Repository) -> Iterator[Callable[..., Running]]:
    """Start servers over the repository; all are stopped at the end."""
    stops: list[Callable[[], None]] = []

    def start_one(**settings: Any) -> Running:
        chosen = ServeSettings(**settings)
        metrics, sender = ServeMetrics(), RecordingSender()
        registry = ModelRegistry(repository, metrics, chosen.threads)
        failures: list[Exception] = []
        publisher = PredictionPublisher(
            sender,
            "predictions",
            metrics,
            failures.append,
            limit=chosen.max_in_flight,
            features=chosen.publish_features,
        )
        for model in repository.models():
            if (state := repository.state(model)) is not None:
                registry.apply(state)
        listener = listen("127.0.0.1:0")
        app = InferenceServer(registry, publisher, metrics, chosen).app()
        server = StoppableServer(app, listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        running = Running(url_of(listener), repository, registry, publisher, metrics, sender, failures)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            sender.hold(False)
            publisher.close()

        stops.append(stop)
        eventually(lambda: server.started, "the server accepts connections")
        return running

    yield start_one
    for stop in stops:
        stop()
