"""Are the replayed alerts those that were published? Ids, keys, headers and contents are compared to the byte. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from streams.alerts import EncodedAlert
from streams.events import rfc3339
from streams.log import Record
from streams.replay.run import Mismatch

Kind = Literal["only published", "only replayed", "differs"]


class Difference(msgspec.Struct):
    """One alert that is not the same. ``fields`` maps the path of a value to [published, replayed]."""

    id: str
    kind: Kind
    summary: str
    fields: dict[str, list[Any]]


class CheckReport(msgspec.Struct):
    """What the comparison found.

    ``compacted`` counts replayed alerts that the topic has no more because a later one of the same key is there;
    ``earlier`` published ones that are older than the log; ``steps`` the stretches at whose ends the number of alerts
    was compared with the cut's; ``until`` the stream time at the end. ``limits`` say what is no longer in the topics.
    """

    identical: bool
    replayed: int
    published: int
    compacted: int
    earlier: int
    steps: int
    until: str
    differences: list[Difference]
    notes: list[str]
    limits: list[str]


class Published:
    """The alerts of the topic, each once: what was repeated after a crash is the same alert.

    ``before``: those of its beginning, read earlier.
    """

    def __init__(self, before: Published | None = None) -> None:
        self.by_id: dict[str, Record] = dict(before.by_id) if before is not None else {}
        self.repeated: list[str] = list(before.repeated) if before is not None else []
        """Ids that were published again with other contents."""
        self.compacted: bool = before.compacted if before is not None else False
        """Whether offsets are missing: the topic has been compacted."""
        self._next: dict[int, int] = dict(before._next) if before is not None else {}

    def add(self, record: Record) -> None:
        """Take in the next record of the topic."""
        self.compacted = self.compacted or record.offset != self._next.get(record.partition, 0)
        self._next[record.partition] = record.offset + 1
        if record.value is None:
            return
        identity = id_of(record.headers)
        known = self.by_id.setdefault(identity, record)
        if _content(known.key, known.headers, known.value) != _content(record.key, record.headers, record.value):
            self.repeated.append(identity)


def id_of(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """The CloudEvents id: fingerprint, start of the episode, number within it."""
    return (dict(headers).get("ce_id") or b"").decode(errors="replace")


def compare(
    replayed: Sequence[EncodedAlert],
    first: Published,
    now: Published,
    mismatches: Sequence[Mismatch],
    begins_ms: int,
) -> tuple[list[Difference], int, int, list[str]]:
    """(what differs, alerts lost to compaction, published ones older than the log, notes).

    ``first`` was read before the cuts, so that all of it must come out again; ``now`` after the replay, so that all
    that comes out must be there.
    """
    differences: list[Difference] = []
    compacted = 0
    mine = {id_of(alert.headers): alert for alert in replayed}
    followed: set[bytes] = set()
    """Keys of which the topic has a later alert: only those before it can have been compacted away."""
    for identity, alert in reversed(mine.items()):
        record = now.by_id.get(identity)
        if record is None:
            if now.compacted and alert.key in followed:
                compacted += 1
            else:
                differences.append(Difference(identity, "only replayed", _summary(alert.value), {}))
            continue
        followed.add(alert.key)
        fields = dict(_differing(record, alert))
        if fields:
            differences.append(Difference(identity, "differs", _summary(alert.value), fields))
    gone = {identity: record for identity, record in first.by_id.items() if identity not in mine}
    earlier = {identity for identity, record in gone.items() if record.at_ms < begins_ms}
    for identity, record in gone.items():
        if identity not in earlier:
            differences.append(Difference(identity, "only published", _summary(record.value), {}))
    notes = [f"alert {identity} was published twice, with different contents" for identity in now.repeated]
    notes += [
        f"partition {each.partition}: by {rfc3339(each.at_ms)} {each.published} alerts were published, "
        f"{each.replayed} come out of the replay"
        for each in mismatches
    ]
    return sorted(differences, key=lambda each: each.id), compacted, len(earlier), notes


def _content(key: bytes | None, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> tuple[Any, ...]:
    return key, [(name, each) for name, each in headers], value


def _summary(value: bytes | None) -> str:
    try:
        alert = json.loads(value or b"")
        return f"{alert['status']} {alert['labels']['alertname']} of {alert['labels']['model']}"
    except (ValueError, KeyError, TypeError):
        return "not an alert"


def _differing(record: Record, alert: EncodedAlert) -> Iterator[tuple[str, list[Any]]]:
    published = _content(record.key, record.headers, record.value)
    again = _content(alert.key, alert.headers, alert.value)
    if published == again:
        return
    if published[0] != again[0]:
        yield "key", [_text(published[0]), _text(again[0])]
    if published[1] != again[1]:
        yield "headers", [{n: _text(v) for n, v in each[1]} for each in (published, again)]
    if published[2] == again[2]:
        return
    try:
        one, other = (dict(_leaves(json.loads(each[2] or b"null"), "")) for each in (published, again))
    except ValueError:
        yield "value", [_text(published[2]), _text(again[2])]
        return
    before = False
    for path in sorted(one.keys() | other.keys()):
        if one.get(path) != other.get(path):
            before = True
            yield path, [one.get(path), other.get(path)]
    if not before:
        yield "value", [_text(published[2]), _text(again[2])]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        yield path, value
    for name, child in children:
        yield from _leaves(child, f"{path}.{name}" if path else str(name))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
