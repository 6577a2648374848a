"""The inference protocol over a real socket, with real models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from serving.repository import Repository
from streams.codec import full_prediction_decoder
from tests.unit.serving import models
from tests.unit.serving.conftest import Running
from tests.unit.serving.waiting import eventually

Start = Callable[..., Running]
INFER = "/v2/models/loan/infer"


def tensor(values: Any, name: str = "X", datatype: str = "FP32") -> dict[str, Any]:
    """An input tensor in JSON."""
    array = np.asarray(values)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.tolist()}


def outputs(answer: Any) -> dict[str, list[Any]]:
    """The outputs' data by name."""
    return {output["name"]: output["data"] for output in answer["outputs"]}


@pytest.fixture
def loan(repository: Repository, start: Start) -> Running:
    """A server with one binary model, `loan`."""
    models.serve_first(repository, "loan", models.binary())
    return start()


def test_binary_answers_labels_scores_and_ids(loan: Running) -> None:
    """Labels are the model's classes, the score is the positive class's probability, ids differ by row."""
    made = models.binary()
    status, answer = loan.call("POST", INFER, {"id": "r1", "inputs": [tensor(made.rows)]})
    found = outputs(answer)
    assert (status, answer["id"], answer["model_version"]) == (200, "r1", "1")
    assert found["prediction"] == made.native.predict(made.rows).tolist()
    approve = made.native.predict_proba(made.rows)[:, list(made.native.classes_).index("approve")]
    np.testing.assert_allclose(found["score"], approve, atol=1e-5)
    assert len(set(found["prediction_id"])) == len(made.rows)


