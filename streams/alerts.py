"""Alert events: what the policy decided, in the shape of Alertmanager and in words for an engineer at 3 a.m."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from detectors import incident as incidents
from detectors.four_rates import RATES
from detectors.pagers import ALL_OUTCOMES
from detectors.policy import EVIDENCE, Scalar, Transition
from streams import codec
from streams.events import ALERT_TYPE, Alert, Drift, Incident, IncidentMember, rfc3339

CONCEPT_DRIFT = "ConceptDriftDetected"
ACCURACY_DROPPED = "ModelAccuracyDropped"
OUTCOMES_MISSING = "OutcomesMissing"
OUTCOMES_SLOW = "OutcomesSlow"
OUTCOMES_ONE_SIDED = "OutcomesOneSided"
SOURCE = "driftline/monitor"
NEVER = "0001-01-01T00:00:00Z"
"""``endsAt`` of an alert that has not ended, as Alertmanager writes it."""
RUNBOOKS = "ops/runbooks.md"
DASHBOARD = "/d/driftline/model?var-model="
GRAPH = "/graph?g0.expr="
PROMOTED = "promoted"
FLAPPING = "flapping"
_METRICS = {"accuracy": "driftline_windowed_accuracy_ratio", "mae": "driftline_windowed_absolute_error"}


class Evidence(msgspec.Struct, frozen=True):
    """One detection, placed in the stream.

    ``outcomes_seen`` numbers the outcome that fired among the version's outcomes, from 1. ``change_offsets`` maps an
    input partition to the first outcome offset that may belong to the time after the estimated change.
    ``false_alarms_per_week`` is the detector's part of the model's budget, ``run_length`` the outcomes between false
    alarms that this means; both are None for a detector that runs beside those that page. ``stream``: ``errors``, or
    the rate that fell (1 − error): ``before``, ``after``, ``outcomes_since_change`` and ``run_length`` are of its own
    outcomes then. ``segment``: of its outcomes alone it was found, and they are what is counted; empty: of all.
    ``change_s`` is as likely too early as too late; ``train_from_s``, where retraining begins, is the split of least
    squares, which is later where errors are rare. ``by_hour``: each error was held against what its hour lets expect,
    and ``before`` and ``after`` are of an average hour.
    """

    detector: str
    statistic: float
    threshold: float
    metric: str
    before: float
    after: float
    change_s: int
    change_offsets: dict[int, int]
    detected_s: int
    detected_partition: int
    detected_offset: int
    outcomes_seen: int
    outcomes_since_change: int
    false_alarms_per_week: float | None = None
    run_length: float | None = None
    stream: str = ALL_OUTCOMES
    segment: str = ""
    by_hour: bool = False
    train_from_s: int | None = None

    @property
    def of_rate(self) -> bool:
        """Whether it is of one of the four rates."""
        return self.stream in RATES

    def as_json(self) -> dict[str, Any]:
        """The evidence with times in RFC 3339 and partitions as text, as JSON wants its keys."""
        fields = msgspec.structs.asdict(self)
        del fields["change_s"], fields["detected_s"], fields["train_from_s"]
        if not self.segment:
            del fields["segment"]
        if not self.by_hour:
            del fields["by_hour"]
        return {
            **fields,
            "change_offsets": {str(partition): offset for partition, offset in self.change_offsets.items()},
            "change_at": rfc3339(self.change_s * 1000),
            "detected_at": rfc3339(self.detected_s * 1000),
            **({} if self.train_from_s is None else {"train_from": rfc3339(self.train_from_s * 1000)}),
        }


@dataclass(frozen=True, slots=True)
class Raised:
    """A transition of the policy with what it is about: the champion then, and the detections of its episode."""

    transition: Transition
    version: str
    evidence: tuple[Evidence, ...] = ()
    incident: incidents.Incident | None = None


class EncodedAlert(msgspec.Struct, array_like=True, frozen=True):
    """An alert as Kafka takes it. ``ce_id`` among the headers is the same whenever the log is read again."""

    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes


def alert(raised: Raised) -> Alert:
    """The event of one transition."""
    transition = raised.transition
    identity = transition.identity
    name = identity.alertname
    summary, description = _TEXTS[name](raised)
    if transition.status == "resolved":
        summary, description = _resolved(raised), f"Nothing to do. It had been: {summary}"
    else:
        description = f"{_again(transition)}{description}"
    metric = _METRICS.get(_text(transition.condition.evidence, "metric"), _METRICS["accuracy"])
    expression = f"{metric}{{model={json.dumps(identity.model)}}}"
    return Alert(
        status=transition.status,
        labels={
            **identity.labels,
            "severity": transition.severity,
            **({"incident": raised.incident.id} if raised.incident else {}),
        },
        annotations={
            "summary": summary,
            "description": description,
            "runbook_url": f"{RUNBOOKS}#{name.lower()}",
            "dashboard_url": f"{DASHBOARD}{quote(identity.model, safe='')}",
            **({"reopened": str(transition.reopened)} if transition.reopened else {}),
            **({FLAPPING: "true"} if transition.flapping else {}),
            **_costs(transition.condition.evidence),
        },
        starts_at=rfc3339(transition.started_at_s * 1000),
        ends_at=rfc3339(transition.at_s * 1000) if transition.status == "resolved" else NEVER,
        generator_url=f"{GRAPH}{quote(expression, safe='')}",
        fingerprint=identity.fingerprint,
        drift=_drift(raised),
        sequence=transition.sequence,
        reason=transition.reason,
        incident=_incident(raised.incident),
    )


def _costs(facts: Mapping[str, Scalar]) -> dict[str, str]:
    """What the operator's price of an error makes of it, in that unit."""
    return {name: f"{_number(facts, name):.2f}" for name in ("cost_so_far", "cost_a_day") if name in facts}


