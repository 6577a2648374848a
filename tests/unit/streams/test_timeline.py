"""The order of two inputs: record time, predictions before outcomes, offset; and what the clock may promise."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams import timeline as timeline_module
from streams.columns import Events
from streams.events import Outcome, Prediction
from streams.timeline import OUTCOMES, PREDICTIONS, Piece, Timeline, Window
from tests.support.windows import outcome_events, prediction_events

Place = tuple[int, int, int]
"""(time, side, offset)."""


def events(side: int, at_ms: Sequence[int], first: int) -> Events:
    """A batch of one record a time, with offsets from ``first`` on."""
    offsets = range(first, first + len(at_ms))
    if side == PREDICTIONS:
        return prediction_events(at_ms, [Prediction(f"p{n}", "m", "1", 1) for n in offsets], offsets)
    return outcome_events(at_ms, [Outcome(f"p{n}", 1) for n in offsets], offsets)


def add(timeline: Timeline, side: int, at_ms: Sequence[int], first: int = 0) -> None:
    """Queue a batch as a partition does."""
    in_order = timeline.in_order(side, np.array(at_ms, dtype=np.int64))
    timeline.add(side, events(side, in_order.tolist(), first))


def merged(window: Window) -> list[Place]:
    """The records of a window in the order of the join."""
    found = [
        (int(piece.events.at_ms[row]), side, int(piece.events.offsets[row]))
        for side, pieces in enumerate(window.sides)
        for piece in pieces
        for row in range(piece.start, piece.end)
    ]
    return sorted(found)


def finish(timeline: Timeline, window: Window) -> None:
    for side, pieces in enumerate(window.sides):
        timeline.done(side, sum(map(len, pieces)))


def taken(timeline: Timeline) -> list[Place]:
    """Everything whose turn is certain, window by window."""
    found: list[Place] = []
    while window := timeline.next():
        found += merged(window)
        finish(timeline, window)
    return found


def test_nothing_is_certain_while_the_other_input_is_unread() -> None:
    """A record waits until the other topic has been read as far, or is known to be silent."""
    timeline = Timeline()
    add(timeline, PREDICTIONS, [100])
    assert not timeline.next()
    timeline.idle(OUTCOMES, 99)
    assert not timeline.next()
    timeline.idle(OUTCOMES, 100)
    assert taken(timeline) == [(100, PREDICTIONS, 0)]


def test_outcomes_wait_for_every_prediction_of_their_time() -> None:
    """More predictions of the same millisecond may still be unread."""
    timeline = Timeline()
    add(timeline, PREDICTIONS, [100])
    add(timeline, OUTCOMES, [100])
    assert taken(timeline) == [(100, PREDICTIONS, 0)]
    add(timeline, PREDICTIONS, [100], first=1)
    assert taken(timeline) == [(100, PREDICTIONS, 1)]
    timeline.idle(PREDICTIONS, 101)
    assert taken(timeline) == [(100, OUTCOMES, 0)]


def test_a_clock_that_steps_back_does_not_reorder_an_input() -> None:
    """A record is never earlier than the one before it in its topic, also after a restart in between."""
    timeline = Timeline((500, 0))
    add(timeline, PREDICTIONS, [400, 700, 600], first=7)
    add(timeline, PREDICTIONS, [450], first=10)
    timeline.idle(OUTCOMES, 1_000)
    assert taken(timeline) == [(500, 0, 7), (700, 0, 8), (700, 0, 9), (700, 0, 10)]


def test_the_clock_never_passes_a_record_that_is_still_queued() -> None:
    """A checkpoint may fall while records wait (a model is being registered): its clock must not let rows expire."""
    timeline = Timeline()
    for side in (PREDICTIONS, OUTCOMES):
        add(timeline, side, [100])
        add(timeline, side, [900], first=1)
    assert timeline.clock_ms == 100
    assert taken(timeline) == [(100, PREDICTIONS, 0), (100, OUTCOMES, 0), (900, PREDICTIONS, 1)]
    assert timeline.clock_ms == 900
    timeline.idle(PREDICTIONS, 2_000)
    timeline.idle(OUTCOMES, 2_000)
    assert timeline.clock_ms == 900
    assert taken(timeline) == [(900, OUTCOMES, 1)]
    assert timeline.clock_ms == 2_000


def test_the_clock_stands_at_the_first_row_of_a_batch_that_is_not_done() -> None:
    """A batch may be processed in parts."""
    timeline = Timeline()
    add(timeline, PREDICTIONS, [100, 200, 300])
    timeline.idle(OUTCOMES, 1_000)
    timeline.done(PREDICTIONS, 1)
    assert (timeline.clock_ms, timeline.held) == (200, 2)
    assert taken(timeline) == [(200, PREDICTIONS, 1), (300, PREDICTIONS, 2)]


def test_what_is_held_counts_the_records_that_wait() -> None:
    """The worker pauses the input that is ahead by it."""
    timeline = Timeline()
    add(timeline, PREDICTIONS, [100, 100, 100])
    add(timeline, PREDICTIONS, [200], first=3)
    assert timeline.held == 4
    timeline.idle(OUTCOMES, 150)
    assert len(taken(timeline)) == 3
    assert timeline.held == 1


def test_markers_stretch_the_last_batch_that_waits() -> None:
    """A position passes them with the records before them; with none waiting the caller must move it."""
    timeline = Timeline()
    assert not timeline.stretch(PREDICTIONS, 3)
    add(timeline, PREDICTIONS, [100, 200], first=3)
    assert timeline.stretch(PREDICTIONS, 9)
    timeline.idle(OUTCOMES, 150)
    ((first,), _) = timeline.next().sides
    assert first.end_offset == 4
    timeline.done(PREDICTIONS, 1)
    timeline.idle(OUTCOMES, 1_000)
    ((second,), _) = timeline.next().sides
    assert second.end_offset == 9


def test_the_earlier_part_of_a_piece() -> None:
    """Records of the limit itself are not in it, and an empty part is none."""
    piece = Piece(events(OUTCOMES, [100, 200, 200, 300], 0), 1, 4)
    assert piece.before(200) is None
    part = piece.before(201)
    assert part is not None
    assert (part.start, part.end) == (1, 3)
    assert piece.before(1_000) == piece


records = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), max_size=40)


@profile(max_examples=200, deadline=None)
@given(records, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_is_the_same_however_the_inputs_are_read(
    steps: list[tuple[int, int]], window_rows: int, rng: random.Random
) -> None:
    """Records come out by (time, predictions first, offset), and none is earlier than a clock that was told before.

    In batches of any lengths, in windows of any bound, with windows processed whole or not at all for a while.
    """
    inputs: tuple[list[int], list[int]] = ([], [])
    for side, step in steps:
        inputs[side].append((inputs[side] or [0])[-1] + step)
    timeline = Timeline()
    read = [0, 0]
    out: list[Place] = []
    clock = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline_module, "WINDOW_ROWS", window_rows)
        while any(read[side] < len(inputs[side]) for side in (0, 1)):
            side = rng.choice([side for side in (0, 1) if read[side] < len(inputs[side])])
            count = rng.randint(1, 7)
            add(timeline, side, inputs[side][read[side] : read[side] + count], first=read[side])
            read[side] = min(len(inputs[side]), read[side] + count)
            while rng.random() < 0.8 and (window := timeline.next()):
                assert all(sum(map(len, pieces)) <= window_rows for pieces in window.sides)
                assert all(at_ms >= clock for at_ms, _, _ in merged(window))
                out += merged(window)
                finish(timeline, window)
            assert timeline.held == sum(read) - len(out)
            assert timeline.clock_ms >= clock
            clock = timeline.clock_ms
        for side in (PREDICTIONS, OUTCOMES):
            timeline.idle(side, 1_000)
        out += taken(timeline)
    assert out == sorted((at, side, n) for side in (0, 1) for n, at in enumerate(inputs[side]))
    assert timeline.held == 0
