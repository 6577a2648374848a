"""Who made a version the champion, when and why: what a manifest, written before anybody could say so, cannot hold.

A manifest never changes: model events carry its hash, and a version is known by it. So the approvals are read from the
states, each of which was written in one piece with the change that led to it and names the manifest's hash.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from serving.history import Revision


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
