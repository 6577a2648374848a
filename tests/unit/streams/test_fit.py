"""What fits a model is told by column as it is told in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.catalog import Catalog
from streams.columns import NOBODY, Name
from streams.events import Label, ModelEvent, ModelState, Task, Value
from streams.fit import ModelsView, contradiction, misfit
from streams.values import Codes, Floats, Kinds, Places, as_values

STATES = [
    ModelState("loan", 1, "binary", [0, 1]),
    ModelState("flag", 1, "binary", [False, True]),
    ModelState("iris", 1, "multiclass", ["a", "b", "1"]),
    ModelState("mixed", 1, "multiclass", [0, "0", 7]),
    ModelState("digits", 1, "multiclass", list(range(10))),
    ModelState("letters", 1, "multiclass", list("abcdefghijkl")),
    ModelState("free", 0, "classification"),
    ModelState("open", 1, "multiclass"),
    ModelState("price", 1, "regression"),
]
NAMES: list[Name] = [(state.model, "1", segment) for state in STATES for segment in ("", "north")]


def catalog_of(states: Sequence[ModelState]) -> Catalog:
    catalog = Catalog()
    for offset, state in enumerate(states):
        catalog.apply(offset, ModelEvent("registered", state))
    return catalog


def columns(values: Sequence[Value], texts: Places[str]) -> tuple[Kinds, Floats]:
    """Values whose texts are places in ``texts``."""
    numbers = [texts.add(value) if isinstance(value, str) else value for value in values]
    return as_values(values).kinds, np.array(numbers, dtype=np.float64)


values = st.one_of(
    st.sampled_from([0, 1, 7, 11, True, False, 0.0, 1.0, 0.5, -1, "0", "1", "a", "l", "z", ""]), st.integers(-3, 12)
)
cases = st.lists(st.tuples(values, st.integers(0, len(NAMES) - 1), st.sampled_from([None, "loan", "price", "else"])))


@profile(max_examples=300, deadline=None)
@given(cases, st.one_of(st.none(), st.integers(0, len(NAMES) - 1)), st.lists(st.sampled_from(["z", "a", "loan"])))
def test_columns_and_words_agree(
    rows: list[tuple[Value, int, str | None]], only: int | None, before: list[str]
) -> None:
    """For any values of one model or of many, whatever texts are known already; claims of models too."""
    texts: Places[str] = Places(before)
    catalog = catalog_of(STATES)
    view = ModelsView(texts)
    view.update(NAMES, catalog)
    kinds, numbers = columns([value for value, _, _ in rows], texts)
    picked = [ref if only is None else only for _, ref, _ in rows]
    refs: Codes = np.array(picked, dtype=np.int32)
    claims = np.array([NOBODY if c is None else texts.add(c) for _, _, c in rows], dtype=np.int32)
    models = [STATES[ref // 2] for ref in picked]
    fits, claimed = view.fits(kinds, numbers, refs), view.claimed(claims, refs)
    words = [misfit(value, model) is None for (value, _, _), model in zip(rows, models, strict=True)]
    assert fits.tolist() == words
    both = [contradiction(value, claim, model) is None for (value, _, claim), model in zip(rows, models, strict=True)]
    assert (fits & claimed).tolist() == both


def fits(view: ModelsView, texts: Places[str], value: Value) -> bool:
    (found,) = view.fits(*columns([value], texts), np.zeros(1, dtype=np.int32)).tolist()
    return bool(found)


def test_the_view_follows_the_catalog() -> None:
    """A model event with other classes counts from the next look on, and so does a new ref."""
    texts: Places[str] = Places()
    view, refs = ModelsView(texts), [("m", "1", "")]
    labels: list[tuple[Task, list[Label] | None]] = [("binary", [0, 1]), ("multiclass", ["a"]), ("regression", None)]
    catalog = Catalog()
    said = []
    for offset, (task, classes) in enumerate(labels):
        catalog.apply(offset, ModelEvent("registered", ModelState("m", offset + 1, task, classes)))
        view.update(refs, catalog)
        said.append([fits(view, texts, value) for value in (1, "a", 2.5)])
    assert said == [[True, False, False], [False, True, False], [True, False, True]]
    refs.append(("m", "2", ""))
    view.update(refs, catalog)
    assert len(view.tasks) == len(view.models) == 2
    assert texts.items[view.models[1]] == "m"


def test_a_claim_of_another_model_comes_before_a_value_that_does_not_fit() -> None:
    """The reason is the id that two models share: what their values are says nothing then."""
    loan = STATES[0]
    assert (contradiction(1, "loan", loan), contradiction(1, None, loan)) == (None, None)
    shared, wrong = contradiction(9, "price", loan), contradiction(9, "loan", loan)
    assert shared is not None and wrong is not None
    assert (shared[0], wrong[0]) == ("shared_id", "unknown_class")
