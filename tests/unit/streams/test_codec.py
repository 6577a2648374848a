"""Every encoding that producers use decodes to the same event; anything else is undecodable under one reason."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.codec import (
    EventDecoder,
    Header,
    Undecodable,
    alert_decoder,
    encode,
    full_prediction_decoder,
    headers,
    model_event_decoder,
    outcome_decoder,
    prediction_decoder,
)
from streams.events import (
    ALERT_TYPE,
    MAX_VALUE_BYTES,
    MODEL_EVENT_TYPE,
    OUTCOME_TYPE,
    PREDICTION_TYPE,
    Alert,
    Baseline,
    Drift,
    FullPrediction,
    ModelEvent,
    ModelState,
    Outcome,
    Prediction,
    ShadowAnswer,
    Value,
    milliseconds,
)

PREDICTION: dict[str, Any] = {"prediction_id": "p1", "model": "loan", "version": "3", "prediction": 1, "score": 0.75}
OUTCOME: dict[str, Any] = {"prediction_id": "p1", "outcome": 1}


def reason_of(decoder: EventDecoder[Any], value: bytes | None, with_headers: list[Header] | None = None) -> str:
    with pytest.raises(Undecodable) as refused:
        decoder.decode_any(value, with_headers or [])
    assert "\n" not in str(refused.value)
    return str(refused.value.reason)


def structured(data: object, event_type: str = PREDICTION_TYPE) -> bytes:
    envelope = {"specversion": "1.0", "id": "1", "source": "test", "type": event_type, "data": data}
    return json.dumps(envelope).encode()


@pytest.mark.parametrize(
    ("value", "with_headers"),
    [
        (json.dumps(PREDICTION).encode(), []),
        (json.dumps(PREDICTION).encode(), headers(PREDICTION_TYPE, "test")),
        (structured(PREDICTION), [("content-type", b"application/cloudevents+json")]),
        (structured(PREDICTION), [("Content-Type", b"application/cloudevents+json; charset=utf-8")]),
        (structured(PREDICTION), []),
        (b"\x00\x00\x00\x00\x2a" + json.dumps(PREDICTION).encode(), []),
        (b"\x00\x00\x00\x00\x2a" + structured(PREDICTION), []),
        (json.dumps({**PREDICTION, "unknown": {"deep": [1, None]}}).encode(), []),
    ],
    ids=["plain", "binary", "structured", "charset", "structured by content", "confluent", "framed envelope", "more"],
)
def test_every_encoding_gives_the_same_event(value: bytes, with_headers: list[Header]) -> None:
    """A producer needs no library of ours, and unknown fields are skipped."""
    assert prediction_decoder().decode_any(value, with_headers) == Prediction("p1", "loan", "3", 1, None, 0.75)


def test_a_feature_may_be_called_like_an_envelope() -> None:
    """Only a whole envelope is unwrapped: plain data with a key ``specversion`` is plain data."""
    value = json.dumps({**PREDICTION, "specversion": "1.0"}).encode()
    assert prediction_decoder().decode_any(value).prediction_id == "p1"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not_json"),
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b'{"prediction_id": "p1"', "not_json"),
        (b"\x00\x00\x00\x00\x01", "not_json"),
        (b'{"prediction_id": "\xff", "model": "m", "version": 1, "prediction": 1}', "not_json"),
        (b'{"prediction_id": "\\ud800", "model": "m", "version": 1, "prediction": 1}', "not_json"),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"specversion": "1.0", "type": "\xff", "data": 1}', "not_json"),
        (b"[]", "wrong_type"),
        (b"null", "wrong_type"),
        (structured(None), "wrong_type"),
        (structured(OUTCOME, OUTCOME_TYPE), "wrong_event"),
    ],
)
def test_what_is_no_event_has_a_reason(value: bytes | None, reason: str) -> None:
    """Truncated, not UTF-8, half a surrogate pair, nested without end: none may stop the stream."""
    assert reason_of(prediction_decoder(), value) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prediction_id": 7}, "wrong_type"),
        ({"prediction_id": ""}, "missing_field"),
        ({"prediction_id": None}, "wrong_type"),
        ({"prediction_id": "x" * 513}, "too_large"),
        ({"prediction": "x" * 513}, "too_large"),
        ({"segment": "x" * 201}, "too_large"),
        ({"model": ["m"]}, "wrong_type"),
        ({"prediction": None}, "wrong_type"),
        ({"prediction": {"class": 1}}, "wrong_type"),
        ({"prediction": math.nan}, "not_finite"),
        ({"prediction": math.inf}, "not_finite"),
        ({"score": -math.inf}, "not_finite"),
        ({"prediction": 1e308}, "out_of_range"),
        ({"prediction": -1.1e15}, "out_of_range"),
        ({"prediction": 10**16}, "out_of_range"),
        ({"prediction": 10**400}, "out_of_range"),
        ({"prediction": 10**4000}, "out_of_range"),
        ({"score": 1.01}, "out_of_range"),
        ({"score": "0.5"}, "wrong_type"),
        ({"predicted_at": "2026-01-01T00:00:00"}, "wrong_type"),
        ({"predicted_at": "yesterday"}, "wrong_type"),
        ({"predicted_at": True}, "wrong_type"),
        ({"predicted_at": -1}, "out_of_range"),
        ({"predicted_at": 10**15}, "out_of_range"),
        ({"predicted_at": "0001-01-01T00:00:00Z"}, "out_of_range"),
        ({"predicted_at": "9999-12-31T23:59:59-14:00"}, "out_of_range"),
    ],
)
def test_a_wrong_field_has_its_own_reason(change: dict[str, object], reason: str) -> None:
    """Numbers that would blind a detector, ids that are numbers, and times without an offset are refused."""
    assert reason_of(prediction_decoder(), json.dumps({**PREDICTION, **change}).encode()) == reason


def test_a_number_that_no_float_holds_is_out_of_range() -> None:
    """1e400 is JSON, and no infinity."""
    assert reason_of(outcome_decoder(), b'{"prediction_id": "p1", "outcome": 1e400}') == "out_of_range"


@pytest.mark.parametrize("name", ["prediction_id", "model", "version", "prediction"])
def test_a_missing_field_is_named(name: str) -> None:
    """The detail says which one."""
    value = json.dumps({key: PREDICTION[key] for key in PREDICTION if key != name}).encode()
    with pytest.raises(Undecodable, match=name) as refused:
        prediction_decoder().decode_any(value)
    assert refused.value.reason == "missing_field"


def test_a_value_beyond_the_limit_is_refused_unread() -> None:
    """Ten megabytes have their own reason, whatever they say."""
    value = json.dumps({**PREDICTION, "features": {"x": "y" * 10_000_000}}).encode()
    assert reason_of(prediction_decoder(), value) == "too_large"
    assert prediction_decoder().decode_any(json.dumps(PREDICTION).encode().ljust(MAX_VALUE_BYTES)).model == "loan"


def test_another_event_on_the_topic_is_not_mistaken() -> None:
    """``ce_type`` decides before the value is looked at; a type that is no text does not raise."""
    value = json.dumps(PREDICTION).encode()
    for declared in (OUTCOME_TYPE.encode(), b"", b"\xff\xfe"):
        assert reason_of(prediction_decoder(), value, [("ce_type", declared)]) == "wrong_event"
    assert prediction_decoder().decode_any(value, [("ce_type", None)]).model == "loan"


@pytest.mark.parametrize(
    ("written", "expected_ms"),
    [
        ("2026-01-02T03:04:05Z", 1_767_323_045_000),
        ("2026-01-02T03:04:05.678+02:00", 1_767_315_845_678),
        ("1970-01-01T00:00:00Z", 0),
        (1_767_323_045_678, 1_767_323_045_678),
    ],
)
def test_times_are_rfc_3339_with_an_offset_or_epoch_milliseconds(written: str | int, expected_ms: int) -> None:
    """Both are milliseconds since 1970 in the end."""
    event = outcome_decoder().decode_any(json.dumps({**OUTCOME, "observed_at": written}).encode())
    assert event.observed_at is not None
    assert milliseconds(event.observed_at) == expected_ms


def test_nothing_that_is_not_finite_leaves() -> None:
    """JSON has no NaN: it becomes null, so that what we wrote can be read."""
    assert json.loads(encode(Drift("adwin", statistic=math.nan, threshold=math.inf))) == {
        "detector": "adwin",
        "statistic": None,
        "threshold": None,
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBERS = st.floats(-1e15, 1e15, allow_nan=False)
VALUES: st.SearchStrategy[Value] = st.one_of(st.booleans(), st.integers(-(10**15), 10**15), NUMBERS, TEXT)
TIMES = st.one_of(
    st.none(),
    st.integers(0, 253_402_300_799_999),
    st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(dt.UTC)),
)
FULL = st.builds(
    FullPrediction,
    TEXT,
    TEXT,
    st.one_of(TEXT, st.integers(0, 10**6)),
    VALUES,
    TIMES,
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), TEXT),
    st.one_of(st.none(), st.lists(st.floats(0, 1), max_size=3)),
    st.one_of(st.none(), st.dictionaries(TEXT, st.one_of(NUMBERS, TEXT, st.none()), max_size=3)),
    st.one_of(st.just(msgspec.UNSET), st.builds(ShadowAnswer, TEXT, VALUES, st.one_of(st.none(), st.floats(0, 1)))),
)


@profile(max_examples=150, deadline=None)
@given(FULL, st.sampled_from(["plain", "framed", "structured"]))
def test_predictions_survive_each_encoding(event: FullPrediction, how: str) -> None:
    """What is written is read again, whole by training and in part by the join."""
    value = encode(event)
    if how == "structured":
        value = structured(json.loads(value))
    elif how == "framed":
        value = b"\x00\x00\x00\x00\x07" + value
    assert full_prediction_decoder().decode_any(value) == event
    assert prediction_decoder().decode_any(value).prediction_id == event.prediction_id


@profile(max_examples=100, deadline=None)
@given(st.builds(Outcome, TEXT, VALUES, TIMES, st.one_of(st.none(), TEXT), st.sampled_from([None, "system", "human"])))
def test_outcomes_survive_encoding(event: Outcome) -> None:
    """An integer stays one, and ``true`` stays a boolean."""
    found = outcome_decoder().decode_any(encode(event))
    assert found == event
    assert type(found.outcome) is type(event.outcome)


def test_alerts_and_model_events_survive_encoding() -> None:
    """Evidence, nested state and their types are read as they were written, under the names that others know."""
    alert = Alert(
        "firing", {"alertname": "ConceptDriftDetected", "model": "loan"}, {}, "s", "e", "g", "f", Drift("adwin", 0.5)
    )
    assert json.loads(encode(alert)).keys() >= {"startsAt", "endsAt", "generatorURL"}
    assert alert_decoder().decode_any(encode(alert), headers(ALERT_TYPE, "test")) == alert
    state = ModelState("loan", 4, "binary", [0, 1], 1, {"champion": "3"}, {"3": Baseline("accuracy", 0.93, 5_000)})
    event = ModelEvent("promoted", state, "3", trigger={"fingerprint": "f", "startsAt": "s"})
    sent = headers(MODEL_EVENT_TYPE.format(what="promoted"), "test")
    assert model_event_decoder().decode_any(encode(event), sent) == event


def test_headers_are_cloud_events() -> None:
    """Binary mode of CloudEvents 1.0, an id of its own unless one is given, extensions as they are."""
    made = dict(headers(ALERT_TYPE, "driftline/monitor", extra={"traceparent": "00-1"}))
    assert made["ce_specversion"] == b"1.0"
    assert (made["ce_type"], made["content-type"]) == (ALERT_TYPE.encode(), b"application/json")
    assert made["traceparent"] == b"00-1"
    assert made["ce_id"] != dict(headers(ALERT_TYPE, "driftline/monitor"))["ce_id"]
    assert dict(headers(ALERT_TYPE, "s", "same"))["ce_id"] == b"same"


DECODERS: list[EventDecoder[Any]] = [
    prediction_decoder(),
    full_prediction_decoder(),
    outcome_decoder(),
    alert_decoder(),
]
DECODERS.append(model_event_decoder())
SEEDS = [
    json.dumps(PREDICTION).encode(),
    structured(OUTCOME, OUTCOME_TYPE),
    b"\x00\x00\x00\x00\x01" + encode(Drift("x")),
]
NAMES = st.sampled_from(["ce_type", "content-type", "CE_TYPE", "x"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with a piece replaced by anything."""
    seed = draw(st.sampled_from(SEEDS))
    at = draw(st.integers(0, len(seed)))
    return seed[:at] + draw(st.binary(max_size=12)) + seed[at + draw(st.integers(0, 12)) :]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["prediction_id", "model", "version", "prediction", "outcome", "type", "data", "specversion"]
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=10,
)


@profile(max_examples=400, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), damaged(), JSON.map(lambda found: json.dumps(found).encode())),
    st.lists(st.tuples(NAMES, st.one_of(st.none(), st.binary(max_size=30))), max_size=2),
    st.sampled_from(DECODERS),
)
def test_no_bytes_raise_anything_but_undecodable(
    value: bytes, with_headers: list[Header], decoder: EventDecoder[Any]
) -> None:
    """A poisonous record must never be able to stop a worker."""
    try:
        decoder.decode_any(value, with_headers)
    except Undecodable as refused:
        assert refused.reason
