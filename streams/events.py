"""The events that producers, Driftline and on-call engineers exchange, as validated structs.

Shapes follow CloudEvents' ``data`` member. Times are RFC 3339 strings with an offset, or epoch milliseconds. Ids are
strings, because JSON parsers turn large integers into floats.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec

PREDICTION_TYPE = "driftline.prediction.v1"
OUTCOME_TYPE = "driftline.outcome.v1"
ALERT_TYPE = "driftline.alert.v1"
MODEL_EVENT_TYPE = "driftline.model.{what}.v1"

Time = Annotated[dt.datetime, msgspec.Meta(tz=True)] | int
ClassName = Annotated[str, msgspec.Meta(max_length=512)]
"""Bounded: a summary carries pairs of them, and must fit a record."""
Label = bool | int | ClassName
"""A class. ``true``, ``1`` and ``1.0`` are the same class; ``"1"`` is another."""
Value = bool | int | float | ClassName
"""A prediction or an outcome: a class, or a number for regression."""
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Segment = Annotated[str, msgspec.Meta(max_length=200)]

Task = Literal["binary", "multiclass", "classification", "regression"]
"""``classification`` is a model that nobody declared: its classes are those that appear."""
Mode = Literal["observe", "recommend", "approve", "auto"]
ModelEventKind = Literal["registered", "candidate", "promoted", "rejected", "rolledback", "silenced"]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
MAX_MAGNITUDE = 1e15
"""Numbers beyond it are refused: their squares still fit a float, and no real target is larger."""

MAX_VALUE_BYTES = 9_500_000
"""Larger values are refused unread: they do not fit the dead-letter topic with headers."""


class Prediction(msgspec.Struct, gc=False):
    """What a model said: the fields that the join needs (``features`` and ``probabilities`` are skipped unread).

    ``score`` is the probability of the positive class (binary) or of the predicted class (multiclass), in [0, 1].
    """

    prediction_id: Id
    model: Name
    version: Name | int
    prediction: Value
    predicted_at: Time | None = None
    score: float | None = None
    segment: Segment | None = None


class ShadowAnswer(msgspec.Struct, gc=False, omit_defaults=True):
    """What a version that does not serve said to the same row. ``prediction`` and ``score`` are as in the event."""

    version: Name | int
    prediction: Value
    score: float | None = None


class FullPrediction(Prediction, gc=False):
    """A prediction with everything that training needs.

    ``shadow`` is written by `driftline serve` while a challenger is compared live; whoever joins does not read it.
    """

    probabilities: list[float] | dict[str, float] | None = None
    features: dict[str, float | int | str | bool | None] | list[float | None] | None = None
    shadow: ShadowAnswer | msgspec.UnsetType | None = msgspec.UNSET


class Outcome(msgspec.Struct, gc=False):
    """What turned out to be true of a prediction, hours to months later."""

    prediction_id: Id
    outcome: Value
    observed_at: Time | None = None
    model: Name | None = None
    source: Literal["system", "human"] | None = None
    weight: float | None = None


class Drift(msgspec.Struct, omit_defaults=True):
    """The evidence of an alert.

    ``change_at`` is the estimated change point in stream time (RFC 3339), as likely too early as too late, and
    ``train_from`` where retraining begins, which is later where errors are rare; ``change_offsets`` maps an input
    partition to the outcome offset there; ``before`` and ``after`` are mean errors (share of wrong predictions, or mean
    absolute error) on either side of it; ``outcomes_since_change`` counts the outcomes after it.
    """

    detector: str
    statistic: float | None = None
    threshold: float | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    change_at: str | None = None
    change_offsets: dict[str, int] = {}
    detected_at: str | None = None
    detected_partition: int | None = None
    detected_offset: int | None = None
    outcomes_seen: int | None = None
    outcomes_since_change: int | None = None
    train_from: str | None = None
    version: str | None = None
    window: str | None = None
    evidence: list[dict[str, Any]] = []


class IncidentMember(msgspec.Struct, omit_defaults=True):
    """One alert of an incident as it was told last: ``value`` against ``threshold`` is its rule's or its detector's."""

    alertname: str
    fingerprint: str
    starts_at: str
    severity: str
    status: Literal["firing", "resolved"]
    value: float
    threshold: float
    ends_at: str | None = None
    segment: str = ""


class Incident(msgspec.Struct):
    """Everything of one model that fires at a time: what several detectors and rules see is one incident, and one page.

    ``id`` is also the alert's label ``incident``.
    """

    id: str
    starts_at: str
    severity: str
    alerts: list[IncidentMember]


class Alert(msgspec.Struct, rename={"starts_at": "startsAt", "ends_at": "endsAt", "generator_url": "generatorURL"}):
    """One alert in the shape of Alertmanager's webhook payload, with the evidence beside it.

    ``labels`` always hold ``alertname`` and ``model``; an episode is ``fingerprint`` and ``starts_at``. ``reason`` says
    why the alert is sent: ``fired``, ``reopened`` (the resolved episode goes on), ``flapping``, ``severity`` (it rose),
    ``joined`` (an incident that was told), ``evidence`` (more of it became worse: all is inside), ``repeat``, ``clean``
    or ``promoted`` (both resolve it). Page on ``fired`` and ``severity``; the others wake nobody.
    """

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    ends_at: str
    generator_url: str
    fingerprint: str
    drift: Drift | None = None
    sequence: int = 0
    reason: str = ""
    incident: Incident | None = None


class Baseline(msgspec.Struct, omit_defaults=True):
    """What a version achieves when nothing is wrong: measured on rows that it was not trained on.

    ``metric`` is ``accuracy`` (a ratio) or ``mae`` (units of the target).
    """

    metric: Literal["accuracy", "mae"]
    value: float
    n: int
    standard_error: float = 0.0


class Profile(msgspec.Struct, omit_defaults=True):
    """Where a version's reference profile is, and its hash."""

    uri: str
    sha256: str


