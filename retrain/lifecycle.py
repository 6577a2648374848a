"""A retrain run as a table of transitions: an illegal move raises and changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

RunState = Literal[
    "triggered",
    "collecting",
    "training",
    "exporting",
    "verifying",
    "shadowing",
    "awaiting_approval",
    "recommended",
    "promoted",
    "rejected",
    "watching",
    "confirmed",
    "rolled_back",
    "released",
]

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    "triggered": frozenset({"collecting", "rejected"}),
    "collecting": frozenset({"training", "rejected"}),
    # Back to collecting: a restart after a crash (nothing of these steps outlives the process), or from verifying
    # a challenger that has not won yet, for which more rows are awaited.
    "training": frozenset({"exporting", "collecting", "rejected"}),
    "exporting": frozenset({"verifying", "collecting", "rejected"}),
    "verifying": frozenset({"shadowing", "awaiting_approval", "recommended", "promoted", "collecting", "rejected"}),
    # Back to verifying once its live answers were better: what follows is up to the mode, as without a shadow.
    # Promoted from here by a person who did not wait.
    "shadowing": frozenset({"verifying", "promoted", "rejected"}),
    "awaiting_approval": frozenset({"promoted", "rejected"}),
    # Over unless a person approves it.
    "recommended": frozenset({"promoted"}),
    "rejected": frozenset(),
    "promoted": frozenset({"watching"}),
    "watching": frozenset({"confirmed", "rolled_back", "released"}),
    "confirmed": frozenset(),
    "rolled_back": frozenset(),
    "released": frozenset(),
}
"""``released`` ends a probation without a verdict: another version took over, too few rows came, or the loop may not
act. The reason says which."""

PROBATION: frozenset[RunState] = frozenset({"promoted", "watching"})
PROMOTED: frozenset[RunState] = frozenset({"promoted", "watching", "confirmed", "rolled_back", "released"})

TriggerKind = Literal["alert", "labels", "schedule", "command"]
UNASKED: frozenset[TriggerKind] = frozenset({"labels", "schedule"})
"""Runs that begin because time has passed: one that comes to nothing is no news."""

FORMAT = 1


class IllegalMove(Exception):
    """A run was asked to take a step that does not follow its state. A bug: nothing was changed."""


class Run(msgspec.Struct, frozen=True):
    """One run. ``episode`` is its identity: the alert's fingerprint and start, or what stands for them otherwise.

    ``kind`` is what started it; ``alertname`` is empty unless that was an alert. ``by`` is the person (user@host) who
    asked for it, and ``why`` their reason; None for what nobody asked for.
    ``champion`` is the version that the alert spoke of; ``version`` the challenger's once it is reserved;
    ``since_ms`` the estimated change point in stream time; ``attempts`` how often training was begun
    without an answer; ``rounds`` how many contests nobody won, ``trainings`` in how many of them something was trained,
    and ``tested_rows`` the new rows of the last of them. It was at work from ``begun_ms`` on, and waited before.
    ``metrics``, ``parity``, ``trained_from`` and ``better`` are known once the challenger is in the repository;
    ``offered`` says that it was made the challenger and that everybody was told, ``stopgap`` that it won and is far
    from what the champion once achieved.

    A live shadow began at ``shadow_ms``; ``shadowed`` says that its answers were better, and ``shadow_evidence`` what
    the comparison said when it was last persisted, that it is better and that it is worse.

    After the promotion, at ``promoted_ms``, which a person made if it is ``approved``: ``shadows`` are the versions
    that could have served instead, ``probation`` what the comparison with them said when it was last persisted,
    ``back_to`` the version to roll back to once that is decided, and ``worse_since_ms`` since when, in stream time, the
    promoted one did worse if it had done better before, or has collapsed; ``worse_seen_ms`` is the stream time of the
    newest row that decided for the way back.
    ``step`` counts what was persisted of the run: of two processes that persist the same step one succeeds.
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
    trainings: int = 0
    tested_rows: int = 0
    begun_ms: int | None = None
    better: bool | None = None
    offered: bool = False
    stopgap: bool = False
    verdict: str | None = None
    metrics: dict[str, float] = {}
    parity: dict[str, Any] = {}
    trained_from: dict[str, Any] = {}
    reason: str | None = None
    shadow_ms: int | None = None
    shadowed: bool = False
    shadow_evidence: dict[str, Any] = {}
    promoted_ms: int | None = None
    approved: bool = False
    shadows: list[str] = []
    probation: dict[str, Any] = {}
    back_to: str | None = None
    worse_since_ms: int | None = None
    worse_seen_ms: int | None = None
    step: int = 0
    kind: TriggerKind = "alert"
    by: str | None = None
    why: str | None = None
    format: int = FORMAT

    @property
    def took_back(self) -> bool:
        """Whether its winner is a version of the archive, which its rows had no part in."""
        return bool(self.better) and "trained_on" not in self.trained_from

    @property
    def known_rows(self) -> int:
        """The labelled rows of its last contest, old and new; 0 before."""
        return int(self.trained_from.get("rows", 0))

    @property
    def seen_ms(self) -> int:
        """The stream time of the newest row that its version was made of, or chosen by."""
        known = self.trained_from.get("to_ms")
        return int(known) if known is not None else self.promoted_ms or self.shadow_ms or self.updated_ms

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen, unless a person approves what was recommended."""
        return self.state == "recommended" or not TRANSITIONS[self.state]

    @property
    def on_probation(self) -> bool:
        """Whether its version was promoted and is watched, or will be. It holds up no other run."""
        return self.state in PROBATION

    @property
    def at_work(self) -> bool:
        """Whether it is on its way to a promotion or a rejection: one a model at a time."""
        return not self.ended and not self.on_probation

    @property
    def idle(self) -> bool:
        """Whether it was a look that nobody asked for, and nothing came of it."""
        return self.kind in UNASKED and self.state == "rejected"

    @property
    def cause(self) -> str:
        """What started it, in words."""
        return self.alertname or {"labels": "new labels", "schedule": "the schedule"}.get(self.kind, "a command")

    @property
    def trigger(self) -> dict[str, str]:
        """What led to it, as model events and manifests carry it."""
        named = {"fingerprint": self.fingerprint, "startsAt": self.starts_at}
        return {**named, "alertname": self.alertname} if self.kind == "alert" else {**named, "kind": self.kind}


def promotions(runs: Iterable[Run]) -> dict[str, Run]:
    """Version → the run that promoted it last."""
    ordered = sorted(runs, key=lambda run: run.promoted_ms or 0)
    return {str(run.version): run for run in ordered if run.promoted_ms is not None}


def changed_since(run: Run, runs: Iterable[Run]) -> bool:
    """Whether an alert's run waits for this one that knows of a change behind all of its rows."""
    others = (r for r in runs if r.at_work and r.kind == "alert" and r.episode != run.episode)
    return any((other.since_ms or 0) > run.seen_ms for other in others)


