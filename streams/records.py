"""The records that Driftline writes for itself: takes and cuts, summaries, labelled pairs.

Cuts and takes are JSON, so that an operator can read the audit trail with any Kafka tool; summaries and labelled
pairs are MessagePack, because they carry one entry a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.events import Value
from streams.values import Ints, as_value, as_values


class Range(msgspec.Struct, array_like=True, frozen=True):
    """Offsets ``start`` (included) to ``end`` (not included)."""

    start: int
    end: int


class Counters(msgspec.Struct):
    """What became of every record read, cumulative since the partition's first epoch.

    The law: ``predictions = joined + pending + expired_predictions + duplicates + dead_predictions`` and
    ``outcomes = joined + waiting + expired_outcomes + corrections + late + dead_outcomes``, where ``pending`` and
    ``waiting`` are the rows without a partner at the cut.
    """

    predictions: int = 0
    outcomes: int = 0
    joined: int = 0
    expired_predictions: int = 0
    expired_outcomes: int = 0
    duplicates: int = 0
    corrections: int = 0
    late: int = 0
    dead_predictions: int = 0
    dead_outcomes: int = 0


class EffectSettings(msgspec.Struct, frozen=True):
    """The settings that change what the join does, by value, as a cut records them."""

    horizon_ms: int
    dedupe_ms: int
    dedupe_rows: int
    max_pending: int
    max_undeclared: int


class Restart(msgspec.Struct, frozen=True):
    """An operator accepted that a partition's state is lost: sequences, counters and rows begin again from nothing.

    The inputs are read on from ``predictions`` and ``outcomes``. Of the cuts before, those up to sequence ``last``
    count: all of their summaries were published.
    """

    predictions: int
    outcomes: int
    clock_ms: int
    last: int
    reason: str


class Take(msgspec.Struct, tag="take", tag_field="record", frozen=True, omit_defaults=True):
    """A worker became the owner of a partition: lower epochs behind it do not count.

    With ``restart`` its numbers begin again, for every reader.
    """

    partition: int
    epoch: int
    token: str
    worker: str
    restart: Restart | None = None


class Cut(msgspec.Struct, tag="cut", tag_field="record", frozen=True):
    """One checkpoint of one input partition, published after it was written to the store.

    ``clock_ms``: every record with an earlier time has been processed. ``models``: model → its summary sequence
    after this cut, for the models touched by it (for all of them when ``complete``).
    """

    partition: int
    epoch: int
    sequence: int
    predictions: Range
    outcomes: Range
    clock_ms: int
    counters: Counters
    pending: int
    waiting: int
    models: dict[str, int]
    complete: bool
    model_events: int
    settings: EffectSettings


class Gap(msgspec.Struct, tag="skip", tag_field="record", frozen=True):
    """An operator told the monitor not to wait for a partition until it comes back."""

    partition: int
    epoch: int
    reason: str


class Correction(msgspec.Struct, array_like=True, gc=False):
    """A second outcome: the pair's cell moves in the windows; detectors have seen the first."""

    second: int
    minute: int
    cohort_minute: int
    prediction: Value
    was: Value
    now: Value


class VersionPart(msgspec.Struct):
    """What one checkpoint learnt about one version (and segment) of a model.

    ``seconds`` (uint32), ``offsets`` (int64) and ``errors`` have one entry a pair, little-endian, sorted by (second,
    outcome offset): stream second of completion, the outcome's offset, and 0/1 (uint8, classification) or prediction −
    outcome (float64, ``fractions``). ``cells`` count pairs by (minute of completion, cohort, predicted, outcome); for a
    regression they are ``moments``: (minute of completion, cohort, n, Σ|e|, Σe², Σe). A cohort is the minute in which
    the prediction arrived, :func:`detectors.cohorts.rounded` to the hour or day if it is old.
    ``predictions`` counts predictions by minute of arrival, ``classes`` by (minute of arrival, predicted);
    ``delays`` counts pairs by label delay (by the events' own times), in powers of two seconds. ``codes`` (uint8,
    one entry a pair) are those of :mod:`detectors.four_rates`; empty where the model has no positive class, and in
    records of older releases.
    """

    version: str
    segment: str
    seconds: bytes
    offsets: bytes
    errors: bytes
    fractions: bool = False
    cells: list[tuple[int, int, Value, Value, int]] = []
    moments: list[tuple[int, int, int, float, float, float]] = []
    corrections: list[Correction] = []
    predictions: dict[int, int] = {}
    delays: dict[int, int] = {}
    classes: list[tuple[int, Value, int]] = []
    codes: bytes = b""

    @classmethod
    def of(
        cls,
        version: str,
        segment: str,
        seconds: Sequence[int] | Ints | NDArray[np.uint32],
        offsets: Sequence[int] | Ints,
        errors: NDArray[np.uint8] | NDArray[np.float64],
        **counts: Any,
    ) -> VersionPart:
        """A part from its columns."""
        fractions = errors.dtype != np.uint8
        return cls(
            version,
            segment,
            np.asarray(seconds, dtype="<u4").tobytes(),
            np.asarray(offsets, dtype="<i8").tobytes(),
            np.asarray(errors, dtype="<f8" if fractions else "u1").tobytes(),
            fractions,
            **counts,
        )

    @property
    def pairs(self) -> int:
        """How many pairs it has."""
        return len(self.offsets) // 8

    @property
    def last_second(self) -> int:
        """The second of its last pair, -1 if it has none."""
        return int(np.frombuffer(self.seconds[-4:], dtype="<u4")[0]) if self.seconds else -1

    @property
    def coded(self) -> NDArray[np.uint8] | None:
        """The codes of the pairs; None if there are none."""
        return np.frombuffer(self.codes, dtype="u1") if self.codes else None

    def columns(self) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """(seconds, outcome offsets, errors), one entry a pair."""
        errors = np.frombuffer(self.errors, dtype="<f8" if self.fractions else "u1")
        return (
            np.frombuffer(self.seconds, dtype="<u4").astype(np.int64),
            np.frombuffer(self.offsets, dtype="<i8"),
            errors.astype(np.float64),
        )