def _incident(known: incidents.Incident | None) -> Incident | None:
    if known is None:
        return None
    members = [
        IncidentMember(
            alertname=each.alertname,
            fingerprint=each.fingerprint,
            starts_at=rfc3339(each.started_at_s * 1000),
            severity=each.severity,
            status="firing" if each.firing else "resolved",
            value=each.value,
            threshold=each.threshold,
            ends_at=None if each.firing else rfc3339(each.ended_at_s * 1000),
            segment=each.segment,
        )
        for each in known.members
    ]
    return Incident(known.id, rfc3339(known.started_at_s * 1000), known.severity, members)


def event_id(event: Alert) -> str:
    """Episode and number within it: what makes a repeated alert recognisable."""
    return f"{event.fingerprint}/{event.starts_at}/{event.sequence}"


def encode(event: Alert) -> EncodedAlert:
    """Key, CloudEvents headers and value for the topic ``alerts``."""
    detected = event.drift.detected_at if event.drift is not None else None
    at = event.ends_at if event.status == "resolved" else detected or event.starts_at
    headers = codec.headers(ALERT_TYPE, SOURCE, event_id(event), {"ce_time": at})
    return EncodedAlert(
        event.fingerprint.encode(), [(name, value or b"") for name, value in headers], codec.encode(event)
    )


def _drift(raised: Raised) -> Drift:
    condition = raised.transition.condition
    facts = condition.evidence
    if raised.evidence:
        first = raised.evidence[0].as_json()
        named = {field: first[field] for field in Drift.__struct_fields__ if field in first}
        return Drift(**named, version=raised.version, evidence=[found.as_json() for found in raised.evidence])
    minutes = facts.get("window_minutes")
    return Drift(
        detector="rule",
        statistic=condition.value,
        threshold=condition.threshold,
        metric=_text(facts, "metric") or None,
        detected_at=rfc3339(raised.transition.at_s * 1000),
        version=raised.version,
        window=f"{minutes}m" if minutes is not None else None,
        evidence=[dict(facts)],
    )


# ---------------------------------------------------------------------------------------------------------- wording


def _who(raised: Raised) -> str:
    identity = raised.transition.identity
    name = f"Segment {identity.segment} of model {identity.model}" if identity.segment else f"Model {identity.model}"
    return f"{name} (version {raised.version})" if raised.version else name


def _next_steps(raised: Raised) -> str:
    name = shlex.quote(raised.transition.identity.model)
    return (
        f"`driftline status` shows its windows and versions. If retraining is on for it, a challenger is trained now "
        f"and promoted only if it is better; `driftline models freeze {name}` stops promotions."
    )


def _again(transition: Transition) -> str:
    """What the engineer should know of the times before."""
    if transition.flapping:
        return "It flaps: it fires and ends again and again. Nothing more is sent until it has been quiet for long. "
    if transition.reopened:
        times = "once" if transition.reopened == 1 else f"{transition.reopened} times"
        return f"It was resolved and came back {times}, each time within minutes: the same episode goes on. "
    if transition.reason == EVIDENCE:
        return "It is told again because more of it has become worse than when it was told last. "
    return ""


def _concept_drift(raised: Raised) -> tuple[str, str]:
    since = rfc3339(raised.transition.started_at_s * 1000)
    if not raised.evidence:
        return f"{_who(raised)} has been wrong more often since {since}.", _next_steps(raised)
    first = raised.evidence[0]
    change = rfc3339(first.change_s * 1000)
    lost = _lost(first)
    for each in {each.stream: each for each in reversed(raised.evidence) if each.stream != first.stream}.values():
        lost += f"; {_lost(each)}, since {rfc3339(each.change_s * 1000)}"
    paged = "; ".join(_detection(each) for each in raised.evidence if each.run_length is not None)
    beside = "; ".join(_detection(each) for each in raised.evidence if each.run_length is None)
    how = "has become worse" if first.of_rate else "has been wrong more often"
    summary = f"{_who(raised)} {how} since about {change}: {lost}."
    certainty = f"Detected by {paged}. {_budget(raised.evidence)}" if paged else ""
    others = f"Beside it, {beside}." if beside else ""
    said = (
        "The relation between features and outcomes changed"
        + (" in this segment; outcomes of others were not counted." if first.segment else "."),
        certainty,
        others,
        _effect(raised) + _next_steps(raised),
    )
    return summary, " ".join(each for each in said if each)


