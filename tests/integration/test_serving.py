"""`driftline serve` and `driftline publish` as processes, on a real Kafka."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from serving.publisher import Sender
from serving.repository import Repository
from streams import codec
from streams.codec import full_prediction_decoder, outcome_decoder
from streams.events import MODEL_EVENT_TYPE, ModelEvent
from streams.kafka import SafeProducer, TopicReader
from streams.log import Record
from streams.settings import KafkaSettings, Settings
from streams.topics import TopicAdmin, Topics
from tests.contract.test_serving_sender import SenderContract
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.unit.serving import models
from tests.unit.serving.waiting import eventually

pytestmark = pytest.mark.kafka
BOUND_S = 120.0


class Deployment:
    """Processes of one deployment; all are killed at the end."""

    def __init__(self, broker: KafkaBroker, prefix: str, folder: Path) -> None:
        self.folder = folder
        self.repository = Repository(str(folder / "models"))
        self.topics = Topics(f"{prefix}.")
        self.kafka = KafkaSettings(bootstrap=broker.bootstrap, topic_prefix=f"{prefix}.", partitions=2)
        self.settings = Settings(kafka=self.kafka, repository=str(folder / "models"))
        self.processes: list[subprocess.Popen[str]] = []
        self.url = ""

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start `driftline …`."""
        chosen = {
            "kafka.bootstrap": self.kafka.bootstrap,
            "kafka.topic_prefix": self.kafka.topic_prefix,
            "kafka.partitions": "2",
            "kafka.request_timeout_s": "10",
            "repository": self.settings.repository,
        } | changes
        flags = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
        process = subprocess.Popen(
            [sys.executable, "-m", "driftline", *flags, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"NO_COLOR": "1", "COLUMNS": "300"},
        )
        self.processes.append(process)
        return process

    def serve(self, **changes: str) -> subprocess.Popen[str]:
        """Start a server and wait until it accepts connections."""
        ready = self.folder / f"ready-{len(self.processes)}"
        process = self.start("serve", "--http", "127.0.0.1:0", "--ready-file", str(ready), **changes)
        eventually(lambda: ready.exists() or process.poll() is not None, "the server is ready, or ended")
        assert process.poll() is None, process.communicate()[1]
        self.url = ready.read_text().strip()
        return process

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request to the server."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.call("GET", "/v2/health/ready")[0] == 200

    def version(self) -> str:
        """The version that answers now."""
        answer = self.call("POST", "/v2/models/loan/infer", request(models.rows(0, 1)))[1]
        found: str = json.loads(answer)["model_version"]
        return found

    def announce(self, state: Any) -> None:
        """Publish a promotion."""
        producer = SafeProducer(self.kafka)
        event = ModelEvent("promoted", state, version=state.aliases["champion"])
        headers = codec.headers(MODEL_EVENT_TYPE.format(what="promoted"), "/test")
        producer.send(self.topics.model_events, codec.encode(event), key=b"loan", headers=headers)
        producer.close()

    def read(self, topic: str) -> list[Record]:
        """The whole topic."""
        with TopicReader(self.kafka, topic) as reader:
            return list(reader.read_to_end())


def request(rows: Any) -> dict[str, Any]:
    """An inference request."""
    array = np.asarray(rows, np.float32)
    return {"inputs": [{"name": "X", "shape": list(array.shape), "datatype": "FP32", "data": array.tolist()}]}


