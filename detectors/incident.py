"""One incident for everything that fires of one model at a time: who is part of it, and what of it is news.

An incident begins with the first alert that fires and ends when none does. An alert that joins it, or becomes as severe
as it is already, is no news to whoever was paged. Its id is made of the model and of its start, so a replay repeats it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from detectors.episode import SEVERITIES, Episode, Severity, Transition
from detectors.identity import fingerprint

JOINED = "joined"
NEWS = ("fired", "reopened", "severity")
"""Reasons of the policy that an incident may turn into `joined`."""


@dataclass(frozen=True, slots=True)
class Member:
    """One alert of an incident, as it was told last."""

    alertname: str
    fingerprint: str
    started_at_s: int
    severity: Severity
    firing: bool
    value: float
    threshold: float
    ended_at_s: int = -1
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident of a model: when it began, how severe it became, and its alerts in the order in which they fired."""

    id: str
    started_at_s: int
    severity: Severity
    members: tuple[Member, ...]

    @property
    def over(self) -> bool:
        """Whether none of its alerts fires any more."""
        return not any(member.firing for member in self.members)


def incident_id(model: str, started_at_s: int) -> str:
    """16 hexadecimal digits."""
    return fingerprint({"incident": str(started_at_s), "model": model})


def told(incident: Incident | None, transition: Transition) -> tuple[Incident, Transition]:
    """The incident behind a transition, and the transition as the incident makes it: news, or `joined`."""
    model = transition.identity.model
    ended = -1 if transition.status == "firing" else transition.at_s
    condition = transition.condition
    member = Member(
        transition.identity.alertname,
        transition.identity.fingerprint,
        transition.started_at_s,
        transition.severity,
        transition.status == "firing",
        condition.value,
        condition.threshold,
        ended,
        transition.identity.segment,
    )
    goes_on = incident is not None and (
        not incident.over or (transition.sequence > 1 and member.fingerprint in _keys(incident.members))
    )
    if incident is None or not goes_on:
        start = transition.started_at_s if incident is None else max(member.started_at_s, incident.started_at_s + 1)
        return Incident(incident_id(model, start), start, transition.severity, (member,)), transition
    others = any(each.firing for each in incident.members if each.fingerprint != member.fingerprint)
    worse = SEVERITIES.index(transition.severity) > SEVERITIES.index(incident.severity)
    if transition.reason in NEWS and worse:
        transition = replace(transition, reason="severity")
    elif transition.reason in NEWS and (others or transition.reason != "reopened"):
        transition = replace(transition, reason=JOINED)
    members = _placed(incident.members, member)
    return replace(incident, severity=transition.severity if worse else incident.severity, members=members), transition


def adopted(model: str, incident_ids: Iterable[tuple[str, int]], episodes: Iterable[Episode]) -> Incident | None:
    """The incident of what fires, from the newest ids and starts that were published with it; None if nothing does."""
    firing = sorted((each for each in episodes if each.state.value in ("firing", "flapping")), key=lambda e: e.since_s)
    if not firing:
        return None
    identity, start = min(incident_ids, key=lambda each: each[1], default=("", firing[0].started_at_s))
    members = tuple(
        Member(
            each.identity.alertname,
            each.identity.fingerprint,
            each.started_at_s,
            each.severity,
            True,
            each.condition.value,
            each.condition.threshold,
            segment=each.identity.segment,
        )
        for each in firing
    )
    worst = max((each.severity for each in firing), key=SEVERITIES.index)
    return Incident(identity or incident_id(model, start), start, worst, members)


def _keys(members: Iterable[Member]) -> set[str]:
    return {member.fingerprint for member in members}


def _placed(members: tuple[Member, ...], member: Member) -> tuple[Member, ...]:
    if member.fingerprint not in _keys(members):
        return (*members, member)
    return tuple(member if each.fingerprint == member.fingerprint else each for each in members)
