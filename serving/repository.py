"""The model repository: immutable versions, and each model's state as revisions that cannot overwrite each other.

Layout, Triton's with the state beside the versions::

    <root>/<model>/<version>/{model.onnx, manifest.json, MODEL_CARD.md}
    <root>/<model>/state/<revision>.json    with who made it and why: the audit trail
    <root>/frozen.json                      while all promotions are stopped

A version exists once its manifest does. Whoever changes a state creates revision n + 1 exclusively; of two writers
one succeeds and the other reads again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from serving import manifest as manifests
from serving.history import Change, Revision
from serving.manifest import Manifest
from serving.model_file import UnsafeModel, check_hash, check_self_contained, sha256
from serving.storage import missing, open_storage
from streams.errors import MissingInput, StateMismatch, Unavailable, WrongSetting
from streams.events import ModelState

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
REVISION = re.compile(r"([0-9]{8,})\.json")
MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
RESERVED_FILE = ".reserved"
FROZEN_FILE = "frozen.json"
MAX_MODEL_BYTES = 512 * 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
ATTEMPTS = 100


class CorruptVersion(StateMismatch):
    """A version whose files contradict each other or cannot be trusted."""


class VersionTaken(WrongSetting):
    """Somebody else has written the version, or begun to."""


class Repository:
    """A model repository in a folder or behind an fsspec URL. Thread-safe; many processes may share it."""

    def __init__(self, url: str, max_model_bytes: int = MAX_MODEL_BYTES) -> None:
        self._storage = open_storage(url)
        self._max_model_bytes = max_model_bytes

    def models(self) -> list[str]:
        """Names of the models that have a state or a complete version."""
        names = [name for name in self._storage.names("") if NAME.fullmatch(name) and name != FROZEN_FILE]
        return [name for name in names if self._revisions(name) or self.versions(name)]

    def versions(self, model: str) -> list[int]:
        """The complete versions, ascending."""
        _check_name(model)
        return [v for v in self._folders(model) if self._storage.exists(f"{model}/{v}/{MANIFEST_FILE}")]

    def _folders(self, model: str) -> list[int]:
        return sorted(int(name) for name in self._storage.names(model) if VERSION.fullmatch(name))

    # State ------------------------------------------------------------------------------------------------------

    def state(self, model: str) -> ModelState | None:
        """The highest revision of a model's state; None for a model without one."""
        revisions = self._revisions(_check_name(model))
        return self._read_state(model, revisions[-1]) if revisions else None

    def create_state(self, model: str, state: ModelState, why: Change | None = None) -> ModelState:
        """Write revision 1. Raises :class:`WrongSetting` if the model has a state."""
        created = msgspec.structs.replace(state, model=_check_name(model), revision=1)
        if self._revisions(model) or not self._write_state(created, why):
            raise WrongSetting(f"the model {model} exists", "choose another name, or change the existing one")
        return created

    def change(self, model: str, update: Callable[[ModelState], ModelState], why: Change | None = None) -> ModelState:
        """Apply ``update`` to the newest state and write the result as the next revision → what was written.

        ``why`` is written with it: the audit trail, which :meth:`history` reads.

        ``update`` is called again on the newer state when another writer was faster, so it must be pure; what it raises
        passes through. Raises :class:`MissingInput` for a model without a state.
        """
        for _ in range(ATTEMPTS):
            current = self.state(model)
            if current is None:
                raise missing(self._storage.uri(f"{model}/state"))
            changed = msgspec.structs.replace(update(current), model=model, revision=current.revision + 1)
            if self._write_state(changed, why):
                return changed
        raise Unavailable(f"the state of {model} is changed by others all the time", "try again")

    def history(self, model: str) -> list[Revision]:
        """Every state that the model has had, oldest first, with who changed it and why."""
        return list(self.newest(model))[::-1]

    def newest(self, model: str) -> Iterator[Revision]:
        """The same, newest first, each read when it is asked for."""
        for revision in reversed(self._revisions(_check_name(model))):
            yield self._read_revision(model, revision)

    def _revisions(self, model: str) -> list[int]:
        found = (REVISION.fullmatch(name) for name in self._storage.names(f"{model}/state"))
        return sorted(int(match[1]) for match in found if match)

    def _read_state(self, model: str, revision: int) -> ModelState:
        kept = self._read_revision(model, revision)
        return ModelState(**{name: getattr(kept, name) for name in ModelState.__struct_fields__})

    def _read_revision(self, model: str, revision: int) -> Revision:
        path = _state_path(model, revision)
        try:
            state = msgspec.json.decode(self._storage.read(path, MAX_JSON_BYTES), type=Revision)
        except ValueError as error:
            raise StateMismatch(f"{self._storage.uri(path)} cannot be read: {error}", "restore it") from None
        if state.model != model or state.revision != revision:
            raise StateMismatch(f"{self._storage.uri(path)} is of {state.model} {state.revision}", "restore it")
        return state

    def _write_state(self, state: ModelState, why: Change | None) -> bool:
        data = msgspec.json.format(msgspec.json.encode(Revision.of(state, why)), indent=2) + b"\n"
        try:
            self._storage.create(_state_path(state.model, state.revision), data)
        except FileExistsError:
            return False
        return True

    # Versions ---------------------------------------------------------------------------------------------------

    def reserve_version(self, model: str) -> int:
        """A version number that nobody else gets."""
        _check_name(model)
        for _ in range(ATTEMPTS):
            version = max(self._folders(model), default=0) + 1
            try:
                self._storage.create(f"{model}/{version}/{RESERVED_FILE}", b"{}\n")
            except FileExistsError:
                continue
            return version
        raise Unavailable(f"no version of {model} can be reserved: others are always faster", "try again")

    def begun(self, model: str) -> set[int]:
        """The numbers under which a model was written, whole or not: nobody else writes one there."""
        _check_name(model)
        return {v for v in self._folders(model) if self._storage.exists(f"{model}/{v}/{MODEL_FILE}")}

    def write_version(self, model: str, version: int, onnx: bytes, manifest: Manifest, card: str) -> None:
        """Write a version, its manifest last: until then it does not exist, afterwards it never changes.

        Its model comes first, and only once: of two writers that hold the same number, one of them stopped for long
        without knowing, the second finds it there.

        Raises :class:`CorruptVersion` for a manifest that is of other bytes, or a model that would not be loaded, and
        :class:`VersionTaken` for a number that is not free.
        """
        where = f"{_check_name(model)}/{version}"
        try:
            _check_manifest(manifest, model, version)
            if manifest.size_bytes != len(onnx) or manifest.size_bytes > self._max_model_bytes:
                raise UnsafeModel(f"it has {len(onnx)} bytes, the manifest says {manifest.size_bytes}")
            check_hash(onnx, manifest.sha256)
            check_self_contained(onnx)
        except ValueError as error:
            raise CorruptVersion(f"version {version} of {model} is not written: {error}") from None
        taken = VersionTaken(f"version {version} of {model} is written already, and never changes", "reserve another")
        try:
            self._storage.create(f"{where}/{MODEL_FILE}", onnx)
            self._storage.replace(f"{where}/{CARD_FILE}", card.encode())
            self._storage.create(f"{where}/{MANIFEST_FILE}", manifests.encode(manifest))
        except FileExistsError:
            raise taken from None

    def manifest(self, model: str, version: int) -> Manifest:
        """A version's manifest. Raises :class:`MissingInput` or :class:`CorruptVersion`."""
        path = f"{_check_name(model)}/{version}/{MANIFEST_FILE}"
        try:
            found = manifests.decode(self._read(path, MAX_JSON_BYTES))
            _check_manifest(found, model, version)
        except ValueError as error:
            raise _corrupt(self._storage.uri(path), error) from None
        return found

    def load(self, model: str, version: int) -> bytes:
        """The bytes of a version's model, checked against its manifest before anything parses them.

        Raises :class:`MissingInput`, or :class:`CorruptVersion` for other bytes, a symbolic link, a file over the
        limit, or a model that keeps weights in other files.
        """
        manifest = self.manifest(model, version)
        path = f"{model}/{version}/{MODEL_FILE}"
        try:
            data = self._read(path, min(self._max_model_bytes, manifest.size_bytes))
            check_hash(data, manifest.sha256)
            check_self_contained(data)
        except ValueError as error:
            raise _corrupt(self._storage.uri(path), error) from None
        return data

    def manifest_hash(self, model: str, version: int) -> str:
        """The SHA-256 of a version's manifest: the hash that goes with :meth:`uri` of its reference profile."""
        return sha256(self._read(f"{_check_name(model)}/{version}/{MANIFEST_FILE}", MAX_JSON_BYTES))

    def card(self, model: str, version: int) -> str:
        """A version's model card."""
        return self._read(f"{_check_name(model)}/{version}/{CARD_FILE}", MAX_JSON_BYTES).decode()

    def uri(self, model: str, version: int) -> str:
        """The address of a version's folder."""
        return self._storage.uri(f"{_check_name(model)}/{version}")

    def _read(self, path: str, limit: int) -> bytes:
        try:
            return self._storage.read(path, limit)
        except FileNotFoundError:
            raise missing(self._storage.uri(path)) from None
        except OSError as error:
            raise Unavailable(f"{self._storage.uri(path)} cannot be read: {error}", "check the repository") from None

    # Freeze -----------------------------------------------------------------------------------------------------

    def freeze_all(self, frozen: bool) -> None:
        """Stop the promotions of every model, or allow them again."""
        if frozen:
            self._storage.replace(FROZEN_FILE, b"{}\n")
        else:
            self._storage.remove(FROZEN_FILE)

    def all_frozen(self) -> bool:
        """Whether the promotions of every model are stopped."""
        return self._storage.exists(FROZEN_FILE)


def _check_name(model: str) -> str:
    if not NAME.fullmatch(model):
        raise WrongSetting(
            f"{model!r} cannot be a model's name", "use letters, digits, dots, dashes and underscores, at most 200"
        )
    return model


def _check_manifest(manifest: Manifest, model: str, version: int) -> None:
    if (manifest.model, manifest.version) != (model, version):
        raise ValueError(f"its manifest is of {manifest.model} version {manifest.version}")
    manifests.check(manifest)


def _corrupt(uri: str, error: Exception) -> CorruptVersion:
    return CorruptVersion(f"{uri} is not served: {error}", "restore the file, or promote another version")


def _state_path(model: str, revision: int) -> str:
    return f"{model}/state/{revision:08d}.json"


__all__ = ["CorruptVersion", "MissingInput", "Repository", "VersionTaken"]