@pytest.fixture
def system(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(kafka_broker, deployment, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that ends."""
    out, err = process.communicate(timeout=BOUND_S)
    return process.returncode, out, err


def test_a_promotion_is_served_and_every_answer_is_in_kafka(system: Deployment) -> None:
    """Not ready while the repository is empty; ready by an event; swapped by the next one; SIGTERM loses nothing."""
    process = system.serve()
    assert not system.ready()
    first = models.serve_first(system.repository, "loan", models.binary())
    system.announce(first)
    eventually(system.ready, "the first promotion is served")
    second = models.put(system.repository, "loan", models.binary(flipped=True))
    asked = 1
    assert system.version() == "1"
    system.announce(
        system.repository.change("loan", lambda s: msgspec.structs.replace(s, aliases={"champion": str(second)}))
    )

    def swapped() -> bool:
        nonlocal asked
        asked += 1
        return system.version() == "2"

    eventually(swapped, "the second promotion is served")
    answered = [system.call("POST", "/v2/models/loan/infer", request(models.rows(i, 50))) for i in range(20)]
    assert {status for status, _ in answered} == {200}
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    ids = {i for _, body in answered for i in json.loads(body)["outputs"][-1]["data"]}
    records = system.read(system.topics.predictions)
    events = [full_prediction_decoder().decode_any(r.value, r.headers) for r in records]
    assert len(records) == asked + 1000
    assert ids <= {event.prediction_id for event in events}
    assert {r.partition for r in records} == {0, 1}
    assert all(r.key == e.prediction_id.encode() for r, e in zip(records, events, strict=True))


def test_history_is_read_before_ready(system: Deployment) -> None:
    """A server that starts after a promotion serves it at once, even where the repository's own state is older."""
    first = models.serve_first(system.repository, "loan", models.binary())
    models.put(system.repository, "loan", models.binary(flipped=True))
    TopicAdmin(system.settings).create()
    system.announce(msgspec.structs.replace(first, revision=2, aliases={"champion": "2"}))
    system.announce(first)  # an older revision that comes later changes nothing
    system.serve()
    assert (system.ready(), system.version()) == (True, "2")


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(system: Deployment) -> None:
    """A promotion of a corrupt file is refused and counted, and the old version answers on."""
    first = models.serve_first(system.repository, "loan", models.binary())
    system.serve()
    version = models.put(system.repository, "loan", models.binary(flipped=True))
    (system.folder / "models" / "loan" / "2" / "model.onnx").write_bytes(b"not a model")
    system.announce(msgspec.structs.replace(first, revision=2, aliases={"champion": str(version)}))
    failed = b'driftline_model_reloads_total{result="failed"} 1.0'
    eventually(lambda: failed in system.call("GET", "/metrics")[1], "the reload has failed")
    assert (system.ready(), system.version()) == (True, "1")


def test_what_keeps_a_server_from_starting_is_one_line(system: Deployment) -> None:
    """A port in use, a broker that is away, a corrupt model, a wrong address: one line and the documented exit code."""
    models.serve_first(system.repository, "loan", models.binary())
    system.serve()
    taken = system.url.removeprefix("http://")
    away = {"kafka.bootstrap": f"127.0.0.1:{free_port()}", "kafka.request_timeout_s": "2"}
    cases: list[tuple[int, str, Callable[[], subprocess.Popen[str]]]] = [
        (69, "Address already in use", lambda: system.start("serve", "--http", taken)),
        (69, "no Kafka broker answers", lambda: system.start("serve", "--http", "127.0.0.1:0", **away)),
        (2, "is not HOST:PORT", lambda: system.start("serve", "--http", "8080")),
    ]
    (system.folder / "models" / "loan" / "1" / "model.onnx").write_bytes(b"not a model")
    cases.append((78, "SHA-256", lambda: system.start("serve", "--http", "127.0.0.1:0")))
    for code, says, start in cases:
        returned, _, err = end(start())
        assert (returned, says in err) == (code, True), err
        assert "Traceback" not in err


def test_a_delivery_that_fails_ends_the_process(system: Deployment) -> None:
    """A server whose predictions Kafka refuses does not answer on unseen: it ends, asking for a restart (75)."""
    models.serve_first(system.repository, "loan", models.binary())
    process = system.serve()
    assert system.version() == "1"
    admin = AdminClient({"bootstrap.servers": system.kafka.bootstrap})
    entry = ConfigEntry("max.message.bytes", "100", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, system.topics.predictions, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()

    def ended() -> bool:
        if process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                system.call("POST", "/v2/models/loan/infer", request(models.rows(0, 5)))
        return process.poll() is not None

    eventually(ended, "the process ends")
    code, _, err = end(process)
    assert (code, "could not be delivered" in err) == (75, True), err
    assert "Traceback" not in err


def table(folder: Path, count: int = 300) -> tuple[Path, Any]:
    """A labelled table in a CSV, whose labels are what the first model would say, every third one wrong."""
    made = models.binary()
    rows = models.rows(9, count)
    said = made.native.predict(rows)
    labels = [("deny" if label == "approve" else "approve") if i % 3 == 0 else label for i, label in enumerate(said)]
    frame = pd.DataFrame(rows, columns=models.FEATURES).assign(said=said, decision=labels)
    path = folder / "loans.csv"
    frame.to_csv(path, index=False)
    return path, frame


def test_publish_plays_a_table_through_serve(system: Deployment) -> None:
    """Each row's prediction and outcome meet in Kafka, and the accuracy told is what was served."""
    models.serve_first(system.repository, "loan", models.binary())
    process = system.serve()
    path, frame = table(system.folder)
    code, out, err = end(
        system.start(*("publish", str(path), "--url", system.url, "--delay-rows", "48", "--chunk", "20", "--json"))
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["rows"], report["outcomes"], report["errors"]) == (300, 300, 0)
    assert report["accuracy"] == pytest.approx(200 / 300)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0
    predictions = system.read(system.topics.predictions)
    outcomes = system.read(system.topics.outcomes)
    where = {r.key: r.partition for r in predictions}
    assert len(where) == 300
    assert {r.key: r.partition for r in outcomes} == where
    said = [outcome_decoder().decode_any(r.value, r.headers) for r in outcomes]
    by_row = {int(o.prediction_id.rpartition("-")[2]): o.outcome for o in said}
    assert [by_row[i] for i in range(300)] == frame["decision"].tolist()


def test_publish_takes_a_prediction_column(system: Deployment) -> None:
    """Without a server, the table's own predictions are published."""
    path, _ = table(system.folder)
    arguments = ("--prediction-column", "said", "--model", "loan", "--version", "7", "--rows", "100", "--json")
    code, out, err = end(system.start("publish", str(path), *arguments))
    assert code == 0, err
    assert json.loads(out)["versions"] == {"7": 100}
    records = system.read(system.topics.predictions)
    events = [full_prediction_decoder().decode_any(r.value, r.headers) for r in records]
    assert len(events) == 100
    assert {e.version for e in events} == {"7"}
    assert {len(e.features or {}) for e in events} == {3}


def test_what_keeps_publish_from_playing_is_one_line(system: Deployment) -> None:
    """A file, column, type or server that is not there: one line and the documented exit code."""
    models.serve_first(system.repository, "loan", models.binary())
    system.serve()
    path, frame = table(system.folder, 10)
    other = system.folder / "other.csv"
    frame.drop(columns="age").to_csv(other, index=False)
    (system.folder / "table.xlsx").write_text("x")
    nobody = f"http://127.0.0.1:{free_port()}"
    for code, says, arguments in (
        (66, "does not exist", (str(system.folder / "none.csv"),)),
        (2, "is none of .csv", (str(system.folder / "table.xlsx"),)),
        (2, "there is no column 'truth'", (str(path), "--label", "truth")),
        (2, "no column age", (str(other), "--url", system.url)),
        (66, "no model 'other'", (str(path), "--url", system.url, "--model", "other")),
        (69, "no inference server answers", (str(path), "--url", nobody)),
        (2, "--model NAME", (str(path), "--prediction-column", "said")),
    ):
        returned, _, err = end(system.start("publish", *arguments))
        assert (returned, says in err) == (code, True), err
        assert "Traceback" not in err


class TestSafeProducer(SenderContract):
    """The real producer."""

    @pytest.fixture
    def sender(self, kafka_broker: KafkaBroker, deployment: str) -> Iterator[Sender]:
        kafka_broker.create_topic(f"{deployment}.predictions")
        self.topic = f"{deployment}.predictions"
        producer = SafeProducer(KafkaSettings(bootstrap=kafka_broker.bootstrap))
        yield producer
        producer.close()
