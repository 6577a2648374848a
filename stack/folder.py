"""One owner at a time for a folder of the embedded stack."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from streams.errors import Unavailable, WrongSetting


class FolderLock:
    """An advisory lock on ``folder``. The kernel drops it when its process ends, so a crash leaves no stale lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None

    def acquire(self) -> None:
        """Make the folder and own it. Raises :class:`Unavailable` at once if another process does."""
        if self._file is not None:
            return
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WrongSetting(
                f"{self.folder} cannot hold data: {error.strerror}", "choose a folder that you can write to"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 20).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise Unavailable(
                f"{self.folder} is in use by process {owner}", "stop that one, or choose another data folder"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file

    def release(self) -> None:
        """Give the folder up; nothing happens if it is not ours."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
