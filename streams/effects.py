"""What the records since the last checkpoint did: the join's effects, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.events import Value
from streams.records import DeadReason
from streams.rows import Rows, with_whole_row
from streams.values import Codes, Floats, Ints, Kinds

MINUTE_MS = 60_000

OUTCOME_FIELDS = [
    ("outcome_offset", "<i8"),
    ("outcome_at_ms", "<i8"),
    ("outcome_event_ms", "<i8"),
    ("outcome", "<f8"),
    ("joined_ms", "<i8"),
    ("outcome_kind", "u1"),
]
PAIR = with_whole_row(OUTCOME_FIELDS)
"""A prediction's row (whole as ``row``, too), its outcome, and when the pair was complete."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """A second outcome of a remembered pair that says something else than the one before."""

    ref: int
    at_ms: int
    offset: int
    joined_ms: int
    event_ms: int
    prediction_offset: int
    prediction_ms: int
    prediction: Value
    was: Value
    now: Value


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that cannot be used. It is ``at_hand`` unless it was taken in before what shows that it cannot."""

    side: int
    offset: int
    reason: DeadReason
    detail: str
    at_hand: bool = True


@dataclass(slots=True)
class Effects:
    """Everything that the records since the last checkpoint did.

    ``pairs`` are rows of :data:`PAIR`. ``predicted`` are (ref, minute of arrival, kind, number) of new predictions.
    ``removed`` are the offsets of rows that the store has and that no longer wait, a list an input; ``expired`` those
    of predictions that expired.
    """

    pairs: list[Rows] = field(default_factory=list)
    predicted: list[tuple[Codes, Ints, Kinds, Floats]] = field(default_factory=list)
    corrected: list[Corrected] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    removed: tuple[list[Ints], list[Ints]] = field(default_factory=lambda: ([], []))
    expired: list[Ints] = field(default_factory=list)
