"""Values as columns and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.events import MAX_MAGNITUDE, Value
from streams.values import TEXT, Places, as_value, as_values, localised

LIMIT = int(MAX_MAGNITUDE)
values = st.one_of(
    st.booleans(), st.integers(-LIMIT, LIMIT), st.floats(-MAX_MAGNITUDE, MAX_MAGNITUDE), st.text(max_size=5)
)


@given(st.one_of(st.lists(values), st.lists(st.integers(-LIMIT, LIMIT)), st.lists(st.floats(-1, 1))))
def test_values_come_back_with_their_types(given: list[Value]) -> None:
    """Whatever stands beside them: ``True``, ``1``, ``1.0`` and ``"1"`` are told apart by kind."""
    columns = as_values(given)
    back = [
        as_value(int(kind), float(number), columns.texts)
        for kind, number in zip(columns.kinds, columns.numbers, strict=True)
    ]
    assert back == given
    assert list(map(type, back)) == list(map(type, given))


def test_true_one_and_one_point_zero_are_one_number() -> None:
    """They are one class; the text is another kind."""
    columns = as_values([True, 1, 1.0, "1"])
    assert columns.numbers[:3].tolist() == [1.0, 1.0, 1.0]
    assert (columns.kinds == TEXT).tolist() == [False, False, False, True]


def test_equal_texts_have_one_place() -> None:
    """In the order in which they were first seen."""
    columns = as_values(["b", "a", 7, "b"])
    assert list(columns.texts) == ["b", "a"]
    assert columns.numbers.tolist() == [0, 1, 7, 0]


@given(st.lists(values), st.lists(st.text(max_size=3)))
def test_localised_numbers_stand_for_the_same_values_in_fewer_texts(given: list[Value], more: list[str]) -> None:
    """A delta spells only the texts that its rows need; numbers that are no texts, and the input, stay as they are."""
    places: Places[str] = Places(more)
    numbers = np.array([places.add(value) if isinstance(value, str) else value for value in given], dtype=np.float64)
    kinds, before = as_values(given).kinds, numbers.copy()
    own, texts = localised(kinds, numbers, places.items)
    back = [as_value(int(kind), float(number), texts) for kind, number in zip(kinds, own, strict=True)]
    assert back == given
    assert sorted(texts) == sorted({value for value in given if isinstance(value, str)})
    assert numbers.tolist() == before.tolist()


def test_a_place_is_found_only_once_it_was_made() -> None:
    """Looking up makes none."""
    places = Places(["x"])
    assert (places.find("y"), len(places)) == (-1, 1)
    assert (places.add("y"), places.add("x"), places.find("y"), places.items) == (1, 0, 1, ["x", "y"])
