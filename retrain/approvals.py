"""Who made a version the champion, when and why: what a manifest, written before anybody could say so, cannot hold.
And what an approval goes by: a comparison, which ages.

A manifest never changes: model events carry its hash, and a version is known by it. So the approvals are read from the
states, each of which was written in one piece with the change that led to it and names the manifest's hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from retrain.lifecycle import Run
from serving.history import Revision
from streams.events import ModelState


class Approval(msgspec.Struct, frozen=True, omit_defaults=True):
    """One time at which a version became the champion. ``by`` is a person (user@host), or the loop: then ``reason`` is
    the comparison that it won. ``what`` is ``approved``, ``promoted``, ``registered`` or ``rolledback`` (to it).

    ``manifest_sha256`` says which manifest that was about; None where the state names none.
    """

    by: str
    at: str
    what: str
    revision: int
    reason: str | None = None
    manifest_sha256: str | None = None


def approvals(revisions: Iterable[Revision], version: str) -> list[Approval]:
    """Every time ``version`` became the champion, of a model's revisions from the oldest on; empty if it never did."""
    found = []
    before: str | None = None
    for revision in revisions:
        champion = revision.aliases.get("champion")
        if champion == version != before:
            why, profile = revision.change, revision.profiles.get(version)
            found.append(
                Approval(
                    why.by if why is not None else "unknown",
                    why.at if why is not None else "",
                    why.what if why is not None else "changed",
                    revision.revision,
                    why.reason if why is not None else None,
                    profile.sha256 if profile is not None else None,
                )
            )
        before = champion
    return found


def offer_of(runs: Sequence[Run], version: int) -> Run | None:
    """The newest of a model's runs, given oldest first, that proposed ``version``."""
    return next((run for run in reversed(runs) if run.offered and run.version == version), None)


def approval_of(run: Run, state: ModelState) -> dict[str, Any]:
    """What a run learns when a person has promoted its version, which led to ``state``.

    Its probation compares with what was replaced, and that is another version than was beaten if the person said so.
    """
    return {"approved": True, "champion": state.aliases.get("previous", run.champion)}


def overdue(run: Run, approval_s: float, now_ms: int) -> str | None:
    """Why a run that awaits its approval waits no longer; None while it may.

    Other runs of the model wait for it, and the longer it waits the less its comparison says.
    """
    if now_ms < run.updated_ms + int(approval_s * 1000):
        return None
    return f"nobody approved it within {approval_s:g} s"
