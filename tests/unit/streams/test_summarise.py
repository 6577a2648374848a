"""What a checkpoint says of its pairs, against a count one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from detectors.four_rates import ACTUAL, OTHER, PREDICTED
from streams import summarise
from streams.catalog import ASSUMED, Positive
from streams.columns import Name
from streams.effects import PAIR, Corrected, Effects
from streams.events import Value
from streams.records import VersionPart
from streams.rows import Rows
from streams.summarise import all_pairs, labelled, version_parts
from streams.values import TEXT, Places, as_value, as_values

NAMES: list[Name] = [("loan", "1", ""), ("loan", "2", ""), ("loan", "2", "north"), ("price", "1", "")]
PRICE = 3


@pytest.fixture(scope="module", autouse=True)
def small_records() -> Iterator[None]:
    """Records are split, and tables of counts are sparse, within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summarise, "SUMMARY_ROWS", 4)
        patch.setattr(summarise, "LABELLED_ROWS", 3)
        patch.setattr(summarise, "DENSE", 12)
        yield


def pairs_of(rows: Sequence[dict[str, int]], values: Sequence[tuple[Value, Value]], texts: Places[str]) -> Rows:
    """Pairs with columns as given, and values whose texts are places in ``texts``."""
    pairs = np.zeros(len(rows), dtype=PAIR)
    for name in rows[0] if rows else ():
        pairs[name] = [row[name] for row in rows]
    for side, (kind, number) in enumerate((("kind", "number"), ("outcome_kind", "outcome"))):
        own = [pair[side] for pair in values]
        pairs[kind] = as_values(own).kinds
        pairs[number] = [texts.add(value) if isinstance(value, str) else value for value in own]
    return pairs


times = st.one_of(
    st.integers(1_700_000_000_000, 1_700_000_200_000), st.integers(0, 253_402_300_799_999), st.integers(-(10**12), 0)
)
labels = st.one_of(
    st.integers(0, 2), st.booleans(), st.integers(-(10**15), 10**15), st.sampled_from([1.0, "a", "b", "1", ""])
)
numbers = st.one_of(st.integers(-4, 4), st.floats(-100, 100))
joined_times = st.integers(1_700_000_000_000, 1_700_000_150_000)
rows = st.fixed_dictionaries(
    {"event_ms": times, "outcome_event_ms": times, "joined_ms": joined_times, "at_ms": times, "outcome_at_ms": times}
)
drawn = st.lists(
    st.tuples(rows, st.integers(0, 3), labels, labels, numbers, numbers, st.integers(0, 60)),
    max_size=30,
    unique_by=lambda row: row[-1],
)
Drawn = list[tuple[dict[str, int], int, Value, Value, Value, Value, int]]


def built(found: Drawn) -> tuple[Rows, list[tuple[Value, Value]], Places[str]]:
    """(pairs in the order of their completion, their values, the texts)."""
    texts: Places[str] = Places(["unused"])
    ordered = sorted(found, key=lambda row: row[0]["joined_ms"])
    values = [(row[4], row[5]) if row[1] == PRICE else (row[2], row[3]) for row in ordered]
    columns = [
        {**row[0], "ref": row[1], "outcome_offset": row[-1], "offset": 1_000 + n} for n, row in enumerate(ordered)
    ]
    return pairs_of(columns, values, texts), values, texts


def parts_of(pairs: Rows, texts: Places[str], effects: Effects | None = None) -> dict[int, list[VersionPart]]:
    return version_parts(pairs, effects or Effects(), texts.items, lambda ref: ref != PRICE)


