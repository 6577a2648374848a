"""When an alert fires, is sent again and resolves: a table of states, stepped by stream-time minutes.

A condition must hold for some minutes before it fires, a detection (an event) fires at once, and a firing alert
resolves after enough clean minutes or when a promotion resolves it. The same inputs give the same transitions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from detectors.identity import Identity, fingerprint
from detectors.snapshot import SnapshotError, fields_of, seal

__all__ = [
    "Condition",
    "Episode",
    "Identity",
    "IllegalMove",
    "Policy",
    "PolicySettings",
    "State",
    "Transition",
    "fingerprint",
]

FORMAT = 1

Severity = Literal["info", "warning", "critical"]
Scalar = str | int | float | bool | None
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


class State(StrEnum):
    INACTIVE = "inactive"  # nothing is kept of it
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Move(StrEnum):
    ACTIVATE = "activate"  # the condition holds, a new episode begins
    FIRE = "fire"  # it held for long enough, or a detector said so
    SUBSIDE = "subside"  # it stopped before it fired
    RESOLVE = "resolve"  # clean for long enough, or a promotion


MOVES: Mapping[tuple[State, Move], State] = MappingProxyType(
    {
        (State.INACTIVE, Move.ACTIVATE): State.PENDING,
        (State.RESOLVED, Move.ACTIVATE): State.PENDING,
        (State.PENDING, Move.FIRE): State.FIRING,
        (State.PENDING, Move.SUBSIDE): State.INACTIVE,
        (State.FIRING, Move.RESOLVE): State.RESOLVED,
    }
)


class IllegalMove(ValueError):
    """The policy was asked for what its table does not have, or for a minute that is over. Nothing was changed."""


def moved(state: State, move: Move) -> State:
    """The table; raises IllegalMove for what is not in it."""
    target = MOVES.get((state, move))
    if target is None:
        raise IllegalMove(f"an alert that is {state} cannot {move}")
    return target


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """`for_minutes` by alertname: how long a condition holds before it fires; one that is not named fires at once."""

    for_minutes: Mapping[str, int] = field(default_factory=dict)
    resolve_after_clean_minutes: int = 15
    repeat_minutes: int = 240  # a firing alert is sent again that often; 0 is never

    def __post_init__(self) -> None:
        for name, minutes in (
            *((f"for_minutes of {alertname}", minutes) for alertname, minutes in self.for_minutes.items()),
            ("resolve_after_clean_minutes", self.resolve_after_clean_minutes),
            ("repeat_minutes", self.repeat_minutes),
        ):
            if minutes < 0:
                raise ValueError(f"{name} is {minutes}: give 0 or more minutes")


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured: whether it is bad, how bad, and the evidence, which goes into the alert as it is."""

    alertname: str
    active: bool
    severity: Severity
    value: float
    threshold: float
    evidence: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r} is none of {', '.join(SEVERITIES)}")
        numbers = [value for value in self.evidence.values() if isinstance(value, float)]
        if not all(map(math.isfinite, (self.value, self.threshold, *numbers))):
            raise ValueError(f"{self.alertname} carries a number that is not finite, which no JSON reader takes")


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert to publish. Fingerprint, `started_at_s` and `sequence` together are its id, which a replay repeats."""

    identity: Identity
    started_at_s: int  # of the episode: when the condition began to hold, in stream seconds
    at_s: int  # of this transition; a resolved alert's end
    status: Literal["firing", "resolved"]
    severity: Severity
    condition: Condition
    sequence: int  # within the episode, from 1
    reason: str  # fired | severity | repeat | clean | what resolve() was told

    @property
    def episode_start_minute(self) -> int:
        return self.started_at_s // 60


@dataclass(frozen=True, slots=True)
class Episode:
    """Where one identity stands. `last_s` is the end of the time it has seen, `clean` its clean minutes in a row."""

    identity: Identity
    state: State
    started_at_s: int
    severity: Severity
    condition: Condition
    sequence: int
    sent_at_s: int
    clean: int
    last_s: int
    stepped_minute: int


class Policy:
    """The alerts of any number of models."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._episodes: dict[Identity, Episode] = {}

    def episodes(self, model: str | None = None) -> list[Episode]:
        """What is pending or firing, of one model or of all, in the order of identities."""
        return [
            episode
            for identity, episode in sorted(self._episodes.items())
            if model in (None, identity.model) and episode.state in (State.PENDING, State.FIRING)
        ]

    def step(self, minute: int, conditions: Mapping[Identity, Condition]) -> list[Transition]:
        """Judge a minute that is over; transitions come in the order of identities.

        An identity that is left out is unknown in this minute: it neither fires, is repeated nor heals.
        Raises IllegalMove, having changed nothing, if one was stepped to this minute already.
        """
        episodes = dict(self._episodes)
        transitions: list[Transition] = []
        for identity, condition in sorted(conditions.items(), key=lambda item: item[0]):
            _check_name(identity, condition)
            known = episodes.get(identity)
            if known is not None and (minute <= known.stepped_minute or minute * 60 + 60 < known.last_s):
                raise IllegalMove(f"{identity.alertname} of {identity.model} is past minute {minute} already")
            stepped = self._stepped(known, identity, condition, minute)
            episodes.pop(identity, None)
            if stepped is not None:
                episodes[identity] = stepped[0]
                transitions.extend(stepped[1])
        self._episodes = episodes
        return transitions

    def _stepped(
        self, known: Episode | None, identity: Identity, condition: Condition, minute: int
    ) -> tuple[Episode, list[Transition]] | None:
        at_s = minute * 60 + 60  # a minute is judged when it is over
        if known is not None:
            known = replace(known, stepped_minute=minute, last_s=at_s)
        if not condition.active:
            if known is None:
                return None
            if known.state is State.PENDING:
                moved(known.state, Move.SUBSIDE)
                return None
            return self._healing(known, at_s) if known.state is State.FIRING else (known, [])
        if known is None or known.state is State.RESOLVED:
            known = replace(_begun(known, identity, condition, minute * 60), last_s=at_s, stepped_minute=minute)
        if known.state is State.FIRING:
            return self._held(known, condition, at_s)
        if minute - known.started_at_s // 60 >= self._settings.for_minutes.get(condition.alertname, 0):
            return _fired(known, condition, at_s)
        return replace(known, condition=condition), []

    def _held(self, episode: Episode, condition: Condition, at_s: int) -> tuple[Episode, list[Transition]]:
        """Firing, and the condition holds on."""
        raised = max(episode.severity, condition.severity, key=SEVERITIES.index)
        rose = raised != episode.severity
        episode = replace(episode, severity=raised, condition=condition, clean=0)
        if rose:
            return _sent(episode, at_s, "severity")
        return self._repeated(episode, at_s)

    def _healing(self, episode: Episode, at_s: int) -> tuple[Episode, list[Transition]]:
        """Firing, and the minute was clean."""
        episode = replace(episode, clean=episode.clean + 1)
        if episode.clean >= self._settings.resolve_after_clean_minutes:
            return _resolved(episode, at_s, "clean")
        return self._repeated(episode, at_s)

    def _repeated(self, episode: Episode, at_s: int) -> tuple[Episode, list[Transition]]:
        pause_s = self._settings.repeat_minutes * 60
        if pause_s and at_s - episode.sent_at_s >= pause_s:
            return _sent(episode, at_s, "repeat")
        return episode, []

    def signal(self, identity: Identity, at_s: int, condition: Condition) -> list[Transition]:
        """An event, such as a detection at stream second `at_s`: fires at once, or adds to what fires already.

        Raises IllegalMove, having changed nothing, for a second before what the identity has seen.
        """
        _check_name(identity, condition)
        known = self._episodes.get(identity)
        if not condition.active:
            raise IllegalMove(f"a signal of {identity.alertname} says that something happened: its condition is active")
        if known is not None and at_s < known.last_s:
            raise IllegalMove(f"{identity.alertname} of {identity.model} is past second {at_s} already")
        if known is not None:
            known = replace(known, last_s=at_s)
        if known is not None and known.state is State.FIRING:
            episode, transitions = self._held(known, condition, at_s)
        else:
            if known is None or known.state is not State.PENDING:
                known = _begun(known, identity, condition, at_s)
            episode, transitions = _fired(known, condition, at_s)
        self._episodes[identity] = episode
        return transitions

    def resolve(self, target: Identity | str, reason: str, at_s: int) -> list[Transition]:
        """Resolve one firing alert, or all of a model (given its name), whose pending ones are dropped too.

        Raises IllegalMove, having changed nothing, if the one alert is not firing or `at_s` is before what it has seen.
        """
        if isinstance(target, Identity):
            named = self._episodes.get(target)
            moved(named.state if named is not None else State.INACTIVE, Move.RESOLVE)
        episodes = dict(self._episodes)
        transitions: list[Transition] = []
        for identity, episode in sorted(self._episodes.items()):
            if target not in (identity, identity.model) or episode.state not in (State.PENDING, State.FIRING):
                continue
            if at_s < episode.last_s:
                raise IllegalMove(f"{identity.alertname} of {identity.model} is past second {at_s} already")
            if episode.state is State.FIRING:
                episodes[identity], sent = _resolved(replace(episode, last_s=at_s), at_s, reason)
                transitions.extend(sent)
            else:
                moved(episode.state, Move.SUBSIDE)
                del episodes[identity]
        self._episodes = episodes
        return transitions

    def adopt(self, episodes: Iterable[Episode]) -> None:
        """Take these for what has been published: they replace all that fires or is resolved; what is pending stays."""
        pending = {i: each for i, each in self._episodes.items() if each.state is State.PENDING}
        self._episodes = pending | {episode.identity: episode for episode in episodes}

    def snapshot(self) -> bytes:
        return seal(FORMAT, [episode for _, episode in sorted(self._episodes.items())])

    def restore(self, sealed: bytes) -> None:
        """Take over the episodes, under one's own settings; raises SnapshotError, having changed nothing."""
        episodes = fields_of(sealed, FORMAT, list[Episode])
        restored = {episode.identity: episode for episode in episodes}
        if len(restored) != len(episodes):
            raise SnapshotError("the snapshot has two episodes of one alert")
        self._episodes = restored


