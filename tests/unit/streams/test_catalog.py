"""What the stream knows of models, and the one spelling of a class."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.catalog import ASSUMED, Catalog, guess_task, is_classification, label_text, positive_class
from streams.events import Label, ModelEvent, ModelState, Task, Value


def event(model: str, revision: int, task: Task = "binary") -> ModelEvent:
    return ModelEvent("registered", ModelState(model, revision, task))


def task_of(catalog: Catalog, model: str) -> str | None:
    found = catalog.get(model)
    return None if found is None else found.task


def test_the_highest_revision_of_a_model_wins() -> None:
    """An older one that comes late, or again, changes nothing."""
    catalog = Catalog()
    for offset, (revision, task) in enumerate([(1, "binary"), (3, "multiclass"), (2, "regression"), (3, "regression")]):
        catalog.apply(offset, ModelEvent("promoted", ModelState("loan", revision, task)))  # type: ignore[arg-type]
    assert task_of(catalog, "loan") == "multiclass"
    assert catalog.position == 4


def test_the_first_sight_in_the_log_decides_for_all() -> None:
    """Two partitions that meet a new model at once publish both, and every reader takes the first."""
    catalog = Catalog()
    catalog.apply(0, event("new", 0, "classification"))
    catalog.apply(1, event("new", 0, "regression"))
    assert task_of(catalog, "new") == "classification"


@pytest.mark.parametrize(
    ("task", "classes", "positive", "expected"),
    [
        ("binary", ["ok", "fraud"], "fraud", "fraud"),
        ("binary", [0, 1], 0, "0"),
        ("multiclass", ["a", "b", "c"], "b", "b"),
        ("binary", [False, True], None, "1"),
        ("binary", None, None, "1"),
        ("classification", None, None, "1"),
        ("binary", ["ok", "fraud"], None, None),
        ("binary", ["0", "1"], None, None),
        ("multiclass", None, None, None),
        ("classification", [0, 1, 2], None, None),
        ("regression", None, None, None),
    ],
)
def test_the_positive_class_is_declared_or_one_of_zero_and_one(
    task: Task, classes: list[Label] | None, positive: Label | None, expected: str | None
) -> None:
    """Nobody guesses which of two words is the bad one."""
    found = positive_class(ModelState("loan", 1, task, classes, positive))
    assert (found.text if found is not None else None) == expected
    assert found is None or found.declared == (positive is not None)
    assert positive_class(None) == ASSUMED


def test_undeclared_models_are_counted_until_someone_declares_them() -> None:
    """The bound on undeclared models is about those that nobody knows."""
    catalog = Catalog()
    catalog.apply(0, event("a", 0))
    catalog.apply(1, event("b", 0))
    assert catalog.undeclared == 2
    catalog.apply(2, event("a", 1))
    assert catalog.undeclared == 1
    assert {state.model for state in catalog} == {"a", "b"}
    assert len(catalog) == 2


def test_an_event_that_cannot_be_read_only_moves_the_position() -> None:
    """And a hole in the log, or a repeated read, never moves it back."""
    catalog = Catalog()
    catalog.apply(7, None)
    catalog.apply(3, event("a", 1))
    assert catalog.position == 8
    assert catalog.get("never seen") is None


@pytest.mark.parametrize(
    ("prediction", "task"),
    [
        (1, "classification"),
        (True, "classification"),
        ("yes", "classification"),
        (0.5, "regression"),
        (1.0, "regression"),
    ],
)
def test_the_task_follows_from_the_type_of_the_first_prediction(prediction: Value, task: str) -> None:
    """Integer, string and boolean are classes, a fraction is a number."""
    guessed = guess_task(prediction)
    assert guessed == task
    assert is_classification(guessed) == (task == "classification")


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (True, "1"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        ("1", "'1'"),
        ("nan", "'nan'"),
        ("approved", "approved"),
        (0.5, "0.5"),
    ],
)
def test_a_class_has_one_spelling(label: Value, text: str) -> None:
    """Counters and metrics are keyed by it."""
    assert label_text(label) == text


labels = st.one_of(
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.text(max_size=6),
    st.sampled_from(["1", "'1'", "\"'1'\"", "''", "", "1.0", " 1", "inf", "true", "True", "0"]),
)


@profile(max_examples=400, deadline=None)
@given(labels, labels)
def test_two_classes_never_share_a_spelling(one: Value, other: Value) -> None:
    """Equal classes have one spelling, different ones two: a string is never a number."""
    assert (label_text(one) == label_text(other)) == (one == other)
