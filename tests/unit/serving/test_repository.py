"""The model repository: what two writers cannot break, and what is never loaded."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import onnx
import pytest

from serving.manifest import Feature, FeatureProfile, ReferenceProfile, Signature
from serving.model_file import sha256
from serving.repository import CorruptVersion, Repository
from streams.errors import DriftlineError, MissingInput, StateMismatch, WrongSetting
from streams.events import Baseline, ModelState
from tests.unit.serving import models


@pytest.fixture(params=["folder", "memory"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """A repository in a folder, or in an fsspec object store."""
    return Repository(str(tmp_path / "models") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/models")


def test_a_version_comes_back_as_it_was_written(anywhere: Repository) -> None:
    """Model, manifest and card are read back; a version is listed once it is complete, and never changes."""
    made = models.binary()
    profile = ReferenceProfile(
        10, [0.0, 0.5, 1.0], [FeatureProfile("income", "numeric", 10, 0, 0.1, 1.0, [-1, 0, 1])], [0.1, 0.5, 0.9]
    )
    version = anywhere.reserve_version("loan")
    manifest = made.manifest("loan", version, profile=profile, baseline=Baseline("accuracy", 0.9, 100), parent=None)
    assert (anywhere.models(), anywhere.versions("loan")) == ([], [])
    with pytest.raises(MissingInput):
        anywhere.load("loan", version)
    anywhere.write_version("loan", version, made.onnx, manifest, "# Card\n")
    assert (anywhere.models(), anywhere.versions("loan")) == (["loan"], [1])
    assert anywhere.manifest("loan", version) == manifest
    assert anywhere.load("loan", version) == made.onnx
    assert anywhere.card("loan", version) == "# Card\n"
    assert anywhere.uri("loan", version).endswith("/models/loan/1")
    with pytest.raises(WrongSetting, match="never changes"):
        anywhere.write_version("loan", version, made.onnx, manifest, "# Another\n")
    assert anywhere.card("loan", version) == "# Card\n"


def test_states_are_revisions(anywhere: Repository) -> None:
    """A state begins at revision 1, each change is the next one, and only a model that has a state is changed."""
    assert anywhere.state("loan") is None
    with pytest.raises(MissingInput):
        anywhere.change("loan", lambda s: s)
    created = anywhere.create_state("loan", ModelState("loan", 9, "binary", mode="observe"))
    assert created.revision == 1
    changed = anywhere.change("loan", lambda s: msgspec.structs.replace(s, frozen=True))
    assert (changed.revision, changed.frozen, changed.mode) == (2, True, "observe")
    assert anywhere.state("loan") == changed
    with pytest.raises(WrongSetting, match="exists"):
        anywhere.create_state("loan", created)


def test_the_freeze_of_all_models(anywhere: Repository) -> None:
    """The repository-wide freeze is set and lifted, and is no model."""
    assert not anywhere.all_frozen()
    anywhere.freeze_all(True)
    anywhere.freeze_all(True)
    assert anywhere.all_frozen()
    assert anywhere.models() == []
    anywhere.freeze_all(False)
    anywhere.freeze_all(False)
    assert not anywhere.all_frozen()


def with_alias(name: str) -> Callable[[ModelState], ModelState]:
    """A change that adds an alias."""
    return lambda state: msgspec.structs.replace(state, aliases={**state.aliases, name: "1"})


def test_concurrent_changes_are_all_kept(tmp_path: Path) -> None:
    """Eight writers through objects of their own, like processes: no change overwrites another one."""
    url = str(tmp_path)
    Repository(url).create_state("loan", ModelState("loan", 0, "binary"))

    def write(writer: int) -> None:
        for i in range(10):
            Repository(url).change("loan", with_alias(f"{writer}-{i}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    final = Repository(url).state("loan")
    assert final is not None
    assert final.revision == 81
    assert len(final.aliases) == 80


def test_a_state_is_never_read_half_written(tmp_path: Path) -> None:
    """Readers that look all the time see whole states only."""
    repository = Repository(str(tmp_path))
    repository.create_state("loan", ModelState("loan", 0, "binary", aliases={str(i): "1" for i in range(2_000)}))
    done = threading.Event()

    def look() -> int:
        looks = 0
        while not done.is_set():
            state = Repository(str(tmp_path)).state("loan")
            assert state is not None
            looks += len(state.aliases) == 2_000
        return looks

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(look) for _ in range(2)]
        for _ in range(50):
            repository.change("loan", lambda s: s)
        done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_reserved_versions_are_unique(tmp_path: Path) -> None:
    """Eight writers at once never get the same number, and no number is left out."""
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: Repository(str(tmp_path)).reserve_version("loan"), range(40)))
    assert sorted(versions) == list(range(1, 41))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../loan", "a/b", "/etc", ".hidden", "a\\b", "a b", "x" * 201, "ä", "a\n"]
)
def test_a_name_cannot_leave_the_repository(repository: Repository, name: str) -> None:
    """Names that are paths, or hidden, are refused by every verb."""
    calls: list[Callable[[], object]] = [
        lambda: repository.versions(name),
        lambda: repository.state(name),
        lambda: repository.reserve_version(name),
        lambda: repository.load(name, 1),
        lambda: repository.uri(name, 1),
        lambda: repository.create_state(name, ModelState(name, 1, "binary")),
    ]
    for call in calls:
        with pytest.raises(WrongSetting, match="cannot be a model's name"):
            call()


def files(repository: Repository) -> Path:
    """The folder of a fresh version 1 of `loan`."""
    models.put(repository, "loan", models.binary())
    return Path(repository.uri("loan", 1))


def test_other_bytes_than_the_manifests_are_not_loaded(repository: Repository) -> None:
    """Changed, shortened, longer or no bytes at all."""
    model = files(repository) / "model.onnx"
    good = model.read_bytes()
    for bad in (good[:-1], good + b"\0", b"", good[:-1] + bytes([good[-1] ^ 1])):
        model.write_bytes(bad)
        with pytest.raises(CorruptVersion, match="is not served"):
            repository.load("loan", 1)
    model.unlink()
    with pytest.raises(MissingInput):
        repository.load("loan", 1)


def test_links_and_pipes_are_not_loaded(repository: Repository, tmp_path: Path) -> None:
    """A link in the place of the file or of a folder is refused even with the right bytes; a pipe does not hang."""
    folder = files(repository)
    model = folder / "model.onnx"
    outside = tmp_path / "outside.onnx"
    model.rename(outside)
    model.symlink_to(outside)
    with pytest.raises(CorruptVersion, match="symbolic link"):
        repository.load("loan", 1)
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(CorruptVersion, match="not a plain file"):
        repository.load("loan", 1)
    model.unlink()
    outside.rename(model)
    assert repository.load("loan", 1)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptVersion, match="symbolic link"):
        repository.load("loan", 1)


def test_a_repository_may_itself_be_reached_by_a_link(repository: Repository, tmp_path: Path) -> None:
    """The operator's own path may contain links: only what lies inside the repository may not."""
    files(repository)
    (tmp_path / "current").symlink_to(tmp_path / "models")
    assert Repository(str(tmp_path / "current")).load("loan", 1)


