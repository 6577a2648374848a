"""The whole way of a live shadow but Kafka: the state, a real server's answers and events, the verdict, the swap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streams.codec import full_prediction_decoder
from tests.unit.retrain.rows import FEATURES, SECOND_MS, START_MS, concept, features, labelled, pairs
from tests.unit.retrain.test_live_shadow import finish, shadowing
from tests.unit.serving.conftest import Running
from tests.unit.serving.conftest import repository as repository
from tests.unit.serving.conftest import start as start
from tests.unit.serving.test_server import outputs
from tests.unit.serving.waiting import eventually

ROWS = 300


@pytest.mark.parametrize("lasts", [True, False])
def test_served_answers_decide_which_version_serves(start: Callable[..., Running], tmp_path: Path, lasts: bool) -> None:
    """What a server of the same repository published is all the evidence: the changed concept lasts, or it does not."""
    loop, run = shadowing(tmp_path / "models")
    running = start()
    rows = features(ROWS, seed=23)
    _, metadata = running.call("GET", "/v2/models/loans")
    tensor = {
        "name": metadata["inputs"][0]["name"],
        "shape": [ROWS, len(FEATURES)],
        "datatype": "FP32",
        "data": rows.tolist(),
    }
    status, answer = running.call("POST", "/v2/models/loans/infer", {"inputs": [tensor]})
    assert status == 200, answer
    assert answer["model_version"] == "1"
    eventually(lambda: len(running.sender.sent) == ROWS, "every row is published")
    decoder = full_prediction_decoder()
    first = len(loop.log.partitions[0])
    loop.log.partitions[0] += [decoder.decode_any(sent.value, sent.headers) for sent in running.sender.sent]
    outcomes = concept(rows, changed=lasts)
    loop.log.records.append(labelled(pairs(outcomes, first, START_MS + first * SECOND_MS)))
    ended = finish(loop, run)
    assert ended.state == ("promoted" if lasts else "rejected"), ended.reason
    assert running.registry.apply(loop.announcer.last_states()["loans"])
    _, after = running.call("POST", "/v2/models/loans/infer", {"inputs": [tensor]})
    assert after["model_version"] == ("2" if lasts else "1")
    assert (outputs(after)["prediction"] == outputs(answer)["prediction"]) is not lasts
    eventually(lambda: len(running.sender.sent) == 2 * ROWS, "every row is published")
    assert not any(b'"shadow"' in (sent.value or b"") for sent in running.sender.sent[ROWS:])
