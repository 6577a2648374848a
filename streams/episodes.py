"""What the topic ``alerts`` says is open: the newest alert of each identity, as an episode to go on from. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from detectors.policy import Condition, Episode, Identity, Severity, State
from streams.alerts import CONCEPT_DRIFT, FLAPPING, Evidence
from streams.events import Alert


@dataclass(frozen=True, slots=True)
class Published:
    """The newest alert of one fingerprint, and the time of its record in s."""

    alert: Alert
    at_s: int

    @property
    def place(self) -> tuple[int, int]:
        """Start of the episode in s, number of the alert within it: they grow together."""
        return seconds(self.alert.starts_at), self.alert.sequence


class PublishedAlerts:
    """The newest alert of each fingerprint. Alerts up to it were published, or came to nothing."""

    def __init__(self) -> None:
        self._newest: dict[str, Published] = {}

    def add(self, alert: Alert, at_s: int) -> None:
        """Take in an alert of the topic, in any order."""
        found = Published(alert, at_s)
        known = self._newest.get(alert.fingerprint)
        if known is None or known.place < found.place:
            self._newest[alert.fingerprint] = found

    def includes(self, alert: Alert) -> bool:
        """Whether an alert, or a later one of its identity, has been published."""
        known = self._newest.get(alert.fingerprint)
        return known is not None and known.place >= (seconds(alert.starts_at), alert.sequence)

    def of_model(self, model: str) -> list[Published]:
        """Those of one model."""
        return [each for each in self._newest.values() if each.alert.labels["model"] == model]

    @property
    def models(self) -> set[str]:
        """The models that have any."""
        return {each.alert.labels["model"] for each in self._newest.values()}


def episode(published: Published, fed_s: int) -> Episode:
    """Where the policy stood behind an alert. ``fed_s``: every minute before it is judged."""
    alert = published.alert
    identity = Identity(
        alert.labels["alertname"],
        alert.labels["model"],
        alert.labels.get("segment", ""),
        alert.labels.get("feature", ""),
    )
    severity = cast(Severity, alert.labels["severity"])
    drift = alert.drift
    facts: dict[str, Any] = {}
    if drift is not None:
        facts = {"version": drift.version, "metric": drift.metric}
        if identity.alertname != CONCEPT_DRIFT and drift.evidence:
            facts = dict(drift.evidence[0])
    value = drift.statistic if drift is not None and drift.statistic is not None else 0.0
    threshold = drift.threshold if drift is not None and drift.threshold is not None else 0.0
    started_s, sequence = published.place
    return Episode(
        identity=identity,
        state=_state(alert),
        started_at_s=started_s,
        severity=severity,
        condition=Condition(identity.alertname, alert.status == "firing", severity, value, threshold, facts),
        sequence=sequence,
        sent_at_s=max(started_s, min(published.at_s, fed_s)),
        clean=0,
        last_s=min(fed_s, max(started_s, published.at_s)),
        stepped_minute=fed_s // 60 - 1,
        ended_at_s=seconds(alert.ends_at) if alert.reason == "clean" else -1,
        reopened=int(alert.annotations.get("reopened", "0")),
        # When it fired before is not in the newest alert: this counts as the first time.
        fired_at_s=(started_s,) if alert.status == "firing" else (),
    )


def _state(alert: Alert) -> State:
    if alert.status == "resolved":
        return State.RESOLVED
    return State.FLAPPING if FLAPPING in alert.annotations else State.FIRING


def incidents(published: Iterable[Published]) -> list[tuple[str, int]]:
    """Id and start (in s) of the incidents that what is open was published with."""
    known = {
        each.alert.incident.id: each.alert.incident
        for each in published
        if each.alert.incident is not None and each.alert.status == "firing"
    }
    return [(each.id, seconds(each.starts_at)) for each in known.values()]


def drift_evidence(published: Iterable[Published]) -> list[Evidence]:
    """The detections of the drifts that are open, of all outcomes and of segments; or none."""
    alerts = [each.alert for each in published]
    return [
        _evidence(found)
        for alert in alerts
        if alert.labels["alertname"] == CONCEPT_DRIFT and alert.status == "firing" and alert.drift is not None
        for found in alert.drift.evidence
    ]


def _evidence(found: dict[str, Any]) -> Evidence:
    fields = {name: found[name] for name in Evidence.__struct_fields__ if name in found}
    fields["change_offsets"] = {int(p): offset for p, offset in found["change_offsets"].items()}
    fields["change_s"], fields["detected_s"] = seconds(found["change_at"]), seconds(found["detected_at"])
    if "train_from" in found:
        fields["train_from_s"] = seconds(found["train_from"])
    return msgspec.convert(fields, Evidence)


def seconds(rfc3339: str) -> int:
    """Epoch seconds of a time as alerts write it."""
    return int(dt.datetime.fromisoformat(rfc3339).timestamp())
