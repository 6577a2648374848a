"""One input partition: decoding, dead letters, positions, garbage, cuts and the records of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from streams import summarise
from streams.catalog import Catalog
from streams.errors import GarbageInput, StateMismatch
from streams.events import MAX_VALUE_BYTES, Outcome, Prediction, Value
from streams.partition import Batch, DeadLetter, InputPartition
from streams.records import EffectSettings, Labelled, Range
from streams.settings import WorkerSettings
from streams.store import Owned
from tests.support.model_join import Declared
from tests.support.partition import TOPICS, catalog_of

LIMITS = EffectSettings(horizon_ms=60_000, dedupe_ms=60_000, dedupe_rows=100, max_pending=100, max_undeclared=10)
NOW_MS = 1_700_000_000_000
CATALOG = catalog_of({"loan": Declared("binary", (0, 1)), "price": Declared("regression")})


def fresh(worker: WorkerSettings | None = None) -> InputPartition:
    part = InputPartition(Owned("join", 3, 7, "token", 0, "p:"), worker or WorkerSettings(), LIMITS)
    for side in (0, 1):
        part.start(side, 0, 0, 1_000, TOPICS[side])
    return part


def batch(
    side: int, values: Sequence[bytes | None], at_ms: int = NOW_MS, first: int = 0, following: int | None = None
) -> Batch:
    offsets = list(range(first, first + len(values)))
    runs = [(at_ms, len(values))] if values else []
    end = first + len(values) if following is None else following
    return Batch(TOPICS[side], 3, 1, first, end, values, offsets, runs)


def prediction(name: str, value: Value = 1, model: str = "loan") -> bytes:
    return msgspec.json.encode(Prediction(name, model, "1", value))


def outcome(name: str, value: Value = 1) -> bytes:
    return msgspec.json.encode(Outcome(name, value))


def read(part: InputPartition, predictions: Sequence[bytes | None], outcomes: Sequence[bytes | None] = ()) -> None:
    """Everything, as if both inputs had been read to their ends."""
    for side, values in enumerate((predictions, outcomes)):
        part.accept(side, batch(side, values, first=part.position[side] or 0))
        part.timeline.idle(side, NOW_MS + 1)
    assert part.advance(CATALOG) == []


def letters(part: InputPartition) -> list[DeadLetter]:
    return part.close(CATALOG).dead


def test_bad_input_is_buried_with_its_bytes_and_the_rest_goes_on() -> None:
    """Each under its own reason, at its own offset, also where the fast path refuses it for another cause."""
    deep = b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bad: list[bytes | None] = [None, b"", b"\xff", b'{"prediction_id": "\xff"}', deep]
    bad += [b"NaN", prediction("x", 2), prediction("x", 1e300)]
    part = fresh()
    read(part, [*bad, prediction("good")], [outcome("good")])
    found = letters(part)
    assert sorted((letter.offset, letter.reason) for letter in found) == [
        (0, "not_json"),
        (1, "not_json"),
        (2, "not_json"),
        (3, "not_json"),
        (4, "not_json"),
        (5, "not_finite"),
        (6, "unknown_class"),
        (7, "out_of_range"),
    ]
    assert {letter.offset: letter.value for letter in found} == dict(enumerate(bad))
    assert part.join.counters.joined == 1


def test_a_record_too_large_for_the_dead_letter_topic_is_buried_by_reference() -> None:
    """Whatever is wrong with it: its bytes would be refused by the producer, and the worker would never get past."""
    large = prediction("x").ljust(MAX_VALUE_BYTES + 1)
    part = fresh()
    read(part, [large, prediction("y", 2).ljust(MAX_VALUE_BYTES + 1), prediction("good")], [outcome("good")])
    found = letters(part)
    assert [(letter.offset, letter.reason) for letter in found] == [(0, "too_large"), (1, "too_large")]
    assert all(letter.value is not None and json.loads(letter.value)["offset"] == letter.offset for letter in found)
    assert part.join.counters.joined == 1


def test_an_outcome_that_its_prediction_contradicts_is_buried_by_reference() -> None:
    """Its bytes went by in an earlier batch; they are in the topic at its offset."""
    part = fresh()
    read(part, [], [outcome("p1", "a")])
    part.close(CATALOG)
    read(part, [prediction("p1")])
    (letter,) = letters(part)
    assert (letter.side, letter.offset, letter.reason) == (1, 0, "unknown_class")
    assert letter.value is not None
    assert json.loads(letter.value)["offset"] == 0


def test_a_stream_of_garbage_stops_before_any_of_it_counts() -> None:
    """The share is of at least so many records; the position stays, and the error names the way on."""
    worker = WorkerSettings(garbage_records=10, garbage_share=0.5)
    part = fresh(worker)
    part.accept(0, batch(0, [b"no"] * 4 + [prediction("p")] * 5))
    with pytest.raises(GarbageInput, match=r"predictions.*worker\.allow_garbage=true"):
        part.accept(0, batch(0, [b"no"], first=9))
    assert part.position == [9, 0]
    part.accept(1, batch(1, [outcome("p")] * 6 + [b"no"] * 5))
    allowed = fresh(WorkerSettings(garbage_records=10, allow_garbage=True))
    allowed.accept(0, batch(0, [b"no"] * 10))
    assert allowed.position == [10, 0]


def test_the_share_of_garbage_is_that_of_the_newest_records() -> None:
    """A good past does not hide a bad deploy."""
    part = fresh(WorkerSettings(garbage_records=10, garbage_share=0.5))
    for first in range(0, 1_000, 100):
        part.accept(0, batch(0, [prediction("p")] * 100, first=first))
    with pytest.raises(GarbageInput):
        part.accept(0, batch(0, [b"no"] * 10, first=1_000))


def test_markers_behind_the_last_record_count_as_processed() -> None:
    """Else lag would be seen for ever behind a transaction, and the next owner would read it again."""
    part = fresh()
    part.accept(0, batch(0, [prediction("p1")]))
    part.accept(0, batch(0, [], first=1, following=2))
    part.accept(1, batch(1, [], first=0, following=5))
    assert part.processed == [0, 5]
    for side in (0, 1):
        part.timeline.idle(side, NOW_MS + 1)
    part.advance(CATALOG)
    assert part.processed == [2, 5]
    part.accept(0, batch(0, [], first=2, following=4))
    assert part.processed == [4, 5]


def test_a_partition_never_read_starts_where_it_is_told() -> None:
    """And its first cut begins there."""
    part = InputPartition(Owned("join", 3, 7, "token", 0, "p:"), WorkerSettings(), LIMITS)
    assert [part.start(side, 40, 40, 90, TOPICS[side]) for side in (0, 1)] == [40, 40]
    cut = part.close(CATALOG).cut
    assert (cut.predictions, cut.outcomes) == (Range(40, 40), Range(40, 40))


@pytest.mark.parametrize(
    ("earliest", "end", "words"), [(6, 90, "starts at 6.*retention"), (0, 4, "ends at 4.*made anew")]
)
def test_a_log_that_does_not_fit_the_state_is_refused(earliest: int, end: int, words: str) -> None:
    """Records deleted unread, or a topic made anew: never a silent reset."""
    part = fresh()
    part.accept(0, batch(0, [prediction("p")] * 5))
    with pytest.raises(StateMismatch, match=rf"(?s)predictions-3.*{words}"):
        part.start(0, earliest, earliest, end, "predictions")
    assert part.start(0, 5, 5, 5, "predictions") == 5


def test_a_new_model_splits_a_run_and_nothing_is_lost_or_doubled() -> None:
    """Its registration comes between two checkpoints; the first cut ends right before the record that names it."""
    part = fresh()
    values = [prediction("p1"), b"no", prediction("p2", model="new"), b"no", prediction("p3", model="newer")]
    part.accept(0, batch(0, values))
    part.timeline.idle(0, NOW_MS + 60_001)
    part.timeline.idle(1, NOW_MS + 60_001)
    assert [event.model for event in part.advance(CATALOG)] == ["new", "newer"]
    first = part.close(CATALOG)
    assert first.cut.predictions == Range(0, 2)
    assert first.cut.clock_ms == NOW_MS
    assert [letter.offset for letter in first.dead] == [1]
    new = Declared("classification")
    known = catalog_of({"loan": Declared("binary", (0, 1)), "new": new, "newer": new})
    assert part.advance(known) == []
    second = part.close(known)
    assert second.cut.predictions == Range(2, 5)
    assert [letter.offset for letter in second.dead] == [3]
    assert second.cut.counters.predictions == 5


def test_a_checkpoint_with_many_pairs_is_split_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs stay in order over the parts, counts come once, and each labelled record names its own models."""
    monkeypatch.setattr(summarise, "SUMMARY_ROWS", 10)
    monkeypatch.setattr(summarise, "LABELLED_ROWS", 10)
    part = fresh()
    names = [f"p{n}" for n in range(25)]
    prices = [f"q{n}" for n in range(3)]
    read(
        part,
        [prediction(name) for name in names] + [prediction(name, 0.5, "price") for name in prices],
        [outcome(name) for name in reversed(names)] + [outcome(name, 2.5) for name in prices],
    )
    closed = part.close(CATALOG)
    loans = [summary for model, summary in closed.summaries if model == "loan"]
    assert [(s.part, s.parts, s.sequence, s.versions[0].pairs) for s in loans] == [
        (0, 3, 1, 10),
        (1, 3, 1, 10),
        (2, 3, 1, 5),
    ]
    assert [offset for s in loans for offset in s.versions[0].columns()[1].tolist()] == list(range(25))
    assert [sum(cell[-1] for cell in s.versions[0].cells) for s in loans] == [25, 0, 0]
    (prices_summary,) = [summary for model, summary in closed.summaries if model == "price"]
    assert prices_summary.versions[0].columns()[2].tolist() == [-2.0, -2.0, -2.0]
    labelled = [msgspec.msgpack.decode(value, type=Labelled) for value in closed.labelled]
    assert [len(record.rows()) for record in labelled] == [10, 10, 8]
    assert [record.models for record in labelled] == [["loan"], ["loan"], ["loan", "price"]]
    assert closed.cut.models == {"loan": 1, "price": 1}


