"""The compiled library, if there is one."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

SWITCH = "DRIFTLINE_NATIVE"
"""An environment variable: ``off`` lets Python do everything."""
OFF = "off"


@cache
def library() -> ctypes.PyDLL | None:
    """The library; None where it was not built, is switched off, or would read numbers the wrong way round.

    Calls keep the interpreter lock: they are short, and giving it up costs a wait for whoever takes it meanwhile.
    """
    if os.environ.get(SWITCH) == OFF or sys.byteorder != "little":
        return None
    folder = Path(__file__).parent
    built = (folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((ctypes.PyDLL(str(path)) for path in built if path.exists()), None)


ARGUMENTS: Mapping[str, type[Any]] = {
    "p": ctypes.c_void_p,
    "b": ctypes.c_char_p,
    "i": ctypes.c_int64,
    "u": ctypes.c_uint64,
    "n": ctypes.c_size_t,
    "w": ctypes.c_int32,
    "f": ctypes.c_double,
}
"""What the letters of :func:`typed` stand for."""


def typed(function: Any, arguments: str, result: type[Any] | None = ctypes.c_int) -> Any:
    """A function of the library with its types; the letters of ``arguments`` are those of :data:`ARGUMENTS`."""
    function.argtypes, function.restype = tuple(ARGUMENTS[letter] for letter in arguments), result
    return function


def state() -> str:
    """Who does the work, in words."""
    if library() is not None:
        return "compiled"
    if os.environ.get(SWITCH) == OFF:
        return f"Python, which is slower: {SWITCH}={OFF}"
    if sys.byteorder != "little":
        return "Python, which is slower: what is compiled is for machines that store the lowest byte first"
    return (
        "Python, which is slower: no C compiler was found at the installation (apt-get install gcc, and install again)"
    )
