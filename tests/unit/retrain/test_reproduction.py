"""A version is trained again from its manifest: the same bytes, or what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from retrain import contest as contests
from retrain.registration import card_of
from retrain.reproduction import Reproduction, reproduce, rows_from_log, versions_here
from retrain.sources import Source
from retrain.training import Refused
from serving.manifest import Manifest
from serving.repository import Repository
from streams.errors import MissingInput
from streams.events import Drift, rfc3339
from streams.records import LabelledRow
from tests.unit.retrain.loop import Loop, new_loop
from tests.unit.retrain.rows import (
    SECOND_MS,
    START_MS,
    concept,
    dataset,
    features,
    labelled,
    pairs,
    prediction,
)
from tests.unit.retrain.test_administration import command

HOUR_MS = 3_600_000


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """Version 2 was made of the topics, version 1 of a file."""
    made = new_loop(tmp_path)
    made.live(changed=True)
    made.finish(made.alerted())
    return made


def again(loop: Loop, manifest: Manifest | None = None) -> Reproduction:
    """Version 2, or that of another manifest, made again."""
    manifest = manifest or loop.repository.manifest("loans", 2)
    return reproduce(manifest, rows_from_log(manifest, loop.log))


def older(loop: Loop) -> Manifest:
    """The manifest of version 2 as releases wrote it that did not say how far `labelled` had been read."""
    manifest = loop.repository.manifest("loans", 2)
    source = {name: value for name, value in manifest.trained_from.items() if name != "labelled"}
    return msgspec.structs.replace(manifest, trained_from=source)


def pour(loop: Loop, partition: int, rows: int, start_ms: int, seed: int = 21) -> None:
    """Rows of the changed concept into a partition, one a second, complete from ``start_ms`` on."""
    table, before = features(rows, seed), loop.log.partitions.setdefault(partition, [])
    start = len(before)
    before += [prediction(start + i, row, 0) for i, row in enumerate(table)]
    loop.log.records.append(labelled(pairs(concept(table, changed=True), start, start_ms), partition))


def correct(loop: Loop, row: int, outcome: int, at_ms: int, outcome_offset: int = 100_000) -> None:
    """Another outcome of a row in partition 0, an hour and more after the first."""
    said = LabelledRow(row, outcome_offset, START_MS + row * SECOND_MS, at_ms, 0, 0, outcome)
    loop.log.records.append(labelled([said]))


def wrong(loop: Loop, row: int) -> int:
    """The class that the outcome of a row is not."""
    return 1 - int(np.frombuffer(loop.log.records[0].outcomes)[row])


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


@pytest.mark.parametrize("manifest", [None, older], ids=["with offsets", "of an older release"])
def test_however_many_rows_came_since(loop: Loop, manifest: Callable[[Loop], Manifest] | None) -> None:
    """More than any bound of what is kept in memory: they count no more than a few do."""
    loop.live(changed=False, rows=12_000, seed=8)
    assert again(loop, manifest and manifest(loop)).same


@pytest.mark.parametrize("manifest", [None, older], ids=["with offsets", "of an older release"])
def test_a_label_that_was_corrected_since_is_still_the_old_one(
    loop: Loop, manifest: Callable[[Loop], Manifest] | None
) -> None:
    """The log has both outcomes; the training had the first one."""
    correct(loop, 5, wrong(loop, 5), START_MS + 2 * HOUR_MS)
    found = again(loop, manifest and manifest(loop))
    assert found.same
    assert found.differences == []


def test_a_label_that_had_been_corrected_is_the_new_one(tmp_path: Path) -> None:
    """The training had the correction, even one that it could not use; not the one that came after it."""
    loop = new_loop(tmp_path)
    loop.live(changed=True)
    correct(loop, 5, wrong(loop, 5), START_MS + 390 * SECOND_MS + 1, 90_000)
    correct(loop, 6, 7, START_MS + HOUR_MS, 90_001)  # not a class of the model
    assert loop.finish(loop.alerted()).state == "promoted"
    correct(loop, 5, 1 - wrong(loop, 5), START_MS + 2 * HOUR_MS)
    correct(loop, 6, wrong(loop, 6), START_MS + 2 * HOUR_MS, 100_001)
    assert loop.repository.manifest("loans", 2).trained_from["dropped"] == {"unknown_class": 1}
    assert again(loop).same


def test_a_partition_that_was_behind_changes_nothing(loop: Loop) -> None:
    """Its rows were complete before the newest of the training, and came into `labelled` after it."""
    pour(loop, 1, 5, START_MS + 100 * SECOND_MS)
    assert again(loop).same


def test_an_older_release_did_not_say_how_far_it_had_read(loop: Loop) -> None:
    """By time alone such rows cannot be told from those of the training: what differs says so."""
    assert again(loop, older(loop)).differences == []
    pour(loop, 1, 5, START_MS + 100 * SECOND_MS)
    found = again(loop, older(loop))
    assert not found.same
    (difference,) = [each for each in found.differences if each.name == "labelled"]
    assert difference.first == "its release did not say how far it was read"
    loop.log.partitions[0][:300] = [None] * 300
    with pytest.raises(Refused, match="there are 105 now; of `labelled` its release did not say"):
        again(loop, older(loop))


def test_two_live_partitions_are_read_as_far_as_they_were(tmp_path: Path) -> None:
    """Each to an offset of its own, which the manifest and the card name; more rows came in both since."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=150)
    for at in range(3):
        pour(loop, 1, 50, START_MS + 50 * at * SECOND_MS + 500, seed=30 + at)
    assert loop.finish(loop.alerted()).state == "promoted"
    pour(loop, 0, 50, START_MS + 149 * SECOND_MS, seed=40)
    pour(loop, 1, 50, START_MS + 140 * SECOND_MS, seed=41)
    source = loop.repository.manifest("loans", 2).trained_from
    assert source["labelled"] == {"topic": "labelled", "partitions": {"0": [0, 1], "1": [0, 3]}}
    assert source["rows"] == 300
    assert again(loop).same
    card = loop.repository.card("loans", 2)
    assert "- labelled: topic labelled was read at the offsets [0, 1) of partition 0, [0, 3) of partition 1;" in card
    assert "labels that came or were corrected since do not count" in card


