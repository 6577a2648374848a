"""Which labelled rows are taken, and how their features are found."""

import math
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.dataset import Problem, References, gather
from serving.manifest import Feature
from streams.events import FullPrediction
from streams.records import LabelledRow
from tests.unit.retrain.rows import PROBLEM, START_MS, MemoryLog, features, labelled, pairs, prediction


def row(prediction_offset: int, outcome_offset: int, outcome: int, at_ms: int = START_MS) -> LabelledRow:
    """A pair of the model."""
    return LabelledRow(prediction_offset, outcome_offset, at_ms, at_ms + 5, 0, 0, outcome)


def test_the_highest_outcome_offset_wins_in_any_order() -> None:
    """`labelled` is at least once: duplicates collapse, and a correction replaces the first outcome."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0, 1)):
        rows = [row(7, 3, 0), row(7, 3, 0), row(7, 9, 1)]
        references = References("loans", None, 100)
        for i in order:
            references.add(labelled([rows[i]]))
        (only,) = references.newest()
        assert (only.outcome_offset, only.outcome) == (9, 1)


def test_the_same_offsets_in_two_partitions_are_two_pairs() -> None:
    """An offset identifies a record only within its partition."""
    references = References("loans", None, 100)
    references.add(labelled([row(7, 3, 0)], partition=0))
    references.add(labelled([row(7, 3, 1)], partition=1))
    assert len(references) == 2


def test_other_models_are_left_out() -> None:
    """Two models share the topics."""
    references = References("loans", None, 100)
    other = LabelledRow(1, 1, START_MS, START_MS, 1, 0, 1)
    references.add(labelled([row(0, 0, 0), other], models=["loans", "cards"]))
    references.add(labelled([row(5, 5, 0)], models=["cards"]))
    assert [r.prediction_offset for r in references.newest()] == [0]


def test_pairs_complete_before_the_change_do_not_count() -> None:
    """A pair is complete at the later of its two times."""
    references = References("loans", START_MS, 100)
    before = LabelledRow(0, 0, START_MS - 10, START_MS - 1, 0, 0, 1)
    late_outcome = LabelledRow(1, 1, START_MS - 10, START_MS, 0, 0, 1)
    early_outcome = LabelledRow(2, 2, START_MS, START_MS - 10, 0, 0, 1)
    references.add(labelled([before, late_outcome, early_outcome]))
    assert [r.prediction_offset for r in references.newest()] == [1, 2]


@given(st.permutations(range(60)), st.integers(1, 20), st.integers(1, 7))
def test_the_newest_rows_are_kept_whatever_the_order(order: list[int], maximum: int, chunk: int) -> None:
    """Memory is bounded, and the bound never costs a row that is among the newest."""
    references = References("loans", None, maximum)
    for start in range(0, 60, chunk):
        references.add(labelled([row(i, i, 0, START_MS + i) for i in order[start : start + chunk]]))
    assert [r.prediction_offset for r in references.newest()] == list(range(60))[-maximum:]


def test_features_come_by_one_sequential_scan_a_partition() -> None:
    """One scan over the range that the rows name, never a seek a row."""
    table = features(50)
    log = MemoryLog(partitions={p: [prediction(i, values, 0) for i, values in enumerate(table)] for p in (0, 1)})
    scans: list[tuple[int, Set[int]]] = []

    def scan(partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        scans.append((partition, offsets))
        return log.predictions(partition, offsets)

    references = References("loans", None, 100)
    references.add(labelled([row(i, i, i % 2, START_MS + i) for i in (10, 40, 20)], partition=0))
    references.add(labelled([row(5, 5, 1, START_MS + 15)], partition=1))
    found = gather(references.newest(), PROBLEM, scan)
    assert scans == [(0, {10, 20, 40}), (1, {5})]
    assert found.offsets == {0: (10, 41), 1: (5, 6)}
    np.testing.assert_array_equal(found.features, table[[10, 5, 20, 40]])
    assert found.target.tolist() == [0, 1, 0, 0]
    assert list(found.complete_ms) == sorted(found.complete_ms)
    described = found.describe("predictions", "labelled")
    assert described["partitions"] == {"0": [10, 41], "1": [5, 6]}


def event(given_features: Any, model: str = "loans", said: Any = 1) -> FullPrediction:
    """A prediction with whatever features."""
    return FullPrediction("p", model, "1", said, None, None, None, None, given_features)


@pytest.mark.parametrize(
    ("made", "outcome", "reason"),
    [
        (event(None), 1, "no_features"),
        (event({"a": 1, "b": 2}), 1, "missing_feature"),
        (event([1.0, 2.0]), 1, "wrong_feature_count"),
        (event({"a": 1, "b": 2, "c": "x"}), 1, "feature_not_a_number"),
        (event([1.0, 2.0, 1e300]), 1, "out_of_range"),
        (event([1.0, 2.0, 3.0], model="cards"), 1, "other_model"),
        (event([1.0, 2.0, 3.0]), 2, "unknown_class"),
        (event([1.0, 2.0, 3.0]), "1", "unknown_class"),
        (None, 1, "prediction_gone"),
    ],
)
def test_unusable_rows_are_dropped_and_counted(made: FullPrediction | None, outcome: Any, reason: str) -> None:
    """Each reason has its own count; the good row beside it stays."""
    log = MemoryLog(partitions={0: [event([1.0, None, 3.0]), made]})
    references = References("loans", None, 10)
    references.add(labelled([row(0, 0, 1), row(1, 1, outcome)]))
    found = gather(references.newest(), PROBLEM, log.predictions)
    assert found.dropped == {reason: 1}
    assert len(found) == 1
    assert math.isnan(found.features[0, 1])


def test_true_one_and_one_point_zero_are_the_same_class() -> None:
    """Producers in other languages write booleans and numbers for the same thing."""
    assert [PROBLEM.encode(v) for v in (True, 1, 1.0, False, "1", 0.5)] == [1, 1, 1, 0, None, None]


def test_categories_become_their_codes() -> None:
    """Text is the position in the manifest's categories; a text that training never saw drops the row."""
    problem = Problem("m", "binary", (Feature("colour", "categorical", ["blue", "red"]),), ("no", "yes"), "yes")
    assert problem.row({"colour": "red"}) == [1.0]
    assert problem.row({"colour": 0}) == [0.0]
    assert problem.row({"colour": "green"}) == "unknown_category"
    assert problem.positive_index == 1


