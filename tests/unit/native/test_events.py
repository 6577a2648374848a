"""What is decoded straight into columns is what the JSON library says; anything else is left to it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from native import events as native_events
from native.library import library
from streams.codec import (
    EventDecoder,
    Undecodable,
    check_outcome,
    check_prediction,
    outcome_decoder,
    prediction_decoder,
)
from streams.columns import NOBODY, OUTCOMES, PREDICTIONS, Events, plain_columns
from streams.events import MAX_VALUE_BYTES, Outcome, Prediction, milliseconds
from streams.ids import compact_id
from streams.spans import Spans
from streams.values import as_value

pytestmark = pytest.mark.skipif(library() is None, reason="driftline was installed without a C compiler")
DECODERS: tuple[EventDecoder[Any], EventDecoder[Any]] = (prediction_decoder(), outcome_decoder())
CHECKS: tuple[Callable[[Any], None], Callable[[Any], None]] = (check_prediction, check_outcome)
AT_MS = 1_777_000_000_000

UUIDS = st.uuids().map(str)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=12)
ANY_TEXT = st.one_of(TEXTS, st.text(max_size=6))
NUMBERS = st.one_of(
    st.integers(-(10**16), 10**16),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-2, 2),
    st.decimals(-100, 100, places=5).map(float),
)
VALUES = st.one_of(NUMBERS, st.booleans(), ANY_TEXT)
TIMES = st.one_of(
    st.none(),
    st.integers(-5, 2**45),
    st.datetimes(dt.datetime(1969, 12, 1), timezones=st.just(dt.UTC)).map(dt.datetime.isoformat),
    st.datetimes(timezones=st.just(dt.timezone(dt.timedelta(hours=5, minutes=30)))).map(dt.datetime.isoformat),
    st.sampled_from(["2026-05-01T12:30:00Z", "2024-02-29T23:59:59.0005Z", "2026-02-29T00:00:00Z", "yesterday", ""]),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), VALUES),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(ANY_TEXT, inner)),
    max_leaves=8,
)
EXTRAS = st.dictionaries(
    st.sampled_from(["features", "probabilities", "x", "prediction_ids", "Model"]), ANYTHING, max_size=2
)
PREDICTED = st.fixed_dictionaries(
    {
        "prediction_id": st.one_of(UUIDS, TEXTS),
        "model": st.sampled_from(["loan", "price"]) | TEXTS,
        "version": st.one_of(st.sampled_from(["1", 1, 7, -1, 0]), TEXTS),
        "prediction": VALUES,
    },
    optional={
        "predicted_at": TIMES,
        "score": st.one_of(st.none(), st.floats(-0.1, 1.1), NUMBERS),
        "segment": st.none() | TEXTS,
    },
)
OBSERVED = st.fixed_dictionaries(
    {"prediction_id": st.one_of(UUIDS, TEXTS), "outcome": VALUES},
    optional={
        "observed_at": TIMES,
        "model": st.one_of(st.none(), st.sampled_from(["loan", "price"]), TEXTS),
        "source": st.sampled_from(["system", "human", None, "robot"]),
        "weight": st.one_of(st.none(), NUMBERS),
    },
)


@st.composite
def documents(draw: st.DrawFn, fields: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """An event with other fields around it, in any order, spaced in any way."""
    event = {**draw(fields), **draw(EXTRAS)}
    names = draw(st.permutations(list(event)))
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")]))
    ascii_only = draw(st.booleans())
    return json.dumps({name: event[name] for name in names}, separators=spaced, ensure_ascii=ascii_only).encode()


def columns_of(side: int, documents: list[bytes]) -> Events | None:
    at_ms = np.arange(AT_MS, AT_MS + len(documents), dtype=np.int64)
    offsets = np.arange(len(documents), dtype=np.int64)
    return plain_columns(side, documents, at_ms, offsets, lambda _: None, len(documents))


def same_event(side: int, events: Events, row: int, event: Prediction | Outcome) -> None:
    """Everything that a row of the columns says is what the event says."""
    assert events.keys[row].tobytes() == compact_id(event.prediction_id)
    time = event.predicted_at if isinstance(event, Prediction) else event.observed_at
    assert events.event_ms[row] == (AT_MS + row if time is None else milliseconds(time))
    value = event.prediction if isinstance(event, Prediction) else event.outcome
    found = as_value(int(events.values.kinds[row]), float(events.values.numbers[row]), events.values.texts)
    assert (type(found), repr(found)) == (type(value), repr(value))
    if isinstance(event, Prediction):
        assert events.named[events.names[row]] == (event.model, str(event.version), event.segment or "")
    else:
        code = events.names[row]
        assert (None if code == NOBODY else events.named[code]) == event.model


def judged(side: int, document: bytes) -> Prediction | Outcome | None:
    """What the JSON library and our checks say: the event, or None."""
    try:
        event: Prediction | Outcome = DECODERS[side].decode(document)
        CHECKS[side](event)
    except (msgspec.MsgspecError, Undecodable, UnicodeDecodeError, RecursionError):
        return None
    return event


def agrees(side: int, documents: list[bytes]) -> bool:
    """Whether the batch was taken; if so, every event of it is what the JSON library says."""
    events = columns_of(side, documents)
    if events is None or not events.within_bounds:
        return False
    for row, document in enumerate(documents):
        event = judged(side, document)
        assert event is not None, document
        same_event(side, events, row, event)
    return True


@profile(max_examples=150)
@given(st.lists(documents(PREDICTED), min_size=1, max_size=4))
def test_predictions_are_what_the_json_library_says(batch: list[bytes]) -> None:
    """Or the batch is not taken."""
    agrees(PREDICTIONS, batch)


@profile(max_examples=150)
@given(st.lists(documents(OBSERVED), min_size=1, max_size=4))
def test_outcomes_are_what_the_json_library_says(batch: list[bytes]) -> None:
    """Or the batch is not taken."""
    agrees(OUTCOMES, batch)


MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.integers(0, 255)), max_size=4)


@profile(max_examples=400)
@given(st.one_of(documents(PREDICTED), documents(OBSERVED)), MUTATIONS, st.booleans())
def test_damaged_events_are_not_taken_for_others(
    document: bytes, mutations: list[tuple[int, int, int]], cut: bool
) -> None:
    """Bytes changed, put in, left out, or cut off: what is still taken is what the JSON library takes, and says so."""
    damaged = bytearray(document)
    for at, how, byte in mutations:
        at = at % (len(damaged) + 1)
        damaged[at : at + (how != 1)] = bytes(
            [byte] if how < 2 else b']}",:0'[byte % 6 : byte % 6 + 1] if how == 2 else b""
        )
    if cut and mutations:
        del damaged[mutations[0][0] % (len(damaged) + 1) :]
    for side in (PREDICTIONS, OUTCOMES):
        agrees(side, [bytes(damaged)])


UUID = "01234567-89ab-cdef-0123-456789abcdef"
PLAIN = {"prediction_id": UUID, "model": "loan", "version": "1", "prediction": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_id": "loan 4711"},
        {"prediction_id": UUID.upper()},
        {"version": 3},
        {"prediction": 0.25},
        {"prediction": -7.0},
        {"prediction": True},
        {"prediction": "declined"},
        {"prediction": ""},
        {"predicted_at": 1_777_000_000_123},
        {"predicted_at": "2026-05-01T12:30:00.250Z"},
        {"predicted_at": "2026-05-01T12:30:00.123456+02:00"},
        {"predicted_at": None, "score": None, "segment": None},
        {"score": 0.8437261236120221, "segment": "north"},
        {"score": 1, "features": {"a": [1, -2.5e-7, {"b": {}}, [], None, True, False, "x"]}},
        {"features": [0.1] * 100, "probabilities": {"yes": 0.5}},
    ],
)
def test_what_producers_usually_write_is_taken(changes: dict[str, Any]) -> None:
    """Without these the fast path would be one that nobody takes."""
    assert agrees(PREDICTIONS, [json.dumps({**PLAIN, **changes}).encode(), json.dumps(PLAIN).encode()])


def test_usual_outcomes_are_taken() -> None:
    """With and without the model that they claim."""
    base = {"prediction_id": UUID, "outcome": 1}
    claims = [base, {**base, "model": "loan"}, {**base, "source": "human", "weight": 2.5, "observed_at": AT_MS}]
    assert agrees(OUTCOMES, [json.dumps(each).encode() for each in claims])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"null",
        b'{"prediction_id":"","model":"m","version":"1","prediction":1}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1} x',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":01}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"score":1.5}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"score":-0.5}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"features":[1,2}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"features":{"a":1]}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"features":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"prediction_id":"a","prediction_id":"b","model":"m","version":"1","prediction":1}',
        b'{"prediction_id":"\xc3\xa9","model":"m","version":"1","prediction":1}',
        b'{"prediction_id":"\\u0061","model":"m","version":"1","prediction":1}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":NaN}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1e3}',
        b'{"prediction_id":"a","model":"m","version":"1","prediction":1,"predicted_at":"2026-02-30T00:00:00Z"}',
    ],
)
def test_whatever_is_not_certain_is_left_to_the_json_library(document: bytes) -> None:
    """One such event, and the whole batch is."""
    good = json.dumps(PLAIN).encode()
    assert columns_of(PREDICTIONS, [good, document, good]) is None


def test_a_tombstone_and_a_huge_value_are_left_to_the_json_library() -> None:
    """They are no events; a value that is too large is not even read."""
    good = json.dumps(PLAIN).encode()
    huge = json.dumps({**PLAIN, "features": "x" * MAX_VALUE_BYTES}).encode()
    for values in ([good, None], [good, huge]):
        spans = Spans.of(values)
        assert list(spans) == values
        assert plain_columns(PREDICTIONS, spans, np.zeros(2, np.int64), np.arange(2), lambda _: None, 2) is None


def test_more_names_or_classes_than_fit_are_left_to_the_json_library() -> None:
    """A producer may put an id where a class belongs."""
    few = [json.dumps({**PLAIN, "prediction": f"c{n % 4_000}", "version": n % 4_000}).encode() for n in range(9_000)]
    assert agrees(PREDICTIONS, few)
    for field in ("prediction", "version", "segment"):
        many = [json.dumps({**PLAIN, field: f"{n}"}).encode() for n in range(4_097)]
        assert columns_of(PREDICTIONS, many[:-1]) is not None
        assert columns_of(PREDICTIONS, many) is None


def test_arrays_that_are_not_what_they_should_be_are_refused() -> None:
    """The library would read or write beyond them."""
    data = json.dumps(PLAIN).encode()
    ends = np.array([len(data) + 1], dtype=np.int64)
    with pytest.raises(ValueError, match="outside"):
        native_events.decode(True, data, np.zeros(1, np.int64), ends, np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="is not"):
        native_events.decode(True, data, np.zeros(4, np.int64)[::2], np.full(2, len(data)), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="is not"):
        native_events.decode(True, data, np.zeros(1, np.int64), np.full(1, len(data)), np.zeros(1, np.int32))


@given(st.lists(st.one_of(st.none(), st.binary(max_size=5)), max_size=9), st.integers(0, 9), st.integers(0, 9))
@example([None], 0, 1)
def test_spans_are_a_sequence_of_the_values(values: list[bytes | None], start: int, stop: int) -> None:
    """By place, by slice, from the end; their data is one stretch."""
    spans = Spans.of(values)
    assert list(spans) == values
    assert list(spans[start:stop]) == values[start:stop]
    assert spans.longest == max([len(value or b"") for value in values], default=0)
    assert Spans.of(spans) is spans
    if values:
        assert spans[-1] == values[-1]