def test_other_topics_than_its_own_are_not_read(loop: Loop) -> None:
    """Offsets mean nothing in them."""
    loop.log.labelled_topic = "elsewhere.labelled"
    with pytest.raises(MissingInput, match=r"made by topic labelled, not by elsewhere\.labelled"):
        again(loop)


def test_a_version_that_came_back_from_the_archive_is_made_again(loop: Loop) -> None:
    """By what it was made of, not by the rows on which it won."""
    for back, changed in enumerate((False, True)):
        since_ms = START_MS + len(loop.log.partitions[0]) * SECOND_MS
        loop.live(changed=changed, rows=80, seed=50 + back)
        drift = Drift("adwin", change_at=rfc3339(since_ms), version=loop.state.aliases["champion"])
        run = loop.finish(loop.alerted(fingerprint=f"back {back}", drift=drift))
        assert (run.state, run.version) == ("promoted", 1 + back)
    assert again(loop).same


def test_a_version_of_weighted_rows_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows before the change had less weight, and have it again."""
    monkeypatch.setattr(contests, "sources", lambda rows, change, recent: [Source("widened", 0, change)])
    loop = new_loop(tmp_path)
    loop.live(changed=False, rows=400, seed=6)
    loop.live(changed=True)
    drift = Drift("adwin", change_at=rfc3339(START_MS + 400 * SECOND_MS), version="1")
    assert loop.finish(loop.alerted(drift=drift)).state == "promoted"
    manifest = loop.repository.manifest("loans", 2)
    assert manifest.trained_from["trained_on"] == "widened"
    assert manifest.parameters["change_row"] == 400
    loop.live(changed=True, rows=100, seed=9)
    assert again(loop).same
    parameters = {**manifest.parameters, "change_row": 0}
    assert not again(loop, msgspec.structs.replace(manifest, parameters=parameters)).same


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
    assert {"data_sha256", "file_sha256"} <= {difference["name"] for difference in found["differences"]}


def test_the_lineage_of_a_file_says_how_it_was_read(tmp_path: Path) -> None:
    """Its hash, the column of the label and the task: it is read in that way again. The same rows in another file
    make the same bytes."""
    rows = pd.DataFrame(features(300), columns=["a", "b", "c"])
    rows.insert(1, "paid", (rows["a"] > 0.5).astype(int))
    rows.to_csv(tmp_path / "loans.csv", index=False)
    models = tmp_path / "models"
    how = ("--label", "paid", "--task", "multiclass")
    command(models, "train", str(tmp_path / "loans.csv"), "--model", "loans", *how, "--no-publish")
    source = Repository(str(models)).manifest("loans", 1).trained_from
    assert source["file"] == "loans.csv"
    assert source["file_sha256"] == hashlib.sha256((tmp_path / "loans.csv").read_bytes()).hexdigest()
    assert (source["label"], source["task"]) == ("paid", "multiclass")
    same = ("models", "reproduce", "loans", "1", "--json", "--file")
    assert json.loads(command(models, *same, str(tmp_path / "loans.csv"))) == {
        "model": "loans",
        "version": 1,
        "same": True,
        "differences": [],
    }
    rows.to_parquet(tmp_path / "loans.parquet")
    found = json.loads(command(models, *same, str(tmp_path / "loans.parquet")))
    assert found["same"]
    assert [difference["name"] for difference in found["differences"]] == ["file_sha256"]
