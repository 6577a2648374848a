"""Blocking work of the worker is never left behind by a cancelled caller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.blocking import to_its_end


def test_a_cancelled_caller_waits_for_the_thread() -> None:
    """Cancelled twice while the work runs, the caller is cancelled only once the work has ended."""
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(60)
        ended.set()

    async def run() -> None:
        lock = asyncio.Lock()

        async def caller() -> None:
            async with lock:
                await to_its_end(work)

        task = asyncio.create_task(caller())
        await asyncio.to_thread(began.wait, 60)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
            assert lock.locked()
        go_on.set()
        async with lock:
            assert ended.is_set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_what_the_work_gives_and_raises_comes_back() -> None:
    """Results and errors pass through."""
    assert asyncio.run(to_its_end(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(to_its_end(lambda: 1 // 0))
