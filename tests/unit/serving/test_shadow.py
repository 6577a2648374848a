"""A live shadow on a real server: asked the champion's rows, published in the champion's events, harmless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression

from serving.engine import LoadedModel
from serving.metrics import ServeMetrics
from serving.registry import Loaded
from serving.repository import Repository
from serving.shadow import ShadowScorer
from streams.codec import full_prediction_decoder, prediction_decoder
from streams.events import FullPrediction, ShadowAnswer
from tests.unit.serving import models
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_server import INFER, outputs, tensor
from tests.unit.serving.waiting import eventually

Start = Callable[..., Running]


def with_shadow(repository: Repository, champion: models.Made, shadow: models.Made) -> None:
    """`loan` with version 1 as its champion, and version 2 as challenger and shadow."""
    first, second = models.put(repository, "loan", champion), models.put(repository, "loan", shadow)
    repository.create_state("loan", models.state("loan", champion, first, challenger=second, shadow=second))


def events(running: Running, count: int) -> list[FullPrediction]:
    """What was published, once it is so many."""
    eventually(lambda: len(running.sender.sent) == count, f"{count} predictions are published")
    decoder = full_prediction_decoder()
    return [decoder.decode_any(sent.value, sent.headers) for sent in running.sender.sent]


def counted(running: Running, result: str) -> float:
    """Rows of the shadow with that result."""
    labels = {"model": "loan", "result": result}
    return running.metrics.registry.get_sample_value("driftline_shadow_predictions_total", labels) or 0.0


def linear(factor: float) -> models.Made:
    """A regression that multiplies the first feature."""
    x = models.rows(2)
    native = LinearRegression().fit(x, factor * x[:, 0])
    made = to_onnx(native, x[:1]).SerializeToString()
    return models.Made(made, native, x, "regression", signature=models.signature(value="variable"))


def test_what_the_shadow_says_is_in_the_champions_events(repository: Repository, start: Start) -> None:
    """The client sees the champion alone; each event has both answers, of the same row."""
    good, flipped = models.binary(), models.binary(flipped=True)
    with_shadow(repository, good, flipped)
    running = start()
    _, answer = running.call("POST", INFER, {"inputs": [tensor(good.rows[:50])]})
    assert answer["model_version"] == "1"
    assert outputs(answer)["prediction"] == good.native.predict(good.rows[:50]).tolist()
    assert "shadow" not in str(answer)
    found = events(running, 50)
    assert [event.version for event in found] == ["1"] * 50
    shadows = [event.shadow for event in found]
    assert all(isinstance(shadow, ShadowAnswer) and shadow.version == "2" for shadow in shadows)
    said = [shadow.prediction for shadow in shadows if isinstance(shadow, ShadowAnswer)]
    assert said == flipped.native.predict(good.rows[:50]).tolist()
    scores = [shadow.score for shadow in shadows if isinstance(shadow, ShadowAnswer)]
    approve = flipped.native.predict_proba(good.rows[:50])[:, list(flipped.native.classes_).index("approve")]
    np.testing.assert_allclose(np.asarray(scores, dtype=float), approve, atol=1e-5)
    assert counted(running, "scored") == 50


def test_the_join_reads_such_an_event_as_any_other(repository: Repository, start: Start) -> None:
    """No producer and no worker needs to know of it: the fields that the join needs are the champion's."""
    with_shadow(repository, models.binary(), models.binary(flipped=True))
    running = start()
    running.call("POST", INFER, {"inputs": [tensor([[2.0, 0.0, 0.0]])]})
    (event,) = events(running, 1)
    joined = prediction_decoder().decode_any(running.sender.sent[0].value, running.sender.sent[0].headers)
    assert (joined.version, joined.prediction) == ("1", "approve") == (event.version, event.prediction)


def test_without_a_shadow_no_event_speaks_of_one(repository: Repository, start: Start) -> None:
    """A challenger alone is loaded, and not asked."""
    good = models.binary()
    first, second = models.put(repository, "loan", good), models.put(repository, "loan", models.binary(flipped=True))
    repository.create_state("loan", models.state("loan", good, first, challenger=second))
    running = start()
    running.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})
    events(running, 1)
    assert b"shadow" not in (running.sender.sent[0].value or b"")


def test_only_the_champions_answers_have_a_shadow(repository: Repository, start: Start) -> None:
    """Whoever asks the challenger by its number is answered by it, and nothing is compared."""
    with_shadow(repository, models.binary(), models.binary(flipped=True))
    running = start()
    running.call("POST", "/v2/models/loan/versions/2/infer", {"inputs": [tensor([[1, 2, 3]])]})
    (event,) = events(running, 1)
    assert (event.version, event.shadow) == ("2", msgspec.UNSET)


def test_a_state_swaps_the_shadow_as_it_swaps_the_champion(repository: Repository, start: Start) -> None:
    """One reference is replaced: from the next request on the new shadow is asked, or none."""
    with_shadow(repository, models.binary(), models.binary(flipped=True))
    running = start()
    state = repository.state("loan")
    assert state is not None
    later = msgspec.structs.replace(state, revision=2, aliases={"champion": "2", "previous": "1"})
    running.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})
    assert running.registry.apply(later)
    running.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})
    before, after = events(running, 2)
    assert (before.version, isinstance(before.shadow, ShadowAnswer)) == ("1", True)
    assert (after.version, after.shadow) == ("2", msgspec.UNSET)


