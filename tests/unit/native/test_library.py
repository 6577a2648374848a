"""The compiled library is there where it could be built, and can be done without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from native.library import OFF, SWITCH, library, state

SHOW = "from native.library import library, state; print(library() is not None, state())"


def shown(**environment: str) -> str:
    """What another process says, with these environment variables."""
    own = {name: value for name, value in os.environ.items() if name != SWITCH}
    run = subprocess.run(
        [sys.executable, "-c", SHOW], env={**own, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_the_library_was_built_where_there_is_a_compiler() -> None:
    """Or all that compares the two ways would be skipped, and nobody would notice how slow it is."""
    if shutil.which("cc") is not None and os.environ.get(SWITCH) != OFF:
        assert library() is not None
        assert shown() == "True compiled"


def test_it_can_be_switched_off() -> None:
    """For whoever wants to know whether it is to blame."""
    assert shown(**{SWITCH: OFF}) == f"False Python, which is slower: {SWITCH}={OFF}"


def test_it_says_who_does_the_work() -> None:
    """The worker's log and `driftline doctor` show it."""
    assert state() == "compiled" if library() is not None else state().startswith("Python, which is slower")
