"""Waiting for what another process does: a condition with a generous bound, never a fixed sleep."""

import time
from collections.abc import Callable

import psutil

BOUND_S = 30.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds; fail after the bound."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {BOUND_S:g} s: {what}")
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether the process has ended (a zombie that nobody reaped counts as ended)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
