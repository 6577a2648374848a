"""Where the model repository's bytes are: a folder or an object store, both with exclusive create.

Exclusive create is what keeps two writers apart, so a store that cannot promise it is refused.
"""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path
from typing import Any, Protocol

import fsspec

from streams.configuration import masked
from streams.errors import MissingInput, Unavailable, WrongSetting

EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
"""fsspec implementations whose ``pipe_file(mode="create")`` is a conditional write in the store itself. The generic
one looks first and writes then, so that two writers can both succeed."""


class Storage(Protocol):
    """Files by relative path, ``/`` between the parts."""

    def create(self, path: str, data: bytes) -> None:
        """Write a new file, whole or not at all. Raises ``FileExistsError``; of two writers exactly one succeeds."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all, over one that may be there."""

    def read(self, path: str, limit: int) -> bytes:
        """A plain file's bytes. Raises ``FileNotFoundError``, and ``ValueError`` for a link or more than ``limit``."""

    def names(self, path: str) -> list[str]:
        """Names of what is directly inside a folder; none if there is no such folder."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""

    def uri(self, path: str) -> str:
        """The full address of a path."""


def open_storage(url: str) -> Storage:
    """The storage behind a folder or URL.

    Raises :class:`WrongSetting` for a URL whose store is unknown, not installed or without exclusive create.
    """
    protocol, separator, _ = url.partition("://")
    if not separator:
        return LocalStorage(Path(url))
    if protocol in ("file", "local"):
        return LocalStorage(Path(url.partition("://")[2]))
    if protocol not in EXCLUSIVE_PROTOCOLS:
        known = ", ".join(sorted(EXCLUSIVE_PROTOCOLS))
        raise WrongSetting(
            f"repository {masked(url)}: {protocol} has no exclusive create",
            f"use a folder or a URL with one of {known}",
        )
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise WrongSetting(f"repository {masked(url)}: {error}", "install the fsspec package of that store") from None
    return ObjectStorage(filesystem, str(root), protocol)


class LocalStorage:
    """A folder. A new file is written aside, flushed to disk and linked into place: it appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 — resolve() would follow a symlink chosen later

    def create(self, path: str, data: bytes) -> None:
        aside = self._write_aside(path, data)
        try:
            os.link(aside, self._root / path)
        except FileExistsError:
            raise
        except OSError as error:
            raise Unavailable(
                f"the model repository's file system cannot link files: {error}", "put it on one that can"
            ) from None
        finally:
            aside.unlink()
        self._sync_folder(path)

    def replace(self, path: str, data: bytes) -> None:
        self._write_aside(path, data).replace(self._root / path)
        self._sync_folder(path)

    def _write_aside(self, path: str, data: bytes) -> Path:
        target = self._root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(
                f"the model repository cannot be written: {error.strerror}: {target}",
                "check its path, owner and free space",
            ) from None
        return aside

    def _sync_folder(self, path: str) -> None:
        """A rename survives a power cut only when its folder was flushed too."""
        folder = os.open((self._root / path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, path: str, limit: int) -> bytes:
        target = self._root / path
        expected = self._root.resolve() / path
        if target.resolve() != expected:
            raise ValueError(f"{target} is or passes through a symbolic link")
        with os.fdopen(os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{target} is not a plain file")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"{target} is larger than {limit} bytes")
        return data

    def names(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise Unavailable(f"the model repository cannot be read: {error}", "check its owner") from None

    def exists(self, path: str) -> bool:
        return (self._root / path).is_file()

    def remove(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def uri(self, path: str) -> str:
        return str(self._root / path)


class ObjectStorage:
    """An fsspec file system in which one write is one object, conditional where it must be."""

    def __init__(self, filesystem: Any, root: str, protocol: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._protocol = protocol

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def create(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(path), data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(path), data)

    def read(self, path: str, limit: int) -> bytes:
        size = int(self._fs.info(self._at(path))["size"])
        if size > limit:
            raise ValueError(f"{self.uri(path)} is larger than {limit} bytes")
        data = self._fs.cat_file(self._at(path), start=0, end=limit + 1)
        if len(data) > limit:
            raise ValueError(f"{self.uri(path)} is larger than {limit} bytes")
        return bytes(data)

    def names(self, path: str) -> list[str]:
        self._fs.invalidate_cache(self._at(path))
        try:
            entries = self._fs.ls(self._at(path), detail=False)
        except FileNotFoundError:
            return []
        return sorted({str(entry).rstrip("/").rpartition("/")[2] for entry in entries})

    def exists(self, path: str) -> bool:
        self._fs.invalidate_cache(self._at(path).rpartition("/")[0])
        return bool(self._fs.isfile(self._at(path)))

    def remove(self, path: str) -> None:
        if self.exists(path):
            self._fs.rm_file(self._at(path))

    def uri(self, path: str) -> str:
        return f"{self._protocol}://{self._at(path).lstrip('/')}"


def missing(uri: str) -> MissingInput:
    """The error for something that the repository does not have."""
    return MissingInput(f"{uri} does not exist", "`driftline models list` shows what the repository has")