def _check_name(identity: Identity, condition: Condition) -> None:
    if identity.alertname != condition.alertname:
        raise IllegalMove(f"a condition of {condition.alertname} cannot move the alert {identity.alertname}")


def _begun(known: Episode | None, identity: Identity, condition: Condition, at_s: int) -> Episode:
    """A new episode, pending. Episode keys must differ, so it starts after the previous one did."""
    state = known.state if known is not None else State.INACTIVE
    return Episode(
        identity=identity,
        state=moved(state, Move.ACTIVATE),
        started_at_s=at_s if known is None else max(at_s, known.started_at_s + 1),
        severity=condition.severity,
        condition=condition,
        sequence=0,
        sent_at_s=at_s,
        clean=0,
        last_s=at_s if known is None else max(at_s, known.last_s),
        stepped_minute=-1 if known is None else known.stepped_minute,
    )


def _fired(episode: Episode, condition: Condition, at_s: int) -> tuple[Episode, list[Transition]]:
    firing = replace(
        episode, state=moved(episode.state, Move.FIRE), severity=condition.severity, condition=condition, clean=0
    )
    return _sent(firing, at_s, "fired")


def _resolved(episode: Episode, at_s: int, reason: str) -> tuple[Episode, list[Transition]]:
    return _sent(replace(episode, state=moved(episode.state, Move.RESOLVE)), at_s, reason)


def _sent(episode: Episode, at_s: int, reason: str) -> tuple[Episode, list[Transition]]:
    at_s = max(at_s, episode.started_at_s)  # nothing ends before it starts
    episode = replace(episode, sequence=episode.sequence + 1, sent_at_s=at_s)
    transition = Transition(
        identity=episode.identity,
        started_at_s=episode.started_at_s,
        at_s=at_s,
        status="resolved" if episode.state is State.RESOLVED else "firing",
        severity=episode.severity,
        condition=episode.condition,
        sequence=episode.sequence,
        reason=reason,
    )
    return episode, [transition]
