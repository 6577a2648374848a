"""The lock on a data folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from stack.folder import FolderLock
from streams.errors import Unavailable, WrongSetting

HOLD = """
import sys, time
from pathlib import Path
from stack.folder import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
lock = FolderLock(Path(sys.argv[2])); lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """A second owner gets one line that names the first, and may have the folder once it is given up."""
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    with pytest.raises(Unavailable, match=r"in use by process \d+"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_killed_owner_leaves_no_lock_behind(tmp_path: Path) -> None:
    """After kill -9 of the owner the folder is free."""
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a"), str(tmp_path / "b")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match=f"process {owner.pid}"):
            FolderLock(tmp_path / "b").acquire()
    finally:
        owner.kill()
        owner.communicate()
    lock = FolderLock(tmp_path / "b")
    lock.acquire()
    lock.release()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be is a wrong setting, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongSetting, match="cannot hold data"):
        FolderLock(tmp_path / "file" / "data").acquire()
