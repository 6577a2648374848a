"""The short cut for plain runs: taken when it can be, refused before anything has changed when it cannot."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import bulk
from streams.catalog import Catalog
from streams.events import ModelEvent, ModelState, Outcome, Prediction, Value
from streams.ids import compact_id, compact_ids
from streams.join import PartitionJoin
from streams.records import EffectSettings

LIMITS = EffectSettings(horizon_ms=10_000, dedupe_ms=10_000, dedupe_rows=100, max_pending=100, max_undeclared=0)


def fresh() -> tuple[PartitionJoin, Catalog]:
    """A join that has seen one prediction of each model, so that their names are known."""
    catalog = Catalog()
    for offset, state in enumerate(
        (ModelState("loan", 1, "binary", [0, 1]), ModelState("price", 1, "regression"), ModelState("free", 1, "binary"))
    ):
        catalog.apply(offset, ModelEvent("registered", state))
    join = PartitionJoin(LIMITS)
    first = [Prediction("a", "loan", "1", 1), Prediction("b", "price", "1", 2.5), Prediction("c", "free", "1", "x")]
    join.predictions(0, first, range(3), catalog)
    return join, catalog


def outcomes_of(*events: tuple[str, Value]) -> list[Outcome]:
    """Outcomes by id."""
    return [Outcome(key, value) for key, value in events]


def test_a_plain_run_is_taken_in_at_once() -> None:
    """Several models in one run, each counted under its own name."""
    join, catalog = fresh()
    run = [Prediction("d", "loan", "1", 0), Prediction("e", "price", "1", 3), Prediction("f", "loan", "1", True)]
    assert bulk.predictions(join, 1, run, [3, 4, 5], catalog)
    assert bulk.outcomes(join, 2, outcomes_of(("d", 1), ("e", 2.0), ("a", 1)), [0, 1, 2], catalog) == []
    assert join.counters.joined == 3
    assert [pairs.errors for pairs in join.effects.pairs.values()] == [[True, False], [1.0], []]
    assert list(join.pending.rows) == [compact_id(key) for key in ("b", "c", "f")]


@pytest.mark.parametrize(
    "event",
    [
        Prediction("a", "loan", "1", 0),  # waits already
        Prediction("d", "loan", "2", 0),  # a version never seen
        Prediction("d", "loan", "1", 7),  # no class of the model
        Prediction("d", "price", "1", "cheap"),  # no number
        Prediction("d", "free", "1", 0.5),  # no class
        Prediction("d", "ghost", "1", 1),  # no such model
    ],
)
def test_a_prediction_that_needs_a_look_is_refused_whole(event: Prediction) -> None:
    """Nothing of the run has been taken in then."""
    join, catalog = fresh()
    assert not bulk.predictions(join, 1, [Prediction("z", "loan", "1", 1), event], [3, 4], catalog)
    assert len(join.pending.rows) == 3
    assert join.counters.predictions == 3


def test_outcomes_without_a_prediction_are_left_over() -> None:
    """The others of the run are joined at once."""
    join, catalog = fresh()
    assert bulk.outcomes(join, 1, outcomes_of(("nobody", 1), ("a", 1)), [0, 1], catalog) == [0]
    assert (join.counters.outcomes, join.counters.joined) == (1, 1)


def test_a_run_with_a_correction_is_left_whole() -> None:
    """Pairs of the same run might push the corrected one out of the memory before its turn."""
    join, catalog = fresh()
    join.outcomes(1, outcomes_of(("a", 1)), [0], catalog)
    assert bulk.outcomes(join, 2, outcomes_of(("b", 2.0), ("a", 0)), [1, 2], catalog) == [0, 1]
    assert join.counters.joined == 1


@pytest.mark.parametrize("event", [Outcome("a", 7), Outcome("b", "cheap"), Outcome("a", 1, model="price")])
def test_an_outcome_that_contradicts_is_left_with_its_whole_run(event: Outcome) -> None:
    """Row by row each gets its reason."""
    join, catalog = fresh()
    assert bulk.outcomes(join, 1, [Outcome("c", "y"), event], [0, 1], catalog) == [0, 1]
    assert join.counters.joined == 0


uuids = st.uuids().map(str)
texts = st.one_of(uuids, uuids.map(str.upper), st.text(min_size=1, max_size=40), st.just(str(uuid.UUID(int=0)).upper()))


@given(st.lists(uuids, min_size=1) | st.lists(texts, min_size=1))
def test_ids_at_once_are_ids_one_by_one(ids: list[str]) -> None:
    """Whatever they look like."""
    assert compact_ids(ids) == [compact_id(text) for text in ids]