def unbeaten_since_ms(runs: Iterable[Run], since_ms: int) -> int:
    """Since when (epoch ms) every run that ended was idle.

    From the last promotion, rollback or other run that was asked for on; from ``since_ms`` on if there was none.
    """
    return max((_happened_ms(run) for run in runs if not run.idle and not run.at_work), default=since_ms)


def looks_in_vain(runs: Sequence[Run]) -> int:
    """How many idle runs since then held a contest that nobody won."""
    began_ms = unbeaten_since_ms(runs, 0)
    idle = [run for run in runs if run.idle and run.triggered_ms >= began_ms]
    return sum(run.verdict is not None and not run.better for run in idle)


def _happened_ms(run: Run) -> int:
    """When a run that was more than a look last changed who serves, or else ended."""
    promoted_ms = None if run.state == "rolled_back" else run.promoted_ms
    return run.updated_ms if promoted_ms is None else promoted_ms


def episode_key(fingerprint: str, starts_at: str) -> str:
    """The name of an episode: safe as a file name, and the same for every sending of the alert."""
    digest = hashlib.sha256(f"{fingerprint}\n{starts_at}".encode()).hexdigest()[:16]
    readable = "".join(c for c in fingerprint if c.isalnum() or c in "-_")[:32]
    return f"{readable}-{digest}" if readable else digest


def move(run: Run, state: RunState, now_ms: int, **known: Any) -> Run:
    """The run after a step; ``known`` are fields learnt by it. Raises :class:`IllegalMove`."""
    if state not in TRANSITIONS[run.state]:
        raise IllegalMove(f"a run of {run.model} cannot go from {run.state} to {state}")
    stamp = {"promoted": "promoted_ms", "shadowing": "shadow_ms"}.get(state)
    if stamp is not None:
        known = {stamp: now_ms, **known}
    return msgspec.structs.replace(run, state=state, updated_ms=now_ms, step=run.step + 1, **known)