class Summary(msgspec.Struct):
    """What one partition learnt about one model in one checkpoint.

    ``sequence`` grows by one per (partition, model); a record above 512 kB is split and ``part``/``parts`` say so.
    """

    partition: int
    epoch: int
    sequence: int
    model: str
    task: str
    versions: list[VersionPart]
    part: int = 0
    parts: int = 1


class SummaryHead(msgspec.Struct):
    """What tells one summary record from another; decodes without the pairs."""

    partition: int
    epoch: int
    sequence: int
    model: str
    part: int = 0
    parts: int = 1


class LabelledRow(msgspec.Struct, array_like=True, gc=False):
    """A pair by reference: where its prediction and outcome are, and the outcome."""

    prediction_offset: int
    outcome_offset: int
    prediction_ms: int
    outcome_ms: int
    model: int
    version: int
    outcome: Value


class Labelled(msgspec.Struct):
    """The pairs of one checkpoint of one partition.

    At least once: per prediction offset the highest outcome offset wins. One entry a pair, little-endian: offsets and
    record times are int64; ``model`` and ``version`` (uint16) index ``models`` and ``versions``; an outcome is a kind
    (uint8; 0 a whole number, 1 a fraction, 2 a boolean, 3 a text) and a float64, for a text its index in ``texts``.
    Both offsets are in input partition ``partition``.
    """

    partition: int
    epoch: int
    sequence: int
    models: list[str]
    versions: list[str]
    prediction_offsets: bytes
    outcome_offsets: bytes
    prediction_ms: bytes
    outcome_ms: bytes
    model: bytes
    version: bytes
    kinds: bytes
    outcomes: bytes
    texts: list[str] = []

    @classmethod
    def of(
        cls,
        partition: int,
        epoch: int,
        sequence: int,
        models: list[str],
        versions: list[str],
        rows: Sequence[LabelledRow],
    ) -> Labelled:
        """A record from its rows."""
        values = as_values([row.outcome for row in rows])

        return cls(
            partition,
            epoch,
            sequence,
            models,
            versions,
            np.array([row.prediction_offset for row in rows], dtype="<i8").tobytes(),
            np.array([row.outcome_offset for row in rows], dtype="<i8").tobytes(),
            np.array([row.prediction_ms for row in rows], dtype="<i8").tobytes(),
            np.array([row.outcome_ms for row in rows], dtype="<i8").tobytes(),
            np.array([row.model for row in rows], dtype="<u2").tobytes(),
            np.array([row.version for row in rows], dtype="<u2").tobytes(),
            values.kinds.tobytes(),
            values.numbers.tobytes(),
            list(values.texts),
        )

    @property
    def offsets(self) -> Ints:
        """(prediction offset, outcome offset) of each pair, shape (n, 2)."""
        return np.stack(
            [np.frombuffer(each, dtype="<i8") for each in (self.prediction_offsets, self.outcome_offsets)], 1
        )

    def rows(self) -> list[LabelledRow]:
        """The pairs, one by one."""
        times = (np.frombuffer(each, dtype="<i8").tolist() for each in (self.prediction_ms, self.outcome_ms))
        codes = (np.frombuffer(each, dtype="<u2").tolist() for each in (self.model, self.version))
        numbers = np.frombuffer(self.outcomes, dtype="<f8").tolist()
        values = [as_value(kind, number, self.texts) for kind, number in zip(self.kinds, numbers, strict=True)]
        predictions, outcomes = self.offsets.T.tolist()
        return list(map(LabelledRow, predictions, outcomes, *times, *codes, values))


class MonitorCut(msgspec.Struct, tag="cut", tag_field="record", frozen=True):
    """One checkpoint of the monitor's state of one summaries partition.

    ``model_events`` is the catalog's position under which everything since the cut before took effect; ``settings``
    are :func:`streams.monitor_effects.recorded`. An owner's first cut and one an hour of stream time carry them, and
    they hold until the next that does.
    """

    partition: int
    epoch: int
    sequence: int
    summaries: Range
    watermark_ms: int
    alert_sequence: int
    pairs: int
    model_events: int = 0
    settings: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


DeadReason = Literal[
    "not_json",
    "wrong_type",
    "wrong_event",
    "missing_field",
    "not_finite",
    "out_of_range",
    "too_large",
    "too_many_models",
    "too_many_segments",
    "unknown_class",
    "shared_id",
    "wrong_task",
    "correction_unpaired",
]
