"""The rows and effects of the join: what waits, what is remembered, what happened since the last checkpoint."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat

import msgspec

from streams.events import Value
from streams.records import Correction, DeadReason

MINUTE_MS = 60_000
Ref = tuple[str, str, str]
"""Model, version, segment: stored once, referred to by number."""


class PendingRow(msgspec.Struct, array_like=True, gc=False):
    """A prediction that waits for its outcome."""

    id: bytes
    offset: int
    at_ms: int
    event_ms: int
    ref: int
    value: Value
    score: float | None


class WaitingRow(msgspec.Struct, array_like=True, gc=False):
    """An outcome that waits for its prediction."""

    id: bytes
    offset: int
    at_ms: int
    event_ms: int
    value: Value
    model: str | None


class JoinedRow(msgspec.Struct, array_like=True, gc=False):
    """A pair that is remembered for the dedupe window, so that a correction can be undone and a duplicate seen."""

    id: bytes
    at_ms: int
    ref: int
    prediction: Value
    outcome: Value
    prediction_offset: int
    prediction_ms: int
    cohort_minute: int


@dataclass(slots=True)
class Pairs:
    """What happened to one (model, version, segment) since the last checkpoint."""

    seconds: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    cells: dict[tuple[int, int, Value, Value], int] = field(default_factory=dict)
    moments: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    corrections: list[Correction] = field(default_factory=list)
    predictions: dict[int, int] = field(default_factory=dict)
    delays: dict[int, int] = field(default_factory=dict)

    def add_moment(self, minute: int, cohort: int, error: float) -> None:
        """Count a regression's error, prediction − outcome, in its cell."""
        moment = self.moments.setdefault((minute, cohort), [0, 0.0, 0.0, 0.0])
        moment[0] += 1
        moment[1] += abs(error)
        moment[2] += error * error
        moment[3] += error


class LabelledPair(msgspec.Struct, frozen=True, gc=False):
    """A pair by reference, as retraining reads it."""

    ref: int
    prediction_offset: int
    outcome_offset: int
    prediction_ms: int
    outcome_ms: int
    outcome: Value


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that cannot be used: ``index`` in its run, or -1 if the event itself is from an earlier run."""

    side: int
    offset: int
    index: int
    reason: DeadReason
    detail: str


@dataclass(slots=True)
class Effects:
    """Everything that the events since the last checkpoint did."""

    pairs: dict[int, Pairs] = field(default_factory=dict)
    labelled: list[LabelledPair] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    remembered: list[JoinedRow] = field(default_factory=list)
    corrected: list[JoinedRow] = field(default_factory=list)
    forgotten: list[tuple[bytes, int]] = field(default_factory=list)


class Side(msgspec.Struct):
    """Rows of one topic without a partner, oldest first, and how they differ from what is stored."""

    rows: OrderedDict[bytes, PendingRow | WaitingRow] = msgspec.field(default_factory=OrderedDict)
    """Not a dict: the oldest of one whose front was deleted is found only behind all that was deleted."""
    added: dict[bytes, PendingRow | WaitingRow] = {}
    removed: dict[bytes, None] = {}

    def put(self, row: PendingRow | WaitingRow) -> None:
        """Let a row wait."""
        self.rows[row.id] = row
        self.added[row.id] = row

    def pop(self, key: bytes) -> None:
        """Take a row out; one that was never stored leaves no trace."""
        del self.rows[key]
        if self.added.pop(key, None) is None:
            self.removed[key] = None

    def put_all(self, rows: Sequence[PendingRow]) -> None:
        """Let new rows wait."""
        fresh = [(row.id, row) for row in rows]
        self.rows.update(fresh)
        self.added.update(fresh)

    def pop_all(self, keys: Sequence[bytes]) -> None:
        """Take rows out that all wait."""
        deque(map(self.rows.pop, keys), maxlen=0)
        never_stored = list(map(self.added.pop, keys, repeat(None)))
        if None in never_stored:
            self.removed.update((key, None) for key, row in zip(keys, never_stored, strict=True) if row is None)