class ModelState(msgspec.Struct, omit_defaults=True):
    """Everything that a reader must know of a model, complete in each model event.

    ``aliases`` map ``champion``, ``challenger``, ``shadow`` (the challenger while it is compared live) and
    ``previous`` to a version. ``revision`` grows by one with each
    change in the model repository; 0 is a model that is only monitored. ``barred`` are the versions that a person has
    rolled back or rejected: the loop proposes none of them again.
    """

    model: str
    revision: int
    task: Task
    classes: list[Label] | None = None
    positive: Label | None = None
    aliases: dict[str, str] = {}
    baselines: dict[str, Baseline] = {}
    profiles: dict[str, Profile] = {}
    mode: Mode = "auto"
    frozen: bool = False
    max_promotions_per_week: int | None = None
    barred: list[str] = []


class Silence(msgspec.Struct, omit_defaults=True, frozen=True):
    """No alert of a model is told between two times, in stream time; they are tracked, and told behind it.

    The newest silence of a model in the log replaces the one before. ``by`` says who asked for it.
    """

    starts_at: str
    ends_at: str
    reason: str
    by: str = ""


class ModelEvent(msgspec.Struct, omit_defaults=True):
    """Something happened to a model: what, why, and the model's whole state after it.

    ``kind`` is also in the CloudEvents type. A ``silenced`` event has the ``silence``, and nothing new in the state:
    its revision is that of the event before. ``trigger`` is the alert's fingerprint and start, where one led here.
    ``by`` is the person (user@host) or the process that did it, ``reason`` why.
    """

    kind: ModelEventKind
    state: ModelState
    version: str | None = None
    alias: str | None = None
    uri: str | None = None
    sha256: str | None = None
    metrics: dict[str, float] = {}
    parity: dict[str, Any] = {}
    trained_from: dict[str, Any] = {}
    trigger: dict[str, str] = {}
    reason: str | None = None
    at: str | None = None
    by: str | None = None
    silence: Silence | None = None
    detail: str | None = None
    """What changed, when ``kind`` alone does not say it: ``mode``, ``freeze``, ``recommended``, ``awaiting-approval``.
    """


def milliseconds(at: dt.datetime | int) -> int:
    """Epoch milliseconds of an event's time."""
    if isinstance(at, int):
        return at
    return round(at.timestamp() * 1000)


def rfc3339(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC with milliseconds."""
    at = EPOCH + dt.timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
