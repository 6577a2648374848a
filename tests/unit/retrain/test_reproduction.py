"""A version is trained again from its manifest: the same bytes, or what differs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from retrain.registration import card_of
from retrain.reproduction import reproduce, rows_from_log, versions_here
from retrain.training import Refused
from streams.errors import MissingInput
from tests.unit.retrain.loop import Loop, new_loop
from tests.unit.retrain.rows import concept, dataset, features
from tests.unit.retrain.test_administration import command


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """Version 2 was made of the topics, version 1 of a file."""
    made = new_loop(tmp_path)
    made.live(changed=True)
    made.finish(made.alerted())
    return made


def test_a_version_of_the_loop_is_made_again(loop: Loop) -> None:
    """Its rows are read again by time and number, whatever came since; the bytes are the same."""
    loop.serve(50)
    manifest = loop.repository.manifest("loans", 2)
    rows = rows_from_log(manifest, loop.log)
    assert rows.sha256 == manifest.trained_from["data_sha256"]
    again = reproduce(manifest, rows)
    assert again.same
    assert again.differences == []


def test_a_corrected_label_is_what_differs(loop: Loop) -> None:
    """The hash of the data names the cause; the versions of the libraries do not."""
    manifest = loop.repository.manifest("loans", 2)
    outcomes = np.frombuffer(loop.log.records[0].outcomes).copy()
    outcomes[:5] = 1 - outcomes[:5]
    loop.log.records[0].outcomes = outcomes.tobytes()
    again = reproduce(manifest, rows_from_log(manifest, loop.log))
    assert not again.same
    assert {difference.name for difference in again.differences} == {"data_sha256", "model.onnx sha256"}


def test_another_library_is_named(loop: Loop) -> None:
    """Bytes may be the same all the same."""
    manifest = loop.repository.manifest("loans", 2)
    older = msgspec.structs.replace(manifest, libraries={**manifest.libraries, "xgboost": "1.0"})
    again = reproduce(older, rows_from_log(manifest, loop.log))
    assert again.same
    assert [(d.name, d.first) for d in again.differences] == [("xgboost", "1.0")]


def test_what_retention_deleted_cannot_be_made_again(loop: Loop) -> None:
    """Too few rows are left for the range that it was trained on."""
    manifest = loop.repository.manifest("loans", 2)
    partition = loop.log.partitions[0]
    partition[:300] = [None] * 300
    with pytest.raises(Refused, match="there are 100 now"):
        reproduce(manifest, rows_from_log(manifest, loop.log))


def test_a_version_of_a_file_needs_its_file(loop: Loop) -> None:
    """Which one is in the manifest; with its rows it is made again."""
    manifest = loop.repository.manifest("loans", 1)
    with pytest.raises(MissingInput, match=r"loans\.csv"):
        rows_from_log(manifest, loop.log)
    rows = features(500, seed=3)
    assert reproduce(manifest, dataset(rows, concept(rows, changed=False))).same


def test_an_older_release_did_not_say_how(loop: Loop) -> None:
    """Without parameters nothing is guessed."""
    manifest = msgspec.structs.replace(loop.repository.manifest("loans", 1), parameters={})
    with pytest.raises(Refused, match="does not say how it was trained"):
        reproduce(manifest, dataset(features(500), np.zeros(500)))


def test_the_manifest_says_how_and_with_what(loop: Loop) -> None:
    """Lineage: parameters with the seed, libraries, Python, our own version."""
    manifest = loop.repository.manifest("loans", 2)
    assert manifest.parameters["algorithm"] == "xgboost"
    assert manifest.parameters["seed"] == 0
    assert manifest.parameters["end_row"] > manifest.parameters["first_row"]
    assert manifest.libraries == versions_here()
    assert {"python", "driftline", "xgboost"} <= manifest.libraries.keys()
    assert callable(card_of)
    assert "driftline models reproduce loans 2" in loop.repository.card("loans", 2)


def test_the_command_makes_a_version_of_a_file_again(tmp_path: Path) -> None:
    """train, then reproduce --file: the same; another file is not, with exit code 1."""
    rows = pd.DataFrame(features(300), columns=["a", "b", "c"])
    rows["label"] = np.where(rows["a"] > 0.5, "good", "bad")
    rows.to_csv(tmp_path / "loans.csv", index=False)
    models = tmp_path / "models"
    command(models, "train", str(tmp_path / "loans.csv"), "--model", "loans", "--rows", "200", "--no-publish")
    same = ("models", "reproduce", "loans", "1", "--json", "--file")
    assert json.loads(command(models, *same, str(tmp_path / "loans.csv")))["same"]
    rows["label"] = np.where(rows["a"] > 0.7, "good", "bad")
    rows.to_csv(tmp_path / "other.csv", index=False)
    found = json.loads(command(models, *same, str(tmp_path / "other.csv"), exit_code=1))
    assert not found["same"]
    assert "data_sha256" in {difference["name"] for difference in found["differences"]}
