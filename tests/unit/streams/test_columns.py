"""Events as columns: a row an event, whatever they have and lack."""

from __future__ import annotations

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.columns import NOBODY, Events, as_times
from streams.events import Outcome, Prediction, Time, milliseconds
from streams.ids import compact_id
from streams.values import as_value
from tests.support.windows import outcome_events, prediction_events

times: st.SearchStrategy[Time | None] = st.one_of(
    st.none(), st.integers(-(2**40), 2**45), st.datetimes(timezones=st.just(dt.UTC))
)
values = st.one_of(st.integers(-5, 5), st.floats(-1, 1), st.booleans(), st.text(max_size=3))
predictions = st.builds(
    Prediction,
    st.text(min_size=1, max_size=4),
    st.sampled_from(["loan", "price"]),
    st.sampled_from(["1", 1, "2"]),
    values,
    times,
    st.none(),
    st.sampled_from([None, "", "north"]),
)
outcomes = st.builds(Outcome, st.text(min_size=1, max_size=4), values, times, st.sampled_from([None, "loan", "price"]))


def row_values(events: Events) -> list[object]:
    columns = events.values
    pairs = zip(columns.kinds.tolist(), columns.numbers.tolist(), strict=True)
    found = [as_value(kind, number, columns.texts) for kind, number in pairs]
    return [(type(value), value) for value in found]


def own_time(time: Time | None, at_ms: int) -> int:
    return at_ms if time is None else milliseconds(time)


@given(st.lists(predictions, max_size=8))
def test_predictions_as_columns_say_what_the_events_say(events: list[Prediction]) -> None:
    """Ids, own times (the record's where there is none), values, and names: version 1 is "1", no segment is ""."""
    at_ms = [1_000 + 7 * n for n in range(len(events))]
    found = prediction_events(at_ms, events, range(len(events)))
    assert len(found) == len(events)
    assert [row.tobytes() for row in found.keys] == [compact_id(event.prediction_id) for event in events]
    assert found.event_ms.tolist() == [own_time(e.predicted_at, t) for e, t in zip(events, at_ms, strict=True)]
    assert row_values(found) == [(type(event.prediction), event.prediction) for event in events]
    assert [found.named[code] for code in found.names.tolist()] == [
        (event.model, str(event.version), event.segment or "") for event in events
    ]


@given(st.lists(outcomes, max_size=8))
def test_outcomes_as_columns_say_what_the_events_say(events: list[Outcome]) -> None:
    """The name is the model that an outcome claims, or nobody."""
    at_ms = [1_000 + 7 * n for n in range(len(events))]
    found = outcome_events(at_ms, events, range(len(events)))
    assert [row.tobytes() for row in found.keys] == [compact_id(event.prediction_id) for event in events]
    assert found.event_ms.tolist() == [own_time(e.observed_at, t) for e, t in zip(events, at_ms, strict=True)]
    assert row_values(found) == [(type(event.outcome), event.outcome) for event in events]
    claims = [None if code == NOBODY else found.named[code] for code in found.names.tolist()]
    assert claims == [event.model for event in events]


def test_what_could_not_be_decoded_keeps_its_row() -> None:
    """So that the rows of the others, and the offsets, stay where they are; the reason is kept by row."""
    good = Prediction("p", "loan", "1", 1)
    events = prediction_events(5, [None, good, None], [3, 4, 6], {0: ("not_json", "a"), 2: ("wrong_type", "b")})
    assert events.offsets.tolist() == [3, 4, 6]
    assert events.bad == {0: ("not_json", "a"), 2: ("wrong_type", "b")}
    assert events.keys[1].tobytes() == compact_id("p")
    assert events.named[events.names[1]] == ("loan", "1", "")
    claimed = outcome_events(5, [None, Outcome("p", 0, model="loan")], [3, 4], {0: ("not_json", "a")})
    assert claimed.named[claimed.names[1]] == "loan"
    assert claimed.names[0] == NOBODY


def test_record_times_that_stand_in_are_copies() -> None:
    """A batch's own times may be changed without changing those of its records."""
    at_ms = np.array([1, 2], dtype=np.int64)
    own = as_times([None, None], at_ms)
    own[0] = 9
    assert at_ms.tolist() == [1, 2]
