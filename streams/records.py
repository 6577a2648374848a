"""The records that Driftline writes for itself: takes and cuts, summaries, labelled pairs.

Cuts and takes are JSON, so that an operator can read the audit trail with any Kafka tool; summaries and labelled
pairs are MessagePack, because they carry one entry a pair.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.events import Value


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

    ``seconds``, ``offsets`` and ``errors`` have one entry a pair, sorted by (second, outcome offset): stream second of
    completion, the outcome's offset, and 0/1 (classification) or prediction − outcome (regression). ``cells`` count
    pairs by (minute of completion, minute of prediction, predicted, outcome); for a regression they are
    ``moments``: (minute of completion, minute of prediction, n, Σ|e|, Σe², Σe). ``predictions`` counts predictions by
    minute of arrival; ``delays`` counts pairs by label delay, in powers of two seconds.
    """

    version: str
    segment: str
    seconds: list[int]
    offsets: list[int]
    errors: bytes | list[float]
    cells: list[tuple[int, int, Value, Value, int]] = []
    moments: list[tuple[int, int, int, float, float, float]] = []
    corrections: list[Correction] = []
    predictions: dict[int, int] = {}
    delays: dict[int, int] = {}


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

    At least once: per prediction offset the highest outcome offset wins. ``model`` and ``version`` of a row index
    ``models`` and ``versions``; both offsets are in input partition ``partition``.
    """

    partition: int
    epoch: int
    sequence: int
    models: list[str]
    versions: list[str]
    rows: list[LabelledRow]


class MonitorCut(msgspec.Struct, tag="cut", tag_field="record", frozen=True):
    """One checkpoint of the monitor's state of one summaries partition.

    ``model_events`` is the catalog's position under which everything since the cut before took effect.
    """

    partition: int
    epoch: int
    sequence: int
    summaries: Range
    watermark_ms: int
    alert_sequence: int
    pairs: int
    model_events: int = 0


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
