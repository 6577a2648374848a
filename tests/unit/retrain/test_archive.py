"""Archived versions that cannot be asked: each is left out by itself, and it is told why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from structlog.testing import capture_logs

from retrain.champion import answers_of
from retrain.child import Kept
from retrain.run import challenge
from retrain.training import Refused
from serving.model_file import sha256
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features


def graph(*, weight: float, rows: int) -> bytes:
    """Two probabilities of a row that are its features times ``weight``, in so many rows (-1: as many as asked)."""
    initial = {"w": np.full((3, 2), weight, np.float32), "shape": np.asarray([rows, 2])}
    nodes = [
        helper.make_node("MatMul", ["features", "w"], ["found"]),
        helper.make_node("Reshape", ["found", "shape"], ["probabilities"]),
    ]
    made = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def archive(loop: Loop, onnx: bytes | None = None, **changed: Any) -> int:
    """A version beside the champion, like it but for these bytes and these fields of its manifest."""
    repository = loop.repository
    like = repository.manifest("loans", 1)
    content = repository.load("loans", 1) if onnx is None else onnx
    version = repository.reserve_version("loans")
    known = {"version": version, "sha256": sha256(content), "size_bytes": len(content)}
    manifest = msgspec.structs.replace(like, **{**known, **changed})
    repository.write_version("loans", version, content, manifest, "card")
    return version


def damaged(loop: Loop, folder: Path, how: str) -> None:
    """Version 2, which cannot be asked for this reason."""
    signature = loop.repository.manifest("loans", 1).signature
    plain = msgspec.structs.replace(signature, label=None)
    if how == "does not load":
        archive(loop, signature=msgspec.structs.replace(signature, probabilities="chances"))
    elif how == "not a number":
        archive(loop, graph(weight=float("nan"), rows=-1), signature=plain)
    elif how == "fails":
        archive(loop, graph(weight=0.1, rows=7), signature=plain)
    elif how == "undated":
        archive(loop, created_at="long ago", trained_from={})
    else:
        archive(loop)
        path = folder / "loans/2/model.onnx"
        path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"?")


DAMAGE = {
    "missing": "2/model.onnx does not exist",
    "other bytes": "2/model.onnx is not served",
    "does not load": "version 2 does not load: it has no output chances",
    "not a number": "version 2 cannot answer: the model answered with a number that is not finite",
    "fails": "version 2 cannot answer: ",
    "undated": "version 2 does not say when it was made",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_version_does_not_keep_another_from_coming_back(how: str, tmp_path: Path) -> None:
    """Version 3 knows the concept that has returned; what is wrong with version 2 is told in the log."""
    loop = new_loop(tmp_path)
    damaged(loop, tmp_path, how)
    rows = features(500, seed=4)
    made = challenge(dataset(rows, concept(rows, changed=True)), PROBLEM, version=3, settings=SETTINGS)
    archive(loop, made.onnx)
    loop.live(changed=True, rows=100)
    with capture_logs() as told:
        run = loop.finish(loop.alerted())
    assert (run.state, run.version) == ("promoted", 3)
    (line,) = [line for line in told if line["event"] == "archived version left out"]
    assert line["log_level"] == "warning"
    assert DAMAGE[how] in line["reason"]


@pytest.mark.parametrize("how", DAMAGE)
def test_what_is_wrong_with_it_is_among_the_findings_of_the_run(how: str, tmp_path: Path) -> None:
    """Nothing has changed, so nobody wins: the reason is that, and says who could not be asked."""
    loop = new_loop(tmp_path)
    damaged(loop, tmp_path, how)
    loop.live(changed=False)
    asked = loop.retrainer().start("loans", "command")
    assert asked is not None
    run = loop.finish(asked)
    assert run.state == "rejected"
    assert (run.reason or "").startswith("not better: all: accuracy")
    assert DAMAGE[how] in (run.reason or "")


def test_what_the_runtime_raises_is_a_refusal_of_one_line(tmp_path: Path) -> None:
    """The graph loads, and fails for any number of rows but seven."""
    loop = new_loop(tmp_path)
    damaged(loop, tmp_path, "fails")
    kept = Kept(loop.repository.load("loans", 2), loop.repository.manifest("loans", 2))
    answers = answers_of(kept.onnx, kept.manifest)
    assert len(answers(features(7))) == 7
    with pytest.raises(Refused, match="version 2 cannot answer: ") as refused:
        answers(features(8))
    assert "\n" not in str(refused.value)
