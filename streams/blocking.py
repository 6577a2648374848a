"""Blocking work beside an event loop, in one thread."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_thread = ThreadPoolExecutor(1, "stages")
"""One thread for all that blocks: a pool would take another one now and then, with cold caches."""


async def to_its_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the stages' thread; whoever is cancelled meanwhile still waits for its end.

    A rebalance cancels the taking of partitions, but nothing stops its thread: were the lock let go, the next taking
    would share its state with it, and keep partitions that are another worker's.
    """
    thread = asyncio.get_running_loop().run_in_executor(_thread, functools.partial(work, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not thread.done():
        try:
            await asyncio.wait({thread})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not thread.cancelled():
            thread.exception()  # seen: the next taking meets the same condition
        raise cancelled
    return thread.result()
