"""What happened to a model, in order: every change of its state with who, when and why, and the runs of the loop.

The changes are the audit trail: none is ever lost. Of the runs those are forgotten in the end that nobody asked for and
that came to nothing: they led to no change.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from retrain.lifecycle import Run
from serving.history import LOOP, Revision
from streams.events import rfc3339


class Entry(msgspec.Struct, frozen=True):
    """One line. ``revision`` and ``champion`` are of a change of state; a run that changed none has neither."""

    at: str
    by: str
    what: str
    version: str | None
    reason: str | None
    revision: int | None = None
    champion: str | None = None


def trail(revisions: Iterable[Revision], runs: Iterable[Run]) -> list[Entry]:
    """Oldest first. A revision that nobody explained (an older release made it) says so."""
    entries = [_of_revision(revision) for revision in revisions]
    for run in runs:
        entries += _of_run(run)
    # Sorted by time; revisions keep their order, whatever the clocks of those who made them said.
    latest = ""
    keyed: list[tuple[str, Entry]] = []
    for entry in entries:
        latest = max(latest, entry.at) if entry.revision is not None else latest
        keyed.append((latest if entry.revision is not None else entry.at, entry))
    return [entry for _, entry in sorted(keyed, key=lambda pair: pair[0])]


def _of_revision(revision: Revision) -> Entry:
    why, champion = revision.change, revision.aliases.get("champion")
    if why is None:
        return Entry("", "unknown", "changed", None, None, revision.revision, champion)
    return Entry(why.at, why.by, why.what, why.version, why.reason, revision.revision, champion)


def _of_run(run: Run) -> list[Entry]:
    version = str(run.version) if run.better else None  # else a number that the next run gets
    cause = run.cause if run.why is None else f"{run.cause}: {run.why}"
    begun = Entry(rfc3339(run.triggered_ms), run.by or LOOP, f"run {run.episode} triggered", None, cause)
    if not run.ended:
        return [begun]
    ended = Entry(rfc3339(run.updated_ms), LOOP, f"run {run.episode} {run.state}", version, run.reason or run.verdict)
    return [begun, ended]