def test_a_shadow_that_fails_touches_no_answer(repository: Repository, start: Start) -> None:
    """It answers with a number that is none: the row is published without it, counted, and the next one is asked."""
    with_shadow(repository, linear(1e-10), linear(1e17))
    running = start()
    for value in (1e22, 2e22, 1.0):
        status, _ = running.call("POST", INFER, {"inputs": [tensor([[value, 0, 0]])]})
        assert status == 200
    found = events(running, 3)
    assert [isinstance(event.shadow, ShadowAnswer) for event in found] == [False, False, True]
    assert [event.version for event in found] == ["1", "1", "1"]
    assert (counted(running, "failed"), counted(running, "scored")) == (2, 1)
    assert running.failures == []


@pytest.mark.parametrize("how", ["damaged", "other features"])
def test_a_shadow_that_cannot_be_asked_is_left_out(
    repository: Repository, start: Start, tmp_path: Any, how: str
) -> None:
    """One that does not load, or that takes other rows: the champion serves, its events have no shadow."""
    other = models.binary(flipped=True)
    if how == "other features":
        features = [models.categorical("income", ["low"]), *other.signature.features[1:]]
        object.__setattr__(other, "signature", models.with_features(other.signature, features))
    with_shadow(repository, models.binary(), other)
    if how == "damaged":
        (tmp_path / "models" / "loan" / "2" / "model.onnx").write_bytes(b"damaged")
    running = start()
    assert running.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})[0] == 200
    (event,) = events(running, 1)
    assert event.shadow is msgspec.UNSET


def test_rows_wait_for_kafka_without_the_shadow(repository: Repository, start: Start) -> None:
    """A broker that is away: once many rows wait the shadow is asked no more, and every row is kept."""
    with_shadow(repository, models.binary(), models.binary(flipped=True))
    running = start()
    running.sender.hold(True)
    for _ in range(3):
        assert running.call("POST", INFER, {"inputs": [tensor(models.rows(1, 4_000))]})[0] == 200
    eventually(lambda: counted(running, "skipped") == 4_000, "the last request is not scored")
    running.sender.hold(False)
    found = events(running, 12_000)
    assert sum(isinstance(event.shadow, ShadowAnswer) for event in found) == 8_000


# The scorer -------------------------------------------------------------------------------------------------------


def loaded(made: models.Made, metrics: ServeMetrics) -> Loaded:
    return Loaded(LoadedModel(made.onnx, made.manifest("loan", 2)), metrics.timer("loan", 2))


def test_rows_with_a_missing_value_are_not_asked_of_a_shadow_that_takes_none() -> None:
    """The champion may know what a missing value means; this one would answer, and wrongly."""
    metrics = ServeMetrics()
    rows = np.array([[2.0, 0, 0], [np.nan, 0, 0], [-2.0, 0, 0]], np.float32)
    found = ShadowScorer(metrics).answers(loaded(models.binary(), metrics), rows)
    assert [answer and answer.prediction for answer in found] == ["approve", None, "deny"]


def endless() -> models.Made:
    """A graph that multiplies rows by one as often as a 64-bit number can say, but for rows of zeros (the warm-up)."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Mul", ["x", "one"], ["next"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, [None, 3]),
        ],
        [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["X"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["yes"]),
            helper.make_node("Loop", ["turns", "yes", "X"], ["looped"], body=body),
            helper.make_node("ReduceSum", ["looped", "columns"], ["variable"], keepdims=1),
        ],
        "endless",
        [value("X", TensorProto.FLOAT, [None, 3])],
        [value("variable", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("columns", TensorProto.INT64, [1], [1]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(made)
    signature = models.signature(value="variable")
    return models.Made(made.SerializeToString(), None, models.rows(2), "regression", signature=signature)


def test_a_call_that_does_not_end_is_ended_and_the_shadow_given_up() -> None:
    """Nothing that waits for it waits for ever, and nothing is asked of this version again."""
    metrics = ServeMetrics()
    shadow = loaded(endless(), metrics)
    scorer = ShadowScorer(metrics, time_limit_s=0.05)
    rows = np.ones((2, 3), np.float32)
    try:
        assert scorer.answers(shadow, rows) == [None, None]
        assert scorer.answers(shadow, rows) == [None, None]
    finally:
        scorer.close()
    value = metrics.registry.get_sample_value
    assert value("driftline_shadow_predictions_total", {"model": "loan", "result": "failed"}) == 2
    assert value("driftline_shadow_predictions_total", {"model": "loan", "result": "skipped"}) == 2


def test_an_endless_shadow_keeps_no_prediction_and_no_stop_waiting(repository: Repository, start: Start) -> None:
    """One request, and none after it: its event comes, without the shadow's answer; the fixture stops the server."""
    with_shadow(repository, linear(0.5), endless())
    running = start()
    assert running.call("POST", INFER, {"inputs": [tensor([[1, 2, 3]])]})[0] == 200
    (event,) = events(running, 1)
    assert event.shadow is msgspec.UNSET