def test_every_prediction_is_published_as_answered(loan: Running) -> None:
    """Each row becomes one CloudEvent under its id, with the features by name and the request's trace."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = {"inputs": [tensor([[0.1, 2, 3], [-4, 5, 6]])], "parameters": {"segment": "north"}}
    _, answer = loan.call("POST", INFER, body, {"traceparent": trace})
    found = outputs(answer)
    eventually(lambda: len(loan.sender.sent) == 2, "both rows are published")
    for i, sent in enumerate(loan.sender.sent):
        headers = dict(sent.headers)
        event = full_prediction_decoder().decode_any(sent.value, sent.headers)
        assert sent.key == found["prediction_id"][i].encode() == event.prediction_id.encode()
        assert (event.model, event.version, event.segment) == ("loan", "1", "north")
        assert event.prediction == found["prediction"][i]
        assert event.score == found["score"][i]
        assert headers["traceparent"] == trace.encode()
        assert headers["ce_type"] == b"driftline.prediction.v1"
    first = full_prediction_decoder().decode_any(loan.sender.sent[0].value)
    assert first.features == {"income": 0.1, "age": 2.0, "debt": 3.0}


def test_many_rows_are_published_too(loan: Running) -> None:
    """Requests too large to be published on the spot go through the thread: each row once, under its id."""
    answers = [loan.call("POST", INFER, {"inputs": [tensor(models.rows(i, n))]})[1] for i, n in enumerate((3, 3000, 3))]
    ids = [i for answer in answers for i in outputs(answer)["prediction_id"]]
    eventually(lambda: len(loan.sender.sent) == len(ids), "all are published")
    assert {sent.key for sent in loan.sender.sent} == {i.encode() for i in ids}


def test_client_may_choose_the_ids(loan: Running) -> None:
    """`parameters.prediction_ids` are used as they are; a wrong number or a repeated one is refused."""
    body = {"inputs": [tensor([[1, 2, 3], [4, 5, 6]])], "parameters": {"prediction_ids": ["a", "b"]}}
    assert outputs(loan.call("POST", INFER, body)[1])["prediction_id"] == ["a", "b"]
    for ids in (["a"], ["a", "a"], ["", "b"]):
        assert loan.call("POST", INFER, body | {"parameters": {"prediction_ids": ids}})[0] == 400


def test_a_tensor_per_feature(loan: Running) -> None:
    """One tensor per feature, in any order, gives the same answer as one tensor of all."""
    rows = models.rows(5, 4)
    whole = outputs(loan.call("POST", INFER, {"inputs": [tensor(rows)]})[1])
    columns = [tensor(rows[:, i], name) for i, name in reversed(list(enumerate(models.FEATURES)))]
    columns[0]["shape"] = [4, 1]
    split = outputs(loan.call("POST", INFER, {"inputs": columns})[1])
    assert split["score"] == whole["score"]


BAD = {
    "not JSON": b"{",
    "NaN": b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","data":[1,2,NaN]}]}',
    "no inputs": {"inputs": []},
    "unknown input": {"inputs": [tensor([[1, 2, 3]], name="Y")]},
    "wrong width": {"inputs": [tensor([[1, 2]])]},
    "wrong rank": {"inputs": [tensor([1, 2, 3])]},
    "fewer data than the shape says": {"inputs": [tensor([[1, 2, 3]]) | {"shape": [2, 3]}]},
    "no rows": {"inputs": [tensor([[1, 2, 3]]) | {"shape": [0, 3], "data": []}]},
    "negative rows": {"inputs": [tensor([[1, 2, 3]]) | {"shape": [-1, 3]}]},
    "ragged": {"inputs": [tensor([[1, 2, 3]]) | {"data": [[1, 2], [3]]}]},
    "text": {"inputs": [tensor([[1, 2, 3]]) | {"data": ["a", "b", "c"]}]},
    "datatype unknown": {"inputs": [tensor([[1, 2, 3]], datatype="FP4")]},
    "too large for a float32": {"inputs": [tensor([[1, 2, 1e308]])]},
    "a value missing that the model needs": {"inputs": [tensor([[1, 2, 3]]) | {"data": [1, 2, None]}]},
    "an input twice": {"inputs": [tensor([[1, 2, 3]]), tensor([[1, 2, 3]])]},
    "an unknown output": {"inputs": [tensor([[1, 2, 3]])], "outputs": [{"name": "shap"}]},
    "wrong types": {"inputs": "all of them"},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_with_a_reason(loan: Running, body: Any) -> None:
    """A bad request is 400 with one line of reason, publishes nothing, holds no room, and the next one is answered."""
    status, answer = loan.call("POST", INFER, body)
    assert status == 400
    assert answer["error"]
    assert "\n" not in answer["error"]
    assert loan.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})[0] == 200
    eventually(lambda: len(loan.sender.sent) == 1, "the good one is published")
    eventually(lambda: "driftline_predictions_unpublished 0.0" in loan.call("GET", "/metrics")[1], "no room is held")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/other/infer", "no model 'other'"),
        ("/v2/models/loan/versions/9/infer", "version 9 of loan is not loaded"),
        ("/v2/models/loan/versions/x/infer", "not a number"),
        ("/v2/nothing", "Not Found"),
    ],
)
def test_unknown_things_are_404(loan: Running, path: str, says: str) -> None:
    """An unknown model, version or path is 404 in the protocol's form."""
    status, answer = loan.call("POST", path, {"inputs": [tensor([[1, 2, 3]])]})
    assert (status, says in answer["error"]) == (404, True)


def test_too_large_requests_are_413(repository: Repository, start: Start) -> None:
    """More bytes or rows than the settings allow are refused, the bytes before they are read whole."""
    models.serve_first(repository, "loan", models.binary())
    small = start(max_request_bytes=10_000, max_in_flight=10)
    assert small.call("POST", INFER, b" " * 10_001)[0] == 413
    chunked = {"Transfer-Encoding": "chunked"}
    assert small.call("POST", INFER, b"2711\r\n" + b" " * 10_001 + b"\r\n0\r\n\r\n", chunked)[0] == 413
    assert small.call("POST", INFER, {"inputs": [tensor(models.rows(0, 11))]})[0] == 413


def test_unpublished_predictions_are_bounded(repository: Repository, start: Start) -> None:
    """With Kafka away, requests are refused (503) once the bound is reached, and answered again when it is back."""
    models.serve_first(repository, "loan", models.binary())
    bounded = start(max_in_flight=10)
    bounded.sender.hold(True)
    ten = {"inputs": [tensor(models.rows(0, 10))]}
    assert bounded.call("POST", INFER, ten)[0] == 200
    status, answer = bounded.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})
    assert (status, "wait for Kafka" in answer["error"]) == (503, True)
    bounded.sender.hold(False)
    eventually(lambda: bounded.call("POST", INFER, ten)[0] == 200, "there is room again")


