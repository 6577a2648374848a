"""The compiled library, if there is one."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SWITCH = "DRIFTLINE_NATIVE"
"""An environment variable: ``off`` lets Python do everything."""
OFF = "off"


@cache
def library() -> ctypes.PyDLL | None:
    """The library; None where it was not built, or is switched off.

    Calls keep the interpreter lock: they are short, and giving it up costs a wait for whoever takes it meanwhile.
    """
    if os.environ.get(SWITCH) == OFF:
        return None
    folder = Path(__file__).parent
    built = (folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((ctypes.PyDLL(str(path)) for path in built if path.exists()), None)


def state() -> str:
    """Who does the work, in words."""
    if library() is not None:
        return "compiled"
    if os.environ.get(SWITCH) == OFF:
        return f"Python, which is slower: {SWITCH}={OFF}"
    return (
        "Python, which is slower: no C compiler was found at the installation (apt-get install gcc, and install again)"
    )