def test_an_unknown_category_is_what_it_is_to_serving() -> None:
    """A missing value, where the model accepts those: serving answers such a row, so it is a row to learn from."""
    feature = Feature("colour", "categorical", ["blue", "red"])
    problem = Problem("m", "binary", (feature, Feature("a")), (0, 1), 1, accepts_missing=True)
    np.testing.assert_array_equal(problem.row({"colour": "green", "a": 2.0}), [math.nan, 2.0])
    assert problem.row({"colour": "red", "a": "green"}) == "feature_not_a_number"
    assert problem == Problem("m", "binary", (feature, Feature("a")), (0, 1), 1)  # others may answer the same question


def test_what_was_predicted_beside_the_new_rows_is_looked_at_in_the_same_scan() -> None:
    """Half of the predictions are of class 0, of which no outcome comes; another model's and unusable ones between."""
    events: list[FullPrediction | None] = []
    for i in range(400):
        given: Any = [1.0, 2.0, 3.0] if i % 8 < 6 else None
        events.append(event(given, model="cards" if i % 8 == 5 else "loans", said=i % 2))
    log = MemoryLog(partitions={0: events})
    references = References("loans", None, 1_000)
    references.add(labelled([row(i, i, 1, START_MS + i) for i in range(400) if i % 8 in (1, 3)]))
    scans: list[int] = []

    def scan(partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        scans.append(len(offsets))
        return log.predictions(partition, offsets)

    found = gather(references.newest(), PROBLEM, scan, fresh_ms=START_MS + 205)  # pairs are complete 5 ms later
    assert len(found) == 100
    assert len(scans) == 1
    assert scans[0] > 100
    assert found.coverage is not None
    assert found.coverage.labelled.sum(axis=0).tolist() == [0, 50]
    assert found.coverage.shares == pytest.approx([0.6, 0.4], abs=0.1)  # 0, 2 and 4 of 8, 1 and 3 of 8
    assert gather(references.newest(), PROBLEM, log.predictions).coverage is None
    assert gather(references.newest(), PROBLEM, log.predictions, fresh_ms=START_MS + 1_000).coverage is None


def test_rows_that_were_dropped_are_counted_once_more_where_they_are_new() -> None:
    log = MemoryLog(partitions={0: [event(None), event(None), event([1.0, 2.0, 3.0])]})
    references = References("loans", None, 10)
    references.add(labelled([row(i, i, 1, START_MS + i) for i in range(4)]))
    found = gather(references.newest(), PROBLEM, log.predictions, fresh_ms=START_MS + 6)
    assert found.dropped == {"no_features": 2, "prediction_gone": 1}
    assert found.fresh_dropped == {"no_features": 1, "prediction_gone": 1}


def test_what_was_served_is_kept_beside_the_outcome() -> None:
    """The live answer, encoded as the outcomes are."""
    log = MemoryLog(partitions={0: [event([1.0, 2.0, 3.0], said=0), event([1.0, 2.0, 3.0], said="odd")]})
    references = References("loans", None, 10)
    references.add(labelled(pairs([1, 1])))
    served = gather(references.newest(), PROBLEM, log.predictions).served
    assert served[0] == 0
    assert math.isnan(served[1])


def test_a_scan_can_be_aborted() -> None:
    """A lost lease or a stop must not wait for a long scan."""

    def abort() -> None:
        raise InterruptedError

    log = MemoryLog(partitions={0: [event([1.0, 2.0, 3.0])]})
    references = References("loans", None, 10)
    references.add(labelled([row(0, 0, 1)]))
    with pytest.raises(InterruptedError):
        gather(references.newest(), PROBLEM, log.predictions, abort)