def test_a_failed_delivery_is_told(loan: Running) -> None:
    """A delivery that fails is noticed even when nothing is asked: the process must end, not go on unpublished."""
    loan.sender.fail()
    eventually(lambda: loan.failures, "the failure is told")
    assert loan.failures[0].exit_code == 75  # type: ignore[attr-defined]
    loan.sender._failure = None  # so that the fixture can close it


def test_multiclass_and_regression(repository: Repository, start: Start) -> None:
    """A multiclass score is the predicted class's probability; a regression answers numbers alone; null is missing."""
    three, line = models.multiclass(), models.regression()
    models.serve_first(repository, "three", three)
    models.serve_first(repository, "line", line)
    running = start()
    found = outputs(running.call("POST", "/v2/models/three/infer", {"inputs": [tensor(three.rows)]})[1])
    probabilities = three.native.predict_proba(three.rows)
    assert found["prediction"] == three.native.predict(three.rows).tolist()
    np.testing.assert_allclose(found["score"], probabilities.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], probabilities.reshape(-1), atol=1e-5)
    found = outputs(running.call("POST", "/v2/models/line/infer", {"inputs": [tensor(line.rows)]})[1])
    assert found.keys() == {"prediction", "prediction_id"}
    np.testing.assert_allclose(found["prediction"], line.native.predict(line.rows), rtol=1e-4, atol=1e-4)
    missing = tensor([[1, 2, 3]]) | {"data": [1, None, 3]}
    assert running.call("POST", "/v2/models/three/infer", {"inputs": [missing]})[0] == 200
    eventually(lambda: len(running.sender.sent) == len(three.rows) + len(line.rows) + 1, "all are published")
    event = full_prediction_decoder().decode_any(running.sender.sent[-1].value)
    assert event.features == {"income": 1.0, "age": None, "debt": 3.0}


def test_triton_client(loan: Running) -> None:
    """Triton's own client asks, lists, unloads and loads."""
    made = models.binary()
    client = triton.InferenceServerClient(loan.address)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("loan")
        assert client.is_model_ready("loan", "1")
        assert client.get_server_metadata()["name"] == "driftline"
        assert [f["name"] for f in client.get_model_metadata("loan")["parameters"]["features"]] == models.FEATURES
        asked = triton.InferInput("X", list(made.rows.shape), "FP32")
        asked.set_data_from_numpy(made.rows, binary_data=False)
        for wanted in (None, [triton.InferRequestedOutput("prediction", binary_data=False)]):
            result = client.infer("loan", [asked], outputs=wanted, request_id="q")
            assert result.as_numpy("prediction").tolist() == made.native.predict(made.rows).tolist()
        with pytest.raises(triton.InferenceServerException, match="no model 'other'"):
            client.infer("other", [asked])
        binary = triton.InferInput("X", list(made.rows.shape), "FP32")
        binary.set_data_from_numpy(made.rows, binary_data=True)
        with pytest.raises(triton.InferenceServerException, match="binary_data=False"):
            client.infer("loan", [binary])
        assert client.get_model_repository_index() == [{"name": "loan", "version": "1", "state": "READY", "reason": ""}]
        client.unload_model("loan")
        assert not client.is_model_ready("loan")
        assert not client.is_server_ready()
        assert client.get_model_repository_index()[0]["reason"] == "unloaded"
        client.load_model("loan")
        assert client.is_model_ready("loan")
        with pytest.raises(triton.InferenceServerException, match="no champion"):
            client.load_model("other")
    finally:
        client.close()


def test_not_ready_without_a_model(start: Start) -> None:
    """An empty repository: alive, not ready."""
    empty = start()
    assert empty.call("GET", "/v2/health/live")[0] == 200
    assert empty.call("GET", "/v2/health/ready")[0] == 503


def test_metrics_are_clean(loan: Running) -> None:
    """promtool finds nothing to complain about, and the names that the conventions fix are there."""
    loan.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})
    eventually(lambda: "driftline_predictions_published_total 1.0" in loan.call("GET", "/metrics")[1], "one is counted")
    text = loan.call("GET", "/metrics")[1]
    assert 'driftline_model_info{model="loan",version="1"} 1.0' in text
    assert 'driftline_model_reloads_total{result="loaded"} 1.0' in text
    assert 'driftline_inference_duration_seconds_count{model="loan",version="1"} 1.0' in text
    assert "process_open_fds" in text
    assert "_created" not in text
    try:
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("promtool is not on the PATH")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
