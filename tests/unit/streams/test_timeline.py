"""The order of two inputs: record time, predictions before outcomes, offset; and what the clock may promise."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.timeline import OUTCOMES, PREDICTIONS, Run, Timeline


def run(side: int, at_ms: int, *offsets: int) -> Run[str]:
    return Run(side, at_ms, [str(offset) for offset in offsets], offsets, [b""] * len(offsets))


def taken(timeline: Timeline[str]) -> list[tuple[int, int]]:
    """(side, time) of every run whose turn is certain."""
    found = []
    while (at := timeline.next()) is not None:
        found.append((at.side, at.at_ms))
        timeline.done(at)
    return found


def test_nothing_is_certain_while_the_other_input_is_unread() -> None:
    """A run waits until the other topic has been read as far, or is known to be silent."""
    timeline: Timeline[str] = Timeline()
    timeline.add(run(PREDICTIONS, 100, 0))
    assert timeline.next() is None
    timeline.idle(OUTCOMES, 99)
    assert timeline.next() is None
    timeline.idle(OUTCOMES, 100)
    assert taken(timeline) == [(PREDICTIONS, 100)]


def test_outcomes_wait_for_every_prediction_of_their_time() -> None:
    """More predictions of the same millisecond may still be unread."""
    timeline: Timeline[str] = Timeline()
    timeline.add(run(PREDICTIONS, 100, 0))
    timeline.add(run(OUTCOMES, 100, 0))
    assert taken(timeline) == [(PREDICTIONS, 100)]
    timeline.add(run(PREDICTIONS, 100, 1))
    assert taken(timeline) == [(PREDICTIONS, 100)]
    timeline.idle(PREDICTIONS, 101)
    assert taken(timeline) == [(OUTCOMES, 100)]


def test_a_clock_that_steps_back_does_not_reorder_an_input() -> None:
    """A record is never earlier than the one before it in its topic, also after a restart in between."""
    timeline: Timeline[str] = Timeline((500, 0))
    timeline.add(run(PREDICTIONS, 400, 7))
    timeline.add(run(PREDICTIONS, 450, 8))
    timeline.idle(OUTCOMES, 1_000)
    assert taken(timeline) == [(PREDICTIONS, 500), (PREDICTIONS, 500)]


def test_the_clock_never_passes_a_run_that_is_still_queued() -> None:
    """A checkpoint may fall while runs wait (a model is being registered): its clock must not let their rows expire."""
    timeline: Timeline[str] = Timeline()
    for side in (PREDICTIONS, OUTCOMES):
        timeline.add(run(side, 100, 0))
        timeline.add(run(side, 900, 1))
    assert timeline.clock_ms == 100
    assert taken(timeline) == [(PREDICTIONS, 100), (OUTCOMES, 100), (PREDICTIONS, 900)]
    assert timeline.clock_ms == 900
    timeline.idle(PREDICTIONS, 2_000)
    timeline.idle(OUTCOMES, 2_000)
    assert timeline.clock_ms == 900
    assert taken(timeline) == [(OUTCOMES, 900)]
    assert timeline.clock_ms == 2_000


def test_what_is_held_counts_the_records_that_wait() -> None:
    """The worker pauses the input that is ahead by it."""
    timeline: Timeline[str] = Timeline()
    timeline.add(run(PREDICTIONS, 100, 0, 1, 2))
    timeline.add(run(PREDICTIONS, 200, 3))
    assert timeline.held == 4
    timeline.idle(OUTCOMES, 150)
    assert taken(timeline) == [(PREDICTIONS, 100)]
    assert timeline.held == 1


records = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), max_size=30)


@profile(max_examples=200, deadline=None)
@given(records, st.randoms(use_true_random=False))
def test_the_order_is_the_same_however_the_inputs_are_read(steps: list[tuple[int, int]], rng: random.Random) -> None:
    """Runs come out by (time, predictions first, offset), and none is earlier than a clock that was told before."""
    inputs: tuple[list[int], list[int]] = ([], [])
    for side, step in steps:
        inputs[side].append((inputs[side] or [0])[-1] + step)
    timeline: Timeline[str] = Timeline()
    read = [0, 0]
    out: list[tuple[int, int, int]] = []
    clock = 0
    order = [side for side, _ in steps]
    rng.shuffle(order)
    for side in order:
        timeline.add(run(side, inputs[side][read[side]], read[side]))
        read[side] += 1
        while (at := timeline.next()) is not None:
            assert at.at_ms >= clock
            out.append((at.at_ms, at.side, at.offsets[0]))
            timeline.done(at)
        assert timeline.clock_ms >= clock
        clock = timeline.clock_ms
    for side in (PREDICTIONS, OUTCOMES):
        timeline.idle(side, 1_000)
    while (at := timeline.next()) is not None:
        out.append((at.at_ms, at.side, at.offsets[0]))
        timeline.done(at)
    assert out == sorted((at, side, n) for side in (0, 1) for n, at in enumerate(inputs[side]))
