"""Waiting for a condition, with a generous bound."""

import time
from collections.abc import Callable

BOUND_S = 60.0


def eventually(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds; fails saying what never happened."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
