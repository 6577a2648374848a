"""A retrain run as a table of transitions: an illegal move raises and changes nothing."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

RunState = Literal[
    "triggered",
    "collecting",
    "training",
    "exporting",
    "verifying",
    "awaiting_approval",
    "recommended",
    "promoted",
    "rejected",
]

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    "triggered": frozenset({"collecting", "rejected"}),
    "collecting": frozenset({"training", "rejected"}),
    # Back to collecting: a restart after a crash (nothing of these steps outlives the process), or from verifying
    # a challenger that has not won yet, for which more rows are awaited.
    "training": frozenset({"exporting", "collecting", "rejected"}),
    "exporting": frozenset({"verifying", "collecting", "rejected"}),
    "verifying": frozenset({"awaiting_approval", "recommended", "promoted", "collecting", "rejected"}),
    "awaiting_approval": frozenset({"promoted", "rejected"}),
    "recommended": frozenset(),
    "promoted": frozenset(),
    "rejected": frozenset(),
}
"""Probation (watching → confirmed | rolled back) will follow ``promoted``."""

FORMAT = 1


class IllegalMove(Exception):
    """A run was asked to take a step that does not follow its state. A bug: nothing was changed."""


class Run(msgspec.Struct, frozen=True):
    """One run. ``episode`` is its identity: the alert's fingerprint and start.

    ``champion`` is the version that the alert spoke of; ``version`` the challenger's once it is reserved;
    ``since_ms`` the estimated change point in stream time; ``attempts`` how often training was begun
    without an answer; ``rounds`` how many challengers did not win, and ``tested_rows`` the rows of the last of them.
    ``metrics``, ``parity``, ``trained_from`` and ``better`` are known once the challenger is in the repository.
    """

    episode: str
    model: str
    fingerprint: str
    starts_at: str
    alertname: str
    state: RunState
    champion: str
    triggered_ms: int
    updated_ms: int
    since_ms: int | None = None
    version: int | None = None
    attempts: int = 0
    rounds: int = 0
    tested_rows: int = 0
    better: bool | None = None
    verdict: str | None = None
    metrics: dict[str, float] = {}
    parity: dict[str, Any] = {}
    trained_from: dict[str, Any] = {}
    reason: str | None = None
    format: int = FORMAT

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return not TRANSITIONS[self.state]

    @property
    def trigger(self) -> dict[str, str]:
        """What led to it, as model events and manifests carry it."""
        return {"fingerprint": self.fingerprint, "startsAt": self.starts_at, "alertname": self.alertname}


def episode_key(fingerprint: str, starts_at: str) -> str:
    """The name of an episode: safe as a file name, and the same for every sending of the alert."""
    digest = hashlib.sha256(f"{fingerprint}\n{starts_at}".encode()).hexdigest()[:16]
    readable = "".join(c for c in fingerprint if c.isalnum() or c in "-_")[:32]
    return f"{readable}-{digest}" if readable else digest


def move(run: Run, state: RunState, now_ms: int, **known: Any) -> Run:
    """The run after a step; ``known`` are fields learnt by it. Raises :class:`IllegalMove`."""
    if state not in TRANSITIONS[run.state]:
        raise IllegalMove(f"a run of {run.model} cannot go from {run.state} to {state}")
    return msgspec.structs.replace(run, state=state, updated_ms=now_ms, **known)