def _lost(found: Evidence) -> str:
    """What became worse, from what to what."""
    hour = " (as in an average hour)" if found.by_hour else ""
    if found.metric == "mae":
        return f"its mean absolute error rose from {found.before:.4g} to {found.after:.4g}{hour}"
    if found.segment:
        return (
            f"its errors rose from {found.before:.1%} to {found.after:.1%}, "
            f"{100 * (found.after - found.before):.1f} points of accuracy lost"
        )
    what = "accuracy"
    if found.of_rate:
        rate = RATES[found.stream]
        what = f"{rate.title} ({rate.means})"
    return (
        f"its {what} fell from {1 - found.before:.1%} to {1 - found.after:.1%} "
        f"in {found.outcomes_since_change:,} {_outcomes(found)}, "
        f"{100 * (found.after - found.before):.1f} points lost{hour}"
    )


def _detection(found: Evidence) -> str:
    on = f" on {RATES[found.stream].title}" if found.of_rate else ""
    return (
        f"{found.detector}{on} at outcome {found.outcomes_seen} ({rfc3339(found.detected_s * 1000)}, partition "
        f"{found.detected_partition}, offset {found.detected_offset}), statistic {found.statistic:.4g} over "
        f"{found.threshold:.4g}, {found.outcomes_since_change} {_outcomes(found)} after the estimated change"
    )


def _outcomes(found: Evidence) -> str:
    """What a detection counts."""
    if found.segment:
        return "outcomes of the segment"
    return RATES[found.stream].outcomes if found.of_rate else "outcomes"


def _budget(evidence: Iterable[Evidence]) -> str:
    """How sure it is, as the operator stated it."""
    first = next(each for each in evidence if each.run_length is not None)
    whose = "segment" if first.segment else "model"
    return (
        f"While nothing changes, that happens once in {first.run_length:,.0f} {_outcomes(first)}, which at this "
        f"{whose}'s rate is {first.false_alarms_per_week:.3g} times a week."
    )


def _accuracy_dropped(raised: Raised) -> tuple[str, str]:
    facts = raised.transition.condition.evidence
    since = rfc3339(raised.transition.started_at_s * 1000)
    value, baseline = _number(facts, "value"), _number(facts, "baseline")
    window = f"over the last {facts.get('window_minutes')} minutes ({facts.get('n')} outcomes)"
    if _text(facts, "metric") == "mae":
        summary = (
            f"{_who(raised)} has a mean absolute error of {value:.4g} {window} since {since}, "
            f"{value / baseline if baseline else 0:.2f} times its baseline of {baseline:.4g}."
        )
        return summary, f"{_burning(facts, '{:.4g}')} {_effect(raised)}{_next_steps(raised)}"
    summary = (
        f"{_who(raised)} is right in only {value:.1%} of cases {window} since {since}: "
        f"{100 * (baseline - value):.1f} points below its baseline of {baseline:.1%}."
    )
    budget = _number(facts, "budget")
    if _text(facts, "rule") == "minimum":
        which = f"the minimum of {1 - budget:.1%}"
    else:
        which = f"{100 * (budget + baseline - 1):.1f} points below the baseline, {1 - budget:.1%}"
    return summary, f"The rule is {which}. {_burning(facts, '{:.1%}')} {_effect(raised)}{_next_steps(raised)}"


def _effect(raised: Raised) -> str:
    """What it costs, and what else of the model fires."""
    facts = raised.transition.condition.evidence
    text = ""
    if "extra_errors" in facts:
        unit = "of absolute error" if _text(facts, "metric") == "mae" else "wrong predictions"
        so_far, a_day = _number(facts, "extra_errors"), _number(facts, "extra_a_day")
        text = f"So far that is {so_far:,.0f} {unit} more than usual"
        if a_day:  # else no minute of the version is over: how many come in a day is not known
            text += f", {a_day:,.0f} more a day"
        if "cost_so_far" in facts:
            text += f"; it has cost {_number(facts, 'cost_so_far'):,.2f}"
            text += f", and {_number(facts, 'cost_a_day'):,.2f} a day" if a_day else ""
        text += ". "
    own = raised.transition.identity.fingerprint
    others = [each for each in (raised.incident.members if raised.incident else ()) if each.fingerprint != own]
    if others:
        told = ", ".join(_told_member(each) for each in others)
        text += f"The same incident has {told}. "
    return text


