"""What an alert is made of: its states and the table of their moves, conditions, episodes and transitions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from detectors.identity import Identity

Severity = Literal["info", "warning", "critical"]
Scalar = str | int | float | bool | None
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


class State(StrEnum):
    INACTIVE = "inactive"  # nothing is kept of it
    PENDING = "pending"
    FIRING = "firing"
    FLAPPING = "flapping"  # fires, and has ended too often lately to be believed when it ends
    RESOLVED = "resolved"


class Move(StrEnum):
    ACTIVATE = "activate"  # the condition holds
    FIRE = "fire"  # it held for long enough, or a detector said so: a new episode, or the last one again
    FLAP = "flap"  # the same, once too often
    SUBSIDE = "subside"  # it stopped before it fired, and never had
    LAPSE = "lapse"  # it stopped before it fired again
    RESOLVE = "resolve"  # clean for long enough, or a promotion


MOVES: Mapping[tuple[State, Move], State] = MappingProxyType(
    {
        (State.INACTIVE, Move.ACTIVATE): State.PENDING,
        (State.RESOLVED, Move.ACTIVATE): State.PENDING,
        (State.PENDING, Move.FIRE): State.FIRING,
        (State.PENDING, Move.FLAP): State.FLAPPING,
        (State.PENDING, Move.SUBSIDE): State.INACTIVE,
        (State.PENDING, Move.LAPSE): State.RESOLVED,
        (State.FIRING, Move.RESOLVE): State.RESOLVED,
        (State.FLAPPING, Move.RESOLVE): State.RESOLVED,
    }
)
OPEN = (State.PENDING, State.FIRING, State.FLAPPING)
BAD = (State.FIRING, State.FLAPPING)


class IllegalMove(ValueError):
    """The policy was asked for what its table does not have, or for a minute that is over. Nothing was changed."""


def moved(state: State, move: Move) -> State:
    """The table; raises IllegalMove for what is not in it."""
    target = MOVES.get((state, move))
    if target is None:
        raise IllegalMove(f"an alert that is {state} cannot {move}")
    return target


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured: whether it is bad, how bad, and the evidence, which goes into the alert as it is.

    `cleared` is hysteresis: a minute heals only where it is true; None takes every minute that is not `active`.
    `at_once`: it does not have to hold before it fires.
    """

    alertname: str
    active: bool
    severity: Severity
    value: float
    threshold: float
    evidence: Mapping[str, Scalar] = field(default_factory=dict)
    cleared: bool | None = None
    at_once: bool = False

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r} is none of {', '.join(SEVERITIES)}")
        if self.active and self.cleared:
            raise ValueError(f"{self.alertname} is active and cleared at once")
        numbers = [value for value in self.evidence.values() if isinstance(value, float)]
        if not all(map(math.isfinite, (self.value, self.threshold, *numbers))):
            raise ValueError(f"{self.alertname} carries a number that is not finite, which no JSON reader takes")

    @property
    def clean(self) -> bool:
        """Whether the minute heals."""
        return not self.active if self.cleared is None else self.cleared


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
    reason: str  # fired | reopened | flapping | severity | evidence | repeat | clean | what resolve() was told
    reopened: int = 0  # how often the episode was resolved and went on
    flapping: bool = False

    @property
    def episode_start_minute(self) -> int:
        return self.started_at_s // 60


@dataclass(frozen=True, slots=True)
class Episode:
    """Where one identity stands. `last_s` is the end of the time it has seen, `clean` its clean minutes in a row.

    While it is pending, `started_at_s`, `sequence` and `severity` are still those of the episode before, which goes on
    if this one fires within the cooldown. `ended_at_s` is when that was clean again, -1 if a promotion ended it.
    `fired_at_s` are the seconds of the last firings, which tell flapping. What a silence holds back is in `unsent`.
    """

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
    pending_at_s: int = -1
    ended_at_s: int = -1
    reopened: int = 0
    fired_at_s: tuple[int, ...] = ()
    unsent: str = ""  # the reason of what a silence holds back

    @property
    def since_s(self) -> int:
        """When what is pending or fires began to hold."""
        return self.pending_at_s if self.state is State.PENDING else self.started_at_s
