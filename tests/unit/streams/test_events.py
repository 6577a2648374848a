"""Times of events, and what is refused where a struct is decoded."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.events import ModelState, Outcome, Prediction, milliseconds, rfc3339

MAX_MS = 253_402_300_799_999


@profile(deadline=None)
@given(st.integers(0, MAX_MS))
def test_a_time_survives_being_written(at_ms: int) -> None:
    """RFC 3339 in UTC with milliseconds, exactly, up to the year 9999."""
    text = rfc3339(at_ms)
    assert text.endswith("Z")
    assert milliseconds(dt.datetime.fromisoformat(text)) == at_ms


def test_the_offset_of_a_time_counts() -> None:
    """Half past two in Berlin is half past twelve in UTC; milliseconds are taken as they are."""
    berlin = dt.datetime(2026, 7, 1, 14, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert rfc3339(milliseconds(berlin)) == "2026-07-01T12:30:00.000Z"
    assert milliseconds(1_700_000_000_123) == 1_700_000_000_123


@pytest.mark.parametrize(
    ("struct", "value"),
    [
        (Prediction, b'{"prediction_id": "", "model": "m", "version": 1, "prediction": 1}'),
        (Prediction, b'{"prediction_id": "p", "model": "", "version": 1, "prediction": 1}'),
        (Prediction, b'{"prediction_id": "p", "model": "m", "version": 1.5, "prediction": 1}'),
        (Outcome, b'{"prediction_id": "p", "outcome": 1, "source": "guess"}'),
        (Outcome, b'{"prediction_id": "p", "outcome": 1, "model": ""}'),
        (ModelState, b'{"model": "m", "revision": 1, "task": "ranking"}'),
        (ModelState, b'{"model": "m", "revision": 1, "task": "binary", "mode": "maybe"}'),
    ],
)
def test_a_struct_refuses_what_it_does_not_know(struct: type, value: bytes) -> None:
    """Empty names, versions that are fractions, and words outside the closed sets."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(value, type=struct)


def test_a_models_state_needs_only_what_is_not_default() -> None:
    """Fields that a later release adds are skipped by this one."""
    state = msgspec.json.decode(b'{"model": "m", "revision": 2, "task": "binary", "added later": 1}', type=ModelState)
    assert (state.mode, state.frozen, state.aliases) == ("auto", False, {})
