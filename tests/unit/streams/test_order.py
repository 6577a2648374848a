"""Which checkpoints and summaries count, and in which order errors come out."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detectors.four_rates import UNKNOWN
from streams.order import Inputs, OrderedErrors
from streams.records import Cut, Gap, Restart, Summary, Take, VersionPart
from tests.unit.streams.monitor_log import cut


def summary(
    sequence: int, epoch: int = 1, part: int = 0, parts: int = 1, second: int = 10, partition: int = 0
) -> bytes:
    """A record of the model "m" with one error."""
    versions = [VersionPart.of("1", "", [second], [sequence], np.zeros(1, dtype=np.uint8))]
    return msgspec.msgpack.encode(Summary(0, epoch, sequence, "m", "binary", versions, part, parts))


def inputs(partitions: int = 1) -> Inputs:
    return Inputs(partitions, lambda _: True)


def admitted(source: Inputs) -> list[tuple[int, int, int]]:
    """(sequence, epoch, part) of what is admitted now."""
    return [(each.sequence, each.epoch, each.part) for each in source.admit()]


def test_a_cut_is_held_until_all_its_summaries_are_whole() -> None:
    """More than the next sequence, or half a record, is held and never skipped; the clock waits with it."""
    source = inputs()
    source.checkpoint(0, 0, cut(0, 1, 5000, {"m": 2}))
    source.summary(summary(2, part=0, parts=2))
    assert (admitted(source), source.watermark_ms) == ([], 0)
    source.summary(summary(2, part=1, parts=2))
    assert admitted(source) == []
    source.summary(summary(1))
    assert admitted(source) == [(1, 1, 0), (2, 1, 0), (2, 1, 1)]
    assert source.watermark_ms == 5000


def test_seen_summaries_and_cuts_are_dropped() -> None:
    """What a successor publishes again has no effect the second time."""
    source = inputs()
    for offset in range(2):
        source.summary(summary(1))
        source.checkpoint(0, offset, cut(0, 1, 5000, {"m": 1}))
    assert admitted(source) == [(1, 1, 0)]
    source.summary(summary(1, epoch=9))
    source.checkpoint(0, 2, cut(0, 1, 9000, {"m": 1}, epoch=9))
    assert admitted(source) == []
    assert source.watermark_ms == 5000
    source.checkpoint(0, 1, cut(0, 2, 9000, {}))
    assert (admitted(source), source.watermark_ms) == ([], 5000)


def restarting(epoch: int, last: int) -> Take:
    """A take behind which the numbers begin again."""
    return Take(0, epoch, "r", "r", Restart(0, 0, 0, last, "lost"))


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.booleans())
def test_numbers_begin_again_behind_a_restart_however_records_arrive(seed: int, whole: bool) -> None:
    """Cuts before it count as far as it says, whole ones behind it from 1 on; no arrival and no reload changes that."""
    rng = random.Random(seed)
    last = 3 if whole else 2
    checkpoints: list[Take | Cut] = [
        Take(0, 1, "a", "a"),
        *(cut(0, number, 1000 * number, {"m": number}) for number in (1, 2, 3)),
        restarting(2, last),
        *(cut(0, number, 5000 + number, {"m": number}, epoch=2) for number in (1, 2, 3, 4)),
    ]
    old = [summary(number, second=number) for number in range(1, last + 1)]
    new = [summary(number, epoch=2, second=10 + number) for number in (1, 2, 3, 4)]
    told = [*old, *([] if whole else [summary(3, parts=2)]), *new]
    source, position, sent = inputs(), 0, 0
    records: dict[str, bytes] = {}
    sequences: dict[str, int] = {}
    found: list[tuple[int, int, int]] = []
    while position < len(checkpoints) or sent < len(told):
        if position < len(checkpoints) and (sent == len(told) or rng.random() < 0.5):
            source.checkpoint(0, position, checkpoints[position])
            position += 1
        else:
            source.summary(told[sent])
            sent += 1
        found += admitted(source)
        written, dropped, moved = source.changed()
        records = {name: value for name, value in {**records, **written}.items() if name not in dropped}
        sequences |= moved
        if rng.random() < 0.3:
            # What is admitted is stored until it is fed; the monitor would feed it again, so it is fed here at once.
            source.fed(1 << 40)
            _, dropped, _ = source.changed()
            records = {name: value for name, value in records.items() if name not in dropped}
            again = inputs()
            assert list(again.load(source.states, sequences, records, source.watermark_ms)) == []
            source, position = again, again.offsets[0]
    assert found == [(n, 1, 0) for n in range(1, last + 1)] + [(n, 2, 0) for n in (1, 2, 3, 4)]
    assert source.watermark_ms == 5004
    source.fed(1 << 40)
    _, dropped, _ = source.changed()
    assert set(records) <= set(dropped)


def test_a_zombies_cut_behind_a_take_does_not_count() -> None:
    """A cut of a lower epoch counts before the take of a higher one, not behind it."""
    source = inputs()
    source.checkpoint(0, 0, Take(0, 1, "a", "a"))
    source.checkpoint(0, 1, cut(0, 1, 1000, {}))
    source.checkpoint(0, 2, Take(0, 2, "b", "b"))
    source.checkpoint(0, 3, cut(0, 2, 9000, {}))
    admitted(source)
    assert source.watermark_ms == 1000
    source.checkpoint(0, 4, cut(0, 2, 2000, {}, epoch=2))
    admitted(source)
    assert source.watermark_ms == 2000


def test_a_zombies_summary_does_not_satisfy_a_later_epochs_cut() -> None:
    """A summary of a lower epoch than its cut does not count; the higher epoch replaces it, part by part."""
    source = inputs()
    source.checkpoint(0, 0, Take(0, 2, "b", "b"))
    source.checkpoint(0, 1, cut(0, 1, 1000, {"m": 1}, epoch=2))
    source.summary(summary(1, part=0, parts=2))
    source.summary(summary(1, part=1, parts=2))
    assert admitted(source) == []
    source.summary(summary(1, epoch=2))
    source.summary(summary(1, part=1, parts=2))
    assert admitted(source) == [(1, 2, 0)]


def test_after_a_reload_a_waiting_cut_is_read_again_under_the_take_before_it() -> None:
    """The stored place is the first cut that waits, with the epoch in force there: a later take must not void it."""
    source = inputs()
    source.checkpoint(0, 0, Take(0, 1, "a", "a"))
    source.checkpoint(0, 1, cut(0, 1, 1000, {"m": 1}))
    source.checkpoint(0, 2, Take(0, 2, "b", "b"))
    assert admitted(source) == []
    records, _, sequences = source.changed()
    assert source.offsets == {0: 1}
    again = inputs()
    assert list(again.load(source.states, sequences, records, source.watermark_ms)) == []
    again.checkpoint(0, 1, cut(0, 1, 1000, {"m": 1}))
    again.checkpoint(0, 2, Take(0, 2, "b", "b"))
    again.summary(summary(1, epoch=2))
    assert admitted(again) == [(1, 2, 0)]
    assert again.offsets == {0: 3}


def test_records_are_stored_until_their_last_error_is_fed() -> None:
    """A reload needs them for the errors that were waiting; not a second longer."""
    source = inputs()
    source.summary(summary(1, second=7))
    source.checkpoint(0, 0, cut(0, 1, 7500, {"m": 1}))
    admitted(source)
    source.fed(7)
    assert list(source.changed()[0]) == ["0:1:0:m"]
    source.fed(8)
    assert source.changed() == ({}, ["0:1:0:m"], {})
    source.summary(summary(2, second=9))
    source.checkpoint(0, 1, cut(0, 2, 12_000, {"m": 2}))
    admitted(source)
    source.fed(12)
    assert source.changed() == ({}, [], {"0:m": 2})


def test_a_gap_lets_the_others_go_on_until_the_partition_is_back() -> None:
    """An operator's command takes a silent partition out of the watermark; its next cut puts it back."""
    source = inputs(2)
    source.checkpoint(0, 0, cut(0, 1, 5000, {}))
    admitted(source)
    assert source.watermark_ms == 0
    source.checkpoint(1, 0, Gap(1, 1, "disk lost"))
    admitted(source)
    assert source.watermark_ms == 5000
    source.checkpoint(0, 1, cut(0, 2, 9000, {}))
    source.checkpoint(1, 1, cut(1, 1, 7000, {}))
    admitted(source)
    assert source.watermark_ms == 7000


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    errors=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(0, 50)), unique=True, max_size=60),
    seed=st.integers(0, 10**6),
)
def test_errors_come_in_the_order_of_second_partition_offset(errors: list[tuple[int, int, int]], seed: int) -> None:
    """However they are added and released, each comes once, and never before its second is over."""
    rng = random.Random(seed)
    buffer, got = OrderedErrors(), []
    for second in range(21):
        mine = [each for each in errors if each[0] == second]
        rng.shuffle(mine)
        for of_second, partition, offset in mine:
            buffer.add(partition, np.array([of_second]), np.array([offset]), np.array([offset / 100]))
        if rng.random() < 0.5 and (released := buffer.release(second)) is not None:
            assert released.seconds.max() < second
            got.append(released)
    if (released := buffer.release(100)) is not None:
        got.append(released)
    assert buffer.first_second is None
    rows = [row for each in got for row in zip(each.seconds, each.partitions, each.offsets, strict=True)]
    assert rows == sorted(errors)
    assert [value for each in got for value in each.errors] == pytest.approx([offset / 100 for *_, offset in rows])


def test_codes_stay_with_their_errors() -> None:
    """Those of records without any are unknown; where nobody has codes there are none."""
    buffer = OrderedErrors()
    buffer.add(1, np.array([5, 7]), np.array([1, 2]), np.zeros(2), np.array([3, 1], dtype=np.uint8))
    buffer.add(0, np.array([6]), np.array([9]), np.zeros(1))
    released = buffer.release(8)
    assert released is not None
    assert released.codes is not None
    assert released.codes.tolist() == [3, UNKNOWN, 1]
    last = released.slice(2, 3).codes
    assert last is not None
    assert last.tolist() == [1]
    buffer.add(0, np.array([9]), np.array([10]), np.zeros(1))
    released = buffer.release(10)
    assert released is not None
    assert released.codes is None