def test_a_model_over_the_limit_is_not_loaded(repository: Repository, tmp_path: Path) -> None:
    """The size limit holds for what the manifest admits too."""
    files(repository)
    with pytest.raises(CorruptVersion, match="larger than 100 bytes"):
        Repository(str(tmp_path / "models"), max_model_bytes=100).load("loan", 1)


def test_weights_in_other_files_are_refused(repository: Repository) -> None:
    """A model with external data is neither written nor loaded, wherever in the graph the reference is."""
    made = models.binary()
    for place in ("initializer", "attribute", "function"):
        model = onnx.load_model_from_string(made.onnx)
        weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../../../etc/passwd")
        node = onnx.helper.make_node("Constant", [], ["w"], value=weights)
        if place == "initializer":
            model.graph.initializer.append(weights)
        elif place == "attribute":
            model.graph.node.append(node)
        else:
            model.functions.add(name="f", domain="d").node.append(node)
        data = model.SerializeToString()
        manifest = made.manifest("loan", 1, sha256=sha256(data), size_bytes=len(data))
        with pytest.raises(CorruptVersion, match="stored in another file"):
            repository.write_version("loan", 1, data, manifest, "")
    assert repository.versions("loan") == []


@pytest.mark.parametrize("data", [b"", b"no", b'{"format":1}', b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_none_is_told(repository: Repository, data: bytes) -> None:
    """A broken manifest is one error that names it."""
    path = files(repository) / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(CorruptVersion, match=r"manifest\.json is not served"):
        repository.load("loan", 1)


def test_a_manifest_of_another_version_is_refused(repository: Repository) -> None:
    """A copied folder does not pass for another version; a newer format is not guessed at."""
    folder = files(repository)
    folder.rename(folder.with_name("2"))
    with pytest.raises(CorruptVersion, match="manifest is of loan version 1"):
        repository.load("loan", 2)
    made = models.binary()
    with pytest.raises(CorruptVersion, match="newer"):
        repository.write_version("loan", 3, made.onnx, made.manifest("loan", 3, format=99), "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size_bytes": 5}, "bytes"),
        ({"classes": ["approve"]}, "fewer than two"),
        ({"classes": ["a", "a"]}, "repeat"),
        ({"classes": ["a", 1], "positive": 1}, "different types"),
        ({"positive": "maybe"}, "positive"),
        ({"task": "regression"}, "value"),
        ({"signature": Signature(features=[])}, "features"),
        ({"signature": Signature(features=[Feature("a"), Feature("a")])}, "differ"),
        ({"signature": Signature(features=[Feature("a")])}, "neither"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_not_written(
    repository: Repository, change: dict[str, object], says: str
) -> None:
    """Nothing wrong gets into the repository in the first place."""
    made = models.binary()
    with pytest.raises(CorruptVersion, match=says):
        repository.write_version("loan", 1, made.onnx, made.manifest("loan", 1, **change), "")
    assert repository.versions("loan") == []


def test_a_broken_state_is_told(repository: Repository, tmp_path: Path) -> None:
    """The newest revision decides: an unreadable one is an error, never a silent return to the one before."""
    repository.create_state("loan", ModelState("loan", 1, "binary"))
    (tmp_path / "models" / "loan" / "state" / "00000002.json").write_text("{")
    with pytest.raises(StateMismatch, match=r"00000002\.json"):
        repository.state("loan")


def test_stores_without_exclusive_create_are_refused() -> None:
    """Where two writers could both succeed, there is no repository; an unknown store says what to do."""
    for url in ("http://host/models", "ftp://host/models", "nothing://x"):
        with pytest.raises(WrongSetting, match="exclusive create"):
            Repository(url)


def test_a_repository_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the folder should be: one error."""
    (tmp_path / "models").write_text("")
    with pytest.raises(DriftlineError, match="cannot be written"):
        Repository(str(tmp_path / "models")).reserve_version("loan")
