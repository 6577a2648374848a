"""A stop does not wait for a store that does not answer, and does for one that is slow."""

from __future__ import annotations

import asyncio
import math

from streams.stopping import give_up
from tests.support.driftline import BOUND_S


def test_a_call_that_waits_too_long_is_cut_off() -> None:
    """However little of the stop's time has passed: it may have begun long before."""
    cut: list[bool] = []
    asyncio.run(asyncio.wait_for(give_up(lambda: 7.0, lambda: cut.append(True), 2.0, math.inf), BOUND_S))
    assert cut == [True]


def test_calls_that_are_answered_slowly_are_cut_off_together() -> None:
    """None of them waits for long, and there is no end of them."""
    cut: list[bool] = []
    asyncio.run(asyncio.wait_for(give_up(lambda: 1.9, lambda: cut.append(True), 2.0, 0.01), BOUND_S))
    assert cut == [True]


def test_a_store_that_answers_is_left_alone() -> None:
    """The stop ends first, and ends the watch over it."""
    cut: list[bool] = []
    calls = iter([0.5, 1.5, 0.1])

    async def run() -> None:
        ended = asyncio.Event()

        def waited_s() -> float:
            waited = next(calls, None)
            if waited is None:
                ended.set()
            return waited or 0.0

        watching = asyncio.create_task(give_up(waited_s, lambda: cut.append(True), 2.0, math.inf))
        await asyncio.wait_for(ended.wait(), BOUND_S)
        watching.cancel()

    asyncio.run(run())
    assert cut == []