def _told_member(member: incidents.Member) -> str:
    of = f" of segment {member.segment}" if member.segment else ""
    return f"{member.alertname}{of} ({'firing' if member.firing else 'resolved'})"


def _burning(facts: Mapping[str, Scalar], budget: str) -> str:
    """How fast the budget is spent, and when it is gone."""
    rate, limit, period = _number(facts, "burn_rate"), _number(facts, "burn_limit"), _number(facts, "period_minutes")
    long, short = _number(facts, "window_minutes"), _number(facts, "short_minutes")
    allowed = budget.format(_number(facts, "budget"))
    if rate <= 0:  # no error at all is allowed
        return f"Its error budget is {allowed}."
    text = (
        f"Its error budget of {allowed} burns {rate:.2g} times too fast over {long:.0f} minutes and over the "
        f"last {short:.0f}; it pages at {limit:.2g}."
    )
    if rate <= 1:
        return text
    return f"{text} What {period:.0f} minutes may spend is gone in {period / rate:.0f}."


def _outcomes_missing(raised: Raised) -> tuple[str, str]:
    facts = raised.transition.condition.evidence
    waiting = rfc3339(int(_number(facts, "waiting_since_s")) * 1000)
    summary = (
        f"Model {raised.transition.identity.model} makes predictions, but none of its outcomes has arrived "
        f"since {waiting}: nobody can tell how good it is."
    )
    return summary, (
        "Look at whatever publishes to the topic `outcomes` (is it running, does it use the same prediction ids, and "
        "the murmur2 partitioner?). `driftline status` shows pending predictions, `driftline audit` what became of "
        "every record."
    )


def _outcomes_slow(raised: Raised) -> tuple[str, str]:
    facts = raised.transition.condition.evidence
    summary = (
        f"{_who(raised)} got outcomes for only {_number(facts, 'share'):.1%} of its predictions in the last hour; in "
        f"the worst of {_number(facts, 'hours'):.0f} hours before it got {_number(facts, 'usual'):.1%}."
    )
    return summary, (
        "Outcomes are late, or a kind of them does not come: what is known of its accuracy may be one-sided. "
        f"While that lasts {ACCURACY_DROPPED} is withheld: it neither fires nor resolves; detectors go on. "
        "Look at whatever publishes to the topic `outcomes`. `driftline status` shows what waits."
    )


def _outcomes_one_sided(raised: Raised) -> tuple[str, str]:
    facts = raised.transition.condition.evidence
    label, share, others = _text(facts, "predicted"), _number(facts, "share"), _number(facts, "others")
    if facts.get("mature"):
        seen = f"{share:.1%} of what it predicts as {label} get one, {others:.1%} of everything else"
    else:
        seen = f"those of what it predicts as {label} come at {share:.1%} of their rate, all others at {others:.1%}"
    model = raised.transition.identity.model
    summary = f"{_who(raised)} gets its outcomes from one side: {seen}."
    return summary, (
        "What is known of its accuracy is about those others. No verdict is given meanwhile: "
        f"{ACCURACY_DROPPED} and {CONCEPT_DRIFT} neither fire, repeat nor resolve, and what detectors find is dropped. "
        "It comes back by itself once both come alike. Look at whatever publishes to the topic `outcomes`: has a "
        "source of it stopped, or a filter been added? If it is meant to be so, accept it: "
        f"`outcomes_one_sided = 1` in [models.{model}]."
    )


def _resolved(raised: Raised) -> str:
    transition = raised.transition
    name = transition.identity.alertname
    start, end = (rfc3339(at * 1000) for at in (transition.started_at_s, transition.at_s))
    if transition.reason == PROMOTED:
        return f"Resolved: {_who(raised)} is champion no longer; its {name} of {start} ended at {end}."
    if name == OUTCOMES_SLOW:
        return f"Resolved: outcomes of model {transition.identity.model} come as they used to."
    if name == OUTCOMES_ONE_SIDED:
        return f"Resolved: outcomes of model {transition.identity.model} come for every predicted class alike."
    if name == OUTCOMES_MISSING:
        return f"Resolved: outcomes of model {transition.identity.model} arrive again, or its predictions stopped."
    return f"Resolved: {_who(raised)} has recovered; its {name} of {start} ended at {end}."


_TEXTS = {
    CONCEPT_DRIFT: _concept_drift,
    ACCURACY_DROPPED: _accuracy_dropped,
    OUTCOMES_MISSING: _outcomes_missing,
    OUTCOMES_SLOW: _outcomes_slow,
    OUTCOMES_ONE_SIDED: _outcomes_one_sided,
}


def _number(facts: Mapping[str, Scalar], name: str) -> float:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _text(facts: Mapping[str, Scalar], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""
