"""One codec for every event: CloudEvents binary and structured mode, plain JSON, Confluent framing.

Decoding has two paths. The fast one decodes the value alone, which is all that binary mode and plain JSON need; the
slow one, taken only by what the fast one refuses, unwraps envelopes and names the reason of a failure.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar, cast

import msgspec

from streams.events import (
    ALERT_TYPE,
    MAX_MAGNITUDE,
    MAX_TIME_MS,
    MAX_VALUE_BYTES,
    MODEL_EVENT_TYPE,
    OUTCOME_TYPE,
    PREDICTION_TYPE,
    Alert,
    FullPrediction,
    ModelEvent,
    Outcome,
    Prediction,
    milliseconds,
)
from streams.records import DeadReason

Header = tuple[str, bytes | None]
Headers = Sequence[Header]
T = TypeVar("T")

CONFLUENT_MAGIC = 0
CONFLUENT_PREFIX_BYTES = 5
STRUCTURED = b"application/cloudevents"


class Undecodable(ValueError):
    """A record that is not the event it should be. ``reason`` is one of a closed set; ``str()`` says where."""

    def __init__(self, reason: DeadReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: DeadReason = reason


class _Envelope(msgspec.Struct):
    specversion: str
    type: str
    data: msgspec.Raw


class EventDecoder(Generic[T]):
    """Decodes one type of event.

    ``decode(value)`` is the fast path and raises ``msgspec.MsgspecError``; ``decode_any(value, headers)`` accepts every
    encoding and raises :class:`Undecodable`.
    """

    def __init__(
        self,
        struct: type[T],
        event_types: Iterable[str],
        check: Callable[[T], None],
    ) -> None:
        self._decoder = msgspec.json.Decoder(struct)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._types = frozenset(event_types)
        self._check = check
        self.decode = self._decoder.decode

    def decode_columns(self, values: Sequence[bytes | None]) -> list[list[Any]] | None:
        """The fields of every event, a list a field, if all values are plain JSON; None: look at each by itself.

        Bounds are not checked: :attr:`streams.columns.Events.within_bounds` tells them for all at once. No event is
        kept, nor its tuple: thousands of them at a time are slow to make and to let go.
        """
        plain = cast(Sequence[bytes], values)
        try:
            if not plain or max(map(len, plain)) > MAX_VALUE_BYTES:
                return None
            events = map(self._decoder.decode, plain)
            fields = list(chain.from_iterable(map(msgspec.structs.astuple, events)))  # type: ignore[arg-type]  # T is a struct
        except (TypeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None  # a TypeError is a tombstone, which has no length
        width = len(fields) // len(plain)
        return [fields[at::width] for at in range(width)]

    def decode_any(self, value: bytes | None, headers: Headers = ()) -> T:
        """The event in ``value``, whatever its encoding.

        Raises :class:`Undecodable` for anything that is not a valid event of this type.
        """
        if not value:
            raise Undecodable("not_json", "the value is empty")
        if len(value) > MAX_VALUE_BYTES:
            raise Undecodable("too_large", f"the value has {len(value)} bytes, the limit is {MAX_VALUE_BYTES}")
        declared = _header(headers, "ce_type")
        if declared is not None and declared.decode("utf-8", "replace") not in self._types:
            raise Undecodable("wrong_event", f"the header ce_type is {declared!r}")
        if value[0] == CONFLUENT_MAGIC and len(value) > CONFLUENT_PREFIX_BYTES:
            value = value[CONFLUENT_PREFIX_BYTES:]
        try:
            value = self._unwrap(value, headers)
            event = self._decoder.decode(value)
        except msgspec.ValidationError as error:
            raise _explain(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed(value, error) from None
        except RecursionError:
            raise Undecodable("not_json", "nested too deeply") from None
        self._check(event)
        return event

    def _unwrap(self, value: bytes, headers: Headers) -> bytes:
        content_type = _header(headers, "content-type") or b""
        if not content_type.startswith(STRUCTURED) and b'"specversion"' not in value:
            return value
        try:
            envelope = self._envelope.decode(value)
        except msgspec.ValidationError:
            if content_type.startswith(STRUCTURED):
                raise
            return value
        if envelope.type not in self._types:
            raise Undecodable("wrong_event", f"the CloudEvents type is {envelope.type!r}")
        return bytes(envelope.data)


def _header(headers: Headers, name: str) -> bytes | None:
    return next((value for key, value in headers if key.lower() == name), None)


def _explain(error: msgspec.ValidationError) -> Undecodable:
    text = str(error)
    reason: DeadReason = "wrong_type"
    if "missing required field" in text or "length >=" in text:
        reason = "missing_field"
    elif "out of range" in text:
        reason = "out_of_range"
    elif "length <=" in text:
        reason = "too_large"
    return Undecodable(reason, text)


def _malformed(value: bytes, error: msgspec.DecodeError | UnicodeDecodeError) -> Undecodable:
    """``NaN`` and ``Infinity`` are not JSON, but Python's own encoder writes them: say so."""
    constants: list[str] = []
    try:
        json.loads(value, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return Undecodable("not_json", str(error))
    if constants:
        return Undecodable("not_finite", f"{constants[0]} is not a JSON number")
    return Undecodable("not_json", str(error))


def _refuse_number(name: str, number: object, low: float, high: float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        raise Undecodable("not_finite", f"{name} is {number}")
    if isinstance(number, int | float) and not low <= number <= high:
        raise Undecodable("out_of_range", f"{name} is {number}, not within [{low:g}, {high:g}]")


def check_prediction(event: Prediction) -> None:
    """Raise :class:`Undecodable` for numbers that would blind a detector for ever."""
    _refuse_number("prediction", event.prediction, -MAX_MAGNITUDE, MAX_MAGNITUDE)
    _refuse_number("score", event.score, 0.0, 1.0)
    _check_time("predicted_at", event.predicted_at)


def check_outcome(event: Outcome) -> None:
    """Raise :class:`Undecodable` for numbers that would blind a detector for ever."""
    _refuse_number("outcome", event.outcome, -MAX_MAGNITUDE, MAX_MAGNITUDE)
    _check_time("observed_at", event.observed_at)


def _check_time(name: str, at: object) -> None:
    if isinstance(at, int | dt.datetime):
        _refuse_number(name, milliseconds(at), 0, MAX_TIME_MS)


def _anything(event: object) -> None:
    """Events of our own making need no check beyond their types."""


def prediction_decoder() -> EventDecoder[Prediction]:
    """Decoder of the fields that the join needs."""
    return EventDecoder(Prediction, [PREDICTION_TYPE], check_prediction)


def full_prediction_decoder() -> EventDecoder[FullPrediction]:
    """Decoder of whole predictions, features included."""
    return EventDecoder(FullPrediction, [PREDICTION_TYPE], check_prediction)


def outcome_decoder() -> EventDecoder[Outcome]:
    """Decoder of outcomes."""
    return EventDecoder(Outcome, [OUTCOME_TYPE], check_outcome)


def alert_decoder() -> EventDecoder[Alert]:
    """Decoder of alerts."""
    return EventDecoder(Alert, [ALERT_TYPE], _anything)


def model_event_decoder() -> EventDecoder[ModelEvent]:
    """Decoder of model events."""
    kinds = ("registered", "candidate", "promoted", "rejected", "rolledback", "silenced")
    return EventDecoder(ModelEvent, [MODEL_EVENT_TYPE.format(what=kind) for kind in kinds], _anything)


def encode(event: msgspec.Struct) -> bytes:
    """The event's data as JSON; NaN and infinity, which JSON cannot carry, become null."""
    return msgspec.json.encode(event)


def headers(
    event_type: str, source: str, event_id: str | None = None, extra: Mapping[str, str] | None = None
) -> list[Header]:
    """CloudEvents 1.0 binary-mode headers. ``event_id`` defaults to a random UUID."""
    pairs: dict[str, Any] = {
        "ce_specversion": "1.0",
        "ce_id": event_id or str(uuid.uuid4()),
        "ce_source": source,
        "ce_type": event_type,
        "content-type": "application/json",
        **(extra or {}),
    }
    return [(name, value.encode()) for name, value in pairs.items()]