@profile(max_examples=200, deadline=None)
@given(drawn)
def test_summaries_count_what_the_pairs_say(found: Drawn) -> None:
    """Cells, moments and delays, over any times (also before 1970) and any classes; ``true`` is 1, and "1" is not."""
    pairs, values, texts = built(found)
    parts = parts_of(pairs, texts)
    assert sorted(parts) == sorted({int(ref) for ref in pairs["ref"]})
    for ref, own in parts.items():
        mine = [(row, value) for row, value in zip(pairs, values, strict=True) if row["ref"] == ref]
        cells: Counter[tuple[int, int, Value, Value]] = Counter()
        moments: dict[tuple[int, int], list[float]] = {}
        delays: Counter[int] = Counter()
        for row, (predicted, outcome) in mine:
            minute, cohort = int(row["joined_ms"]) // 60_000, int(row["at_ms"]) // 60_000
            for kept, larger in ((180, 60), (4 * 1_440, 1_440)):
                cohort -= cohort % larger if minute - cohort >= kept else 0
            delays[(max(0, int(row["outcome_event_ms"]) - int(row["event_ms"])) // 1000).bit_length()] += 1
            if ref != PRICE:
                cells[minute, cohort, predicted, outcome] += 1
                continue
            assert not isinstance(predicted, str) and not isinstance(outcome, str)
            error = predicted - outcome
            sums = moments.setdefault((minute, cohort), [0, 0.0, 0.0, 0.0])
            for at, each in enumerate((1, abs(error), error * error, error)):
                sums[at] += each
        first, *others = own
        assert {(m, c, p, o): n for m, c, p, o, n in first.cells} == cells
        assert len(first.cells) == len(cells)
        assert first.delays == delays
        assert {(m, c) for m, c, *_ in first.moments} == moments.keys()
        for minute, cohort, *sums in first.moments:
            assert sums == pytest.approx(moments[minute, cohort], rel=1e-9, abs=1e-9)
        assert all((part.cells, part.moments, part.delays) == ([], [], {}) for part in others)


@profile(max_examples=200, deadline=None)
@given(drawn)
def test_errors_are_split_in_the_order_of_second_and_offset(found: Drawn) -> None:
    """Every pair once, each part but the last full."""
    pairs, values, texts = built(found)
    for ref, own in parts_of(pairs, texts).items():
        expected = []
        for row, (predicted, outcome) in zip(pairs, values, strict=True):
            if row["ref"] == ref and ref == PRICE:
                assert not isinstance(predicted, str) and not isinstance(outcome, str)
                expected.append((int(row["joined_ms"]) // 1000, int(row["outcome_offset"]), predicted - outcome))
            elif row["ref"] == ref:
                place = int(row["joined_ms"]) // 1000, int(row["outcome_offset"])
                expected.append((*place, float(predicted != outcome)))
        told = [row for part in own for row in zip(*(column.tolist() for column in part.columns()), strict=True)]
        assert told == sorted(expected)
        assert [part.pairs for part in own[:-1]] == [summarise.SUMMARY_ROWS] * (len(own) - 1)
        assert 0 < own[-1].pairs <= summarise.SUMMARY_ROWS
        assert {part.fractions for part in own} == {ref == PRICE}


@profile(max_examples=200, deadline=None)
@given(drawn)
def test_codes_say_what_was_predicted_and_what_came(found: Drawn) -> None:
    """Of the declared class against all others, or of 1 against 0 where nobody declared one and any other label is
    told; a text that looks like the number is another class, and a model without a positive class has no codes.
    """
    pairs, values, texts = built(found)
    positives = {0: ASSUMED, 1: Positive("a", declared=True), 2: Positive(2, declared=True)}
    parts = version_parts(pairs, Effects(), texts.items, lambda ref: ref != PRICE, positives.get)
    for ref, own in parts.items():
        positive = positives.get(ref)
        if positive is None:
            assert all(part.coded is None for part in own)
            continue
        mine = sorted(
            (int(row["joined_ms"]) // 1000, int(row["outcome_offset"]), value)
            for row, value in zip(pairs, values, strict=True)
            if row["ref"] == ref
        )
        expected = [
            OTHER
            if not positive.declared and not {predicted, outcome} <= {0, 1}
            else ACTUAL * (outcome == positive.label) + PREDICTED * (predicted == positive.label)
            for _, _, (predicted, outcome) in mine
        ]
        told = [code for part in own if part.coded is not None for code in part.coded.tolist()]
        assert told == expected
        assert all(part.coded is not None and len(part.coded) == part.pairs for part in own)


@profile(max_examples=100, deadline=None)
@given(drawn)
def test_labelled_rows_are_the_pairs_by_reference(found: Drawn) -> None:
    """In the order of their completion, in records of bounded length that name only what they need."""
    pairs, values, texts = built(found)
    records = list(labelled((5, 6, 7), pairs, [], NAMES, texts.items))
    told = []
    for record in records:
        assert (record.partition, record.epoch, record.sequence) == (5, 6, 7)
        own = record.rows()
        assert 0 < len(own) <= summarise.LABELLED_ROWS
        assert {row.model for row in own} == set(range(len(record.models)))
        assert {row.version for row in own} == set(range(len(record.versions)))
        assert sorted(record.texts) == sorted({row.outcome for row in own if isinstance(row.outcome, str)})
        for row in own:
            name = record.models[row.model], record.versions[row.version]
            places = row.prediction_offset, row.outcome_offset, row.prediction_ms, row.outcome_ms
            told.append((*places, *name, type(row.outcome), row.outcome))
    assert told == [
        (
            *(int(row[name]) for name in ("offset", "outcome_offset", "at_ms", "outcome_at_ms")),
            *NAMES[row["ref"]][:2],
            type(outcome),
            outcome,
        )
        for row, (_, outcome) in zip(pairs, values, strict=True)
    ]


def test_corrections_come_behind_the_pairs_and_in_their_version() -> None:
    """The windows hear of the minute of the pair, and training of the newest outcome."""
    corrected = [
        Corrected(1, 130_000, 40 + n, 70_000, 61_000, 9 + n, 60_500, "a", "b", now) for n, now in enumerate("accd")
    ]
    parts = version_parts(np.zeros(0, dtype=PAIR), Effects(corrected=corrected), [], lambda _: True)
    ((ref, (part,)),) = parts.items()
    assert (ref, part.pairs, part.cells, part.delays) == (1, 0, [], {})
    moved = [(c.second, c.minute, c.cohort_minute, c.prediction, c.was, c.now) for c in part.corrections]
    assert moved == [(130, 1, 1, "a", "b", now) for now in "accd"]
    records = list(labelled((0, 1, 2), np.zeros(0, dtype=PAIR), corrected, NAMES, []))
    assert [len(record.rows()) for record in records] == [3, 1]
    told = [
        (r.prediction_offset, r.outcome_offset, r.prediction_ms, r.outcome_ms, r.outcome) for r in records[0].rows()
    ]
    assert told == [(9, 40, 60_500, 130_000, "a"), (10, 41, 60_500, 130_000, "c"), (11, 42, 60_500, 130_000, "c")]


def test_predictions_are_counted_by_minute_of_arrival() -> None:
    """Also of a version that has no pair yet."""
    refs, minutes = np.array([0, 2, 0, 2, 2], dtype=np.int32), np.array([7, 7, 7, 9, 10**9], dtype=np.int64)
    said = as_values([1, "a", 0, "b", True])
    batches = [np.s_[:3], np.s_[3:]]
    effects = Effects(predicted=[(refs[at], minutes[at], said.kinds[at], said.numbers[at]) for at in batches])
    parts = version_parts(np.zeros(0, dtype=PAIR), effects, said.texts, lambda _: True)
    assert {ref: own[0].predictions for ref, own in parts.items()} == {0: {7: 2}, 2: {7: 1, 9: 1, 10**9: 1}}
    assert {ref: sorted(own[0].classes, key=repr) for ref, own in parts.items()} == {
        0: [(7, 0, 1), (7, 1, 1)],
        2: [(10**9, 1, 1), (7, "a", 1), (9, "b", 1)],
    }
    mixed = version_parts(np.zeros(0, dtype=PAIR), effects, said.texts, lambda ref: ref == 2)
    assert {ref: own[0].predictions for ref, own in mixed.items()} == {0: {7: 2}, 2: {7: 1, 9: 1, 10**9: 1}}
    assert mixed[0][0].classes == []


def test_many_classes_over_a_long_time_are_counted_as_few_are() -> None:
    """More cells than a table of counts would hold."""
    texts: Places[str] = Places(f"class {n}" for n in range(700))
    random = np.random.default_rng(3)
    pairs = np.zeros(5_000, dtype=PAIR)
    pairs["kind"] = pairs["outcome_kind"] = TEXT
    pairs["number"], pairs["outcome"] = random.integers(0, 700, (2, len(pairs)))
    pairs["joined_ms"] = np.sort(random.integers(0, 10**13, len(pairs)))
    pairs["at_ms"] = pairs["joined_ms"] - random.integers(0, 180 * 60_000 - 60_000, len(pairs))
    parts = parts_of(pairs, texts)
    found = {cell[:4]: cell[4] for cell in parts[0][0].cells}
    expected = Counter(
        (
            int(row["joined_ms"]) // 60_000,
            int(row["at_ms"]) // 60_000,
            as_value(TEXT, row["number"], texts.items),
            as_value(TEXT, row["outcome"], texts.items),
        )
        for row in pairs
    )
    assert found == expected


def test_pairs_of_all_windows_come_in_turn() -> None:
    """One chunk a window; none at all is no pair."""
    one, other = np.zeros(2, dtype=PAIR), np.zeros(1, dtype=PAIR)
    other["offset"] = 1
    assert all_pairs(Effects(pairs=[one, other]))["offset"].tolist() == [0, 0, 1]
    assert len(all_pairs(Effects())) == 0
