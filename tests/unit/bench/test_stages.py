"""The timers of the profile: what they count, and that every stage they name exists."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bench import stages
from bench.stages import STAGES, Stopwatch, resolve


def work(seconds: float) -> None:
    """Use so much CPU of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("name", [name for names in STAGES.values() for name in names])
def test_every_stage_is_a_function_of_the_worker(name: str) -> None:
    """A function that was renamed would silently drop out of the profile: its name must be found."""
    assert callable(resolve(name)[2])


def test_a_name_that_is_gone_is_an_error() -> None:
    """The profile never leaves out a stage quietly."""
    with pytest.raises(AttributeError):
        resolve("streams.partition:InputPartition.no_such_thing")


def test_time_inside_another_stage_is_counted_once() -> None:
    """The outer stage has its own work, the inner stage the rest; together they are no more than the thread used."""
    stopwatch = Stopwatch()
    inner = stopwatch.timed("inner", lambda: work(0.06))

    def both() -> None:
        work(0.02)
        inner()

    before = time.thread_time()
    stopwatch.timed("outer", both)()
    used = time.thread_time() - before
    totals = stopwatch.totals()
    assert totals["inner"][0] >= 0.06
    assert totals["outer"][0] >= 0.02
    assert totals["inner"][0] + totals["outer"][0] <= used
    assert (totals["inner"][1], totals["outer"][1]) == (1, 1)


def test_the_work_of_a_generator_belongs_to_its_stage() -> None:
    """It is done when the timed function returns, and the caller still gets every item."""
    stopwatch = Stopwatch()

    def items() -> Iterator[int]:
        for number in range(3):
            work(0.01)
            yield number

    assert list(stopwatch.timed("items", items)()) == [0, 1, 2]
    assert stopwatch.totals()["items"][0] >= 0.03


def test_waiting_is_not_counted_and_threads_are_added_up() -> None:
    """A stage that sleeps in one thread and works in another has used what it worked."""
    stopwatch = Stopwatch()
    pause = threading.Event()
    waiting = threading.Thread(target=stopwatch.timed("stage", pause.wait))
    waiting.start()
    stopwatch.timed("stage", work)(0.05)
    pause.set()
    waiting.join()
    seconds, calls = stopwatch.totals()["stage"]
    assert calls == 2
    assert seconds >= 0.05


def test_a_stage_that_raises_is_counted_and_raises() -> None:
    """The timers change nothing of what the function does."""
    stopwatch = Stopwatch()

    def fails() -> None:
        raise ValueError("as ever")

    with pytest.raises(ValueError, match="as ever"):
        stopwatch.timed("stage", fails)()
    assert stopwatch.totals()["stage"][1] == 1


def test_every_thread_of_a_process_is_found_by_its_name() -> None:
    """Threads that Python knows have their Python names, and their CPU is in the kernel's table."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="a-thread-of-the-test")
    thread.start()
    try:
        number = next(n for n, name in stages.named_threads().items() if name == "a-thread-of-the-test")
        assert number in stages.thread_cpu_s()
    finally:
        stop.set()
        thread.join()
