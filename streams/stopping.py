"""Keeps the stop of a worker within its bound: a store that does not answer then is given up.

The group must be left before a supervisor kills the process, or the broker waits for a whole session until it gives
the partitions to another worker. The checkpoint that is not taken costs nothing but its work: the next owner reads on
from the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

STOP_GRACE_S = 9.0
"""A supervisor often kills ten seconds after its SIGTERM."""
PATIENCE_S = 2.0
"""How long one call of the store may wait for its answer while the worker stops."""
DRAIN_S = 5.0
"""How long all of them may take together. Leaving the group takes a fraction of what is left of the grace."""
POLL_S = 0.05

log = structlog.get_logger(__name__)


async def give_up(
    waited_s: Callable[[], float], cut: Callable[[], None], patience_s: float = PATIENCE_S, bound_s: float = DRAIN_S
) -> None:
    """Call ``cut`` once the store has kept us waiting for too long; runs until then, or until it is cancelled.

    ``waited_s`` tells how long the call that runs now has waited for its answer.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    while True:
        waited, stopping_s = waited_s(), clock() - began_s
        if waited >= patience_s or stopping_s >= bound_s:
            break
        await asyncio.sleep(POLL_S)
    log.warning("store.given_up", waited_s=round(waited, 1), stopping_s=round(stopping_s, 1))
    cut()