def test_every_hour_a_cut_lists_all_sequences() -> None:
    """So that a reader that starts late learns which summaries it waits for."""
    part = fresh()
    read(part, [prediction("p1")])
    assert part.close(CATALOG).cut.complete
    read(part, [prediction("q1", 0.5, "price")])
    soon = part.close(CATALOG).cut
    assert (soon.complete, soon.models) == (False, {"price": 1})
    for side in (0, 1):
        part.timeline.idle(side, NOW_MS + 2 * 3_600_000)
    later = part.close(CATALOG).cut
    assert (later.complete, later.models) == (True, {"loan": 1, "price": 1})


def test_silence_moves_the_clock_and_is_worth_a_checkpoint() -> None:
    """Rows expire by the clock alone, without a record."""
    part = fresh()
    read(part, [prediction("p1")])
    part.close(CATALOG)
    assert not part.changed
    for side in (0, 1):
        part.timeline.idle(side, NOW_MS + 60_001)
    assert part.changed
    cut = part.close(CATALOG).cut
    assert (cut.pending, cut.counters.expired_predictions) == (0, 1)


def test_a_model_that_left_the_catalog_is_a_bug_and_says_so() -> None:
    """Nothing that has pairs may be left out of the summaries in silence."""
    part = fresh()
    read(part, [prediction("p1")])
    with pytest.raises(LookupError, match="loan"):
        part.close(Catalog())
