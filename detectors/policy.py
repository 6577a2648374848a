"""When an alert fires, is sent again and resolves: a table of states, stepped by stream-time minutes.

A condition must hold for some minutes before it fires unless it is urgent, a detection (an event) fires at once, and a
firing alert resolves after enough clean minutes or when a promotion resolves it. A condition that comes back within the
cooldown continues its episode; what fires too often within a while is flapping, and is not believed to be over until it
has been clean for longer. The same inputs give the same transitions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from detectors.episode import (
    BAD,
    MOVES,
    OPEN,
    SEVERITIES,
    Condition,
    Episode,
    IllegalMove,
    Move,
    Scalar,
    Severity,
    State,
    Transition,
    moved,
)
from detectors.identity import Identity, fingerprint
from detectors.snapshot import SnapshotError, decode, seal, unseal

__all__ = [
    "MOVES",
    "Condition",
    "Episode",
    "Identity",
    "IllegalMove",
    "Move",
    "Policy",
    "PolicySettings",
    "Scalar",
    "Severity",
    "State",
    "Transition",
    "fingerprint",
    "moved",
]

FORMAT = 2
EVIDENCE = "evidence"
"""The reason of an alert that is told again because more was found of what fires."""
BEGINNINGS = ("fired", "reopened", "flapping")
"""Reasons of what begins to fire."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """`for_minutes` by alertname: how long a condition holds before it fires; one that is not named fires at once.

    `cooldown_minutes`: a condition that begins to hold within them of its resolve goes on with that episode.
    `flap_episodes` firings within `flap_minutes` are flapping (0: never), which is over when as many minutes were clean
    as lie between two firings that are just not flapping.
    """

    for_minutes: Mapping[str, int] = field(default_factory=dict)
    resolve_after_clean_minutes: int = 15
    repeat_minutes: int = 240  # a firing alert is sent again that often; 0 is never
    cooldown_minutes: int = 0
    flap_episodes: int = 0
    flap_minutes: int = 240

    def __post_init__(self) -> None:
        for name, minutes in (
            *((f"for_minutes of {alertname}", minutes) for alertname, minutes in self.for_minutes.items()),
            ("resolve_after_clean_minutes", self.resolve_after_clean_minutes),
            ("repeat_minutes", self.repeat_minutes),
            ("cooldown_minutes", self.cooldown_minutes),
            ("flap_minutes", self.flap_minutes),
        ):
            if minutes < 0:
                raise ValueError(f"{name} is {minutes}: give 0 or more minutes")
        if self.flap_episodes == 1 or self.flap_episodes < 0:
            raise ValueError(f"flap_episodes is {self.flap_episodes}: give 0 for never, or 2 or more")

    def clean_minutes(self, state: State) -> int:
        """How many clean minutes in a row end an alert in this state."""
        if state is not State.FLAPPING or not self.flap_episodes:
            return self.resolve_after_clean_minutes
        return max(self.resolve_after_clean_minutes, self.flap_minutes // self.flap_episodes)


class Policy:
    """The alerts of any number of models."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._episodes: dict[Identity, Episode] = {}

    def episodes(self, model: str | None = None) -> list[Episode]:
        """What is pending, firing or flapping, of one model or of all, in the order of identities."""
        return [
            episode
            for identity, episode in sorted(self._episodes.items())
            if model in (None, identity.model) and episode.state in OPEN
        ]

    @property
    def held_back(self) -> bool:
        """Whether something fires that a silence has kept from being told."""
        return any(episode.state in BAD and episode.unsent for episode in self._episodes.values())

    def step(
        self, minute: int, conditions: Mapping[Identity, Condition], *, silenced: bool = False
    ) -> list[Transition]:
        """Judge a minute that is over; transitions come in the order of identities.

        An identity that is left out is unknown in this minute: it neither fires, is repeated nor heals. In a silence
        all moves on and only the end of what was told is told; the first minute behind it tells what still fires.
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
                episodes[identity], sent = _heard(known, *stepped, silenced=silenced)
                transitions.extend(sent)
        if not silenced:
            for identity, episode in episodes.items():
                if episode.state in BAD and episode.unsent:
                    at_s = max(minute * 60 + 60, episode.last_s)
                    episodes[identity], sent = _sent(replace(episode, unsent=""), at_s, episode.unsent)
                    transitions.extend(sent)
        self._episodes = episodes
        return sorted(transitions, key=lambda transition: transition.identity)

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
                given_up = _given_up(known)
                return None if given_up is None else (given_up, [])
            return self._healing(known, condition, at_s) if known.state in BAD else (known, [])
        if known is None or known.state is State.RESOLVED:
            known = replace(_begun(known, identity, condition, minute * 60), last_s=at_s, stepped_minute=minute)
        if known.state in BAD:
            return self._held(known, condition, at_s)
        held = minute - known.pending_at_s // 60
        if condition.at_once or held >= self._settings.for_minutes.get(condition.alertname, 0):
            return self._fired(known, condition, at_s, anew=False)
        return replace(known, condition=condition), []

    def _fired(
        self, known: Episode, condition: Condition, at_s: int, *, anew: bool
    ) -> tuple[Episode, list[Transition]]:
        """What was pending fires: as a new episode, or as the last one going on unless it must be `anew`."""
        rules = self._settings
        fired = (*(each for each in known.fired_at_s if each > at_s - rules.flap_minutes * 60), at_s)
        flaps = 0 < rules.flap_episodes <= len(fired)
        state = moved(known.state, Move.FLAP if flaps else Move.FIRE)
        since_end_s = known.pending_at_s - known.ended_at_s
        again = not anew and known.ended_at_s >= 0 and since_end_s < rules.cooldown_minutes * 60
        firing = replace(
            known,
            state=state,
            severity=max(known.severity, condition.severity, key=SEVERITIES.index) if again else condition.severity,
            condition=condition,
            clean=0,
            fired_at_s=fired[-max(1, rules.flap_episodes) :],
            started_at_s=known.started_at_s if again else max(known.pending_at_s, known.started_at_s + 1),
            sequence=known.sequence if again else 0,
            reopened=known.reopened + 1 if again and known.sequence else 0,
        )
        # An episode that a silence kept from being told has no sequence: to whoever listens it is new.
        return _sent(firing, at_s, "flapping" if flaps else "reopened" if again and known.sequence else "fired")

    def _held(
        self, episode: Episode, condition: Condition, at_s: int, *, news: bool = False
    ) -> tuple[Episode, list[Transition]]:
        """It fires, and the condition holds on; there may be `news` of it, which are not told of what flaps."""
        raised = max(episode.severity, condition.severity, key=SEVERITIES.index)
        rose = raised != episode.severity
        episode = replace(episode, severity=raised, condition=condition, clean=0)
        if rose:
            return _sent(episode, at_s, "severity")
        if news and episode.state is State.FIRING:
            return _sent(episode, at_s, EVIDENCE)
        return self._repeated(episode, at_s)

    def _healing(self, episode: Episode, condition: Condition, at_s: int) -> tuple[Episode, list[Transition]]:
        """It fires, and the minute was not bad."""
        episode = replace(episode, clean=episode.clean + 1 if condition.clean else 0)
        if condition.clean and episode.clean >= self._settings.clean_minutes(episode.state):
            return _resolved(episode, at_s, "clean", ended_at_s=at_s)
        return self._repeated(episode, at_s)

    def _repeated(self, episode: Episode, at_s: int) -> tuple[Episode, list[Transition]]:
        pause_s = self._settings.repeat_minutes * 60
        if pause_s and at_s - episode.sent_at_s >= pause_s:
            return _sent(episode, at_s, "repeat")
        return episode, []

    def signal(
        self, identity: Identity, at_s: int, condition: Condition, *, news: bool = False, silenced: bool = False
    ) -> list[Transition]:
        """An event, such as a detection at stream second `at_s`: fires at once, or adds to what fires already.

        What fires already is told again if the event raises its severity, or is `news` of another kind than what was
        told. It is new evidence, so it never goes on with an episode that was resolved. Raises IllegalMove, having
        changed nothing, for a second before what the identity has seen.
        """
        _check_name(identity, condition)
        before = known = self._episodes.get(identity)
        if not condition.active:
            raise IllegalMove(f"a signal of {identity.alertname} says that something happened: its condition is active")
        if known is not None and at_s < known.last_s:
            raise IllegalMove(f"{identity.alertname} of {identity.model} is past second {at_s} already")
        if known is not None:
            known = replace(known, last_s=at_s)
        if known is not None and known.state in BAD:
            episode, transitions = self._held(known, condition, at_s, news=news)
        else:
            if known is None or known.state is not State.PENDING:
                known = _begun(known, identity, condition, at_s)
            episode, transitions = self._fired(known, condition, at_s, anew=True)
        self._episodes[identity], heard = _heard(before, episode, transitions, silenced=silenced)
        return heard

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
            if target not in (identity, identity.model) or episode.state not in OPEN:
                continue
            if at_s < episode.last_s:
                raise IllegalMove(f"{identity.alertname} of {identity.model} is past second {at_s} already")
            if episode.state in BAD:
                ended, sent = _resolved(replace(episode, last_s=at_s), at_s, reason, ended_at_s=-1)
                ended, sent = _heard(episode, ended, sent, silenced=False)
                episodes[identity] = replace(ended, fired_at_s=())
                transitions.extend(sent)
            else:
                del episodes[identity]
                given_up = _given_up(episode)
                if given_up is not None:
                    episodes[identity] = replace(given_up, ended_at_s=-1, fired_at_s=())
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
        version, payload = unseal(sealed, FORMAT)
        episodes = decode(payload, list[Episode])
        if version == 1:
            episodes = [_of_format_1(episode) for episode in episodes]
        restored = {episode.identity: episode for episode in episodes}
        if len(restored) != len(episodes):
            raise SnapshotError("the snapshot has two episodes of one alert")
        self._episodes = restored


def _of_format_1(episode: Episode) -> Episode:
    """Format 1 knew neither cooldown nor flapping, and forgot the episode before a pending one."""
    if episode.state is not State.PENDING:
        return replace(episode, fired_at_s=(episode.started_at_s,))
    return replace(episode, pending_at_s=episode.started_at_s, started_at_s=episode.started_at_s - 1)


def _check_name(identity: Identity, condition: Condition) -> None:
    if identity.alertname != condition.alertname:
        raise IllegalMove(f"a condition of {condition.alertname} cannot move the alert {identity.alertname}")


def _begun(known: Episode | None, identity: Identity, condition: Condition, at_s: int) -> Episode:
    """Pending from `at_s` on; what is known of the episode before stays until this one fires."""
    if known is not None:
        state = moved(known.state, Move.ACTIVATE)
        return replace(known, state=state, condition=condition, pending_at_s=at_s, last_s=max(at_s, known.last_s))
    return Episode(
        identity=identity,
        state=moved(State.INACTIVE, Move.ACTIVATE),
        started_at_s=at_s - 1,  # of no episode: the one that begins may start at at_s
        severity=condition.severity,
        condition=condition,
        sequence=0,
        sent_at_s=at_s,
        clean=0,
        last_s=at_s,
        stepped_minute=-1,
        pending_at_s=at_s,
    )


def _given_up(episode: Episode) -> Episode | None:
    """What was pending and is no more; None if nothing needs to be remembered of it."""
    if episode.sequence == 0:
        moved(episode.state, Move.SUBSIDE)
        return None
    return replace(episode, state=moved(episode.state, Move.LAPSE), pending_at_s=-1)


def _heard(
    before: Episode | None, after: Episode, sent: list[Transition], *, silenced: bool
) -> tuple[Episode, list[Transition]]:
    """What is told of a move. In a silence that is only the end of what was told; what is held back takes no number."""
    due = before.unsent if before is not None and before.state in BAD else ""
    if not sent:
        return after, sent
    [transition] = sent
    resolved = transition.status == "resolved"
    if resolved and due not in BEGINNINGS:
        return replace(after, unsent=""), sent
    if not resolved and not silenced and not due:
        return after, sent
    held = "" if resolved else due or (transition.reason if transition.reason != "repeat" else "")
    if held == EVIDENCE and transition.reason == "severity":
        held = transition.reason  # which is worth a page, and the other is not
    sent_at_s = before.sent_at_s if before is not None else after.sent_at_s
    return replace(after, sequence=after.sequence - 1, sent_at_s=sent_at_s, unsent=held), []


def _resolved(episode: Episode, at_s: int, reason: str, *, ended_at_s: int) -> tuple[Episode, list[Transition]]:
    # A second of a flapping alert that is over is over for good: its next firing is the first.
    fired = () if episode.state is State.FLAPPING else episode.fired_at_s
    state = moved(episode.state, Move.RESOLVE)
    return _sent(replace(episode, state=state, ended_at_s=ended_at_s, fired_at_s=fired, pending_at_s=-1), at_s, reason)


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
        reopened=episode.reopened,
        flapping=episode.state is State.FLAPPING,
    )
    return episode, [transition]
