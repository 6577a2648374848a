"""The stored form of an input partition: what a checkpoint writes to Redis, and how it is read back.

Keys of partition p (all with the hash tag): ``meta`` (guard, offsets, counters, times), ``log`` (a list of deltas of
the waiting rows, now and then replaced by one snapshot), ``joined`` (a list of deltas of the remembered pairs),
``refs`` (a list of interned model/version/segment), ``outbox`` (a hash: what may not be in Kafka yet). Rows that meet
within one checkpoint never touch the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from streams.events import Value
from streams.join_rows import Effects, JoinedRow, PendingRow, Side, WaitingRow
from streams.records import Counters, Cut, Summary
from streams.seal import Damaged, open_sealed, seal
from streams.store import Command, Owned

if TYPE_CHECKING:
    from streams.partition import InputPartition

COMPACT_FACTOR = 4
COMPACT_ROWS = 20_000
PARTS = ("log", "joined", "refs", "outbox")

_encode = msgspec.msgpack.encode


class Delta(msgspec.Struct, array_like=True):
    """What one checkpoint changed in the waiting rows; removals are applied before additions (an id can come back)."""

    pending_removed: list[bytes]
    pending_added: list[PendingRow]
    waiting_removed: list[bytes]
    waiting_added: list[WaitingRow]
    expired: list[tuple[bytes, int]]


class Remembered(msgspec.Struct, array_like=True):
    """What one checkpoint changed in the dedupe memory; outcomes are replaced before pairs are added.

    An id can come back: a correction is of the pair that was there before.
    """

    last_ms: int
    rows: list[JoinedRow]
    corrected: list[tuple[bytes, Value]]


class OutboxEntry(msgspec.Struct, array_like=True):
    """A checkpoint's cut and summaries, kept until they are acknowledged. Epochs are stamped when they are produced."""

    cut: Cut
    summaries: list[tuple[str, Summary]]


class Layout:
    """How the stored lists look, so that a checkpoint knows when to compact and what to trim."""

    def __init__(self) -> None:
        self.log_rows = 0
        self.log_blobs = 0
        self.joined_blobs: deque[tuple[int, int]] = deque()
        self.joined_rows = 0
        self.refs = 0
        self.published: list[int] = []
        """Outbox entries that are acknowledged and may be removed."""


_delta = msgspec.msgpack.Decoder(Delta)
_remembered = msgspec.msgpack.Decoder(Remembered)
_outbox = msgspec.msgpack.Decoder(OutboxEntry)
_counters = msgspec.json.Decoder(Counters)


def checkpoint(
    part: InputPartition, effects: Effects, cut: Cut, summaries: list[tuple[str, Summary]]
) -> tuple[list[Command], dict[str, str | bytes | int]]:
    """The Redis commands and the meta fields of one checkpoint."""
    name, layout = part.owned.name, part.layout
    commands: list[Command] = []
    _log(commands, part, effects, name("log"))
    if effects.remembered or effects.corrected:
        rows = effects.remembered
        last_ms = max((row.at_ms for row in rows), default=0)
        corrected = [(row.id, row.outcome) for row in effects.corrected]
        commands.append(("RPUSH", name("joined"), seal(_encode(Remembered(last_ms, rows, corrected)))))
        layout.joined_blobs.append((len(rows), last_ms))
        layout.joined_rows += len(rows)
    _trim(commands, part, name("joined"))
    if len(part.join.refs) > layout.refs:
        commands.append(("RPUSH", name("refs"), *(seal(_encode(ref)) for ref in part.join.refs[layout.refs :])))
        layout.refs = len(part.join.refs)
    if layout.published:
        commands.append(("HDEL", name("outbox"), *layout.published))
        layout.published = []
    commands.append(("HSET", name("outbox"), cut.sequence, seal(_encode(OutboxEntry(cut, summaries)))))
    return commands, meta_of(part)


def meta_of(part: InputPartition) -> dict[str, str | bytes | int]:
    """The meta fields of a partition as it is."""
    layout = part.layout
    return {
        "predictions": part.processed[0],
        "outcomes": part.processed[1],
        "predictions_ms": part.done_ms[0],
        "outcomes_ms": part.done_ms[1],
        "clock_ms": part.clock_ms,
        "complete_at_ms": part.complete_at_ms,
        "counters": msgspec.json.encode(part.join.counters),
        "sequences": msgspec.json.encode(part.sequences),
        "blobs": msgspec.json.encode((layout.log_blobs, len(layout.joined_blobs), layout.refs)),
    }


def whole(
    part: InputPartition, cut: Cut, summaries: list[tuple[str, Summary]]
) -> tuple[list[Command], dict[str, str | bytes | int]]:
    """The commands and the meta fields that put the partition, as of ``cut``, in the place of whatever is stored."""
    part.layout = Layout()
    for side in (part.join.pending, part.join.waiting):
        side.added, side.removed = dict(side.rows), {}
    effects = Effects(remembered=list(part.join.joined.values()), forgotten=list(part.join.expired.items()))
    commands, meta = checkpoint(part, effects, cut, summaries)
    return [("DEL", *(part.owned.name(name) for name in PARTS)), *commands], meta


def _log(commands: list[Command], part: InputPartition, effects: Effects, key: str) -> None:
    pending, waiting, layout = part.join.pending, part.join.waiting, part.layout
    delta = Delta(
        list(pending.removed), _rows(pending.added), list(waiting.removed), _rows(waiting.added), effects.forgotten
    )
    for side in (pending, waiting):
        side.added, side.removed = {}, {}
    size = _size(delta)
    if not size:
        return
    layout.log_rows += size
    live = len(pending.rows) + len(waiting.rows) + len(part.join.expired)
    if layout.log_rows > COMPACT_FACTOR * live + COMPACT_ROWS:
        delta = Delta([], _rows(pending.rows), [], _rows(waiting.rows), list(part.join.expired.items()))
        commands.append(("DEL", key))
        layout.log_rows, layout.log_blobs = live, 0
    commands.append(("RPUSH", key, seal(_encode(delta))))
    layout.log_blobs += 1


def _size(delta: Delta) -> int:
    removed = len(delta.pending_removed) + len(delta.waiting_removed)
    return removed + len(delta.pending_added) + len(delta.waiting_added) + len(delta.expired)


def _rows(rows: Mapping[bytes, Any]) -> list[Any]:
    return list(rows.values())


def _trim(commands: list[Command], part: InputPartition, key: str) -> None:
    """Drop the oldest deltas of the dedupe memory that are too old, or that newer ones push out, whole.

    Corrections alone count no row: what they correct is in older deltas, so the oldest delta never needs them.
    """
    layout, settings = part.layout, part.join.settings
    drop = 0
    while layout.joined_blobs:
        count, last_ms = layout.joined_blobs[0]
        young = last_ms >= part.clock_ms - settings.dedupe_ms
        if count and young and layout.joined_rows - count < settings.dedupe_rows:
            break
        layout.joined_blobs.popleft()
        layout.joined_rows -= count
        drop += 1
    if drop:
        commands.append(("LTRIM", key, drop, -1))


def read_commands(owned: Owned) -> list[Command]:
    """What to read to load a partition, in the order that :func:`load` expects."""
    return [
        ("LRANGE", owned.name("log"), 0, -1),
        ("LRANGE", owned.name("joined"), 0, -1),
        ("LRANGE", owned.name("refs"), 0, -1),
        ("HGETALL", owned.name("outbox")),
    ]


def is_stored(owned: Owned) -> bool:
    """Whether the store has a state of the partition."""
    return "predictions" in owned.meta


def load(part: InputPartition, raw: list[Any]) -> list[OutboxEntry]:
    """Fill a fresh partition from its meta and from what :func:`read_commands` gave → the outbox, in order.

    Raises :class:`Damaged` if a blob is not what was written, or missing.
    """
    log, joined, refs, outbox = raw
    meta, join, layout = part.owned.meta, part.join, part.layout
    if not is_stored(part.owned):
        return []
    if [len(log), len(joined), len(refs)] != msgspec.json.decode(meta["blobs"]):
        raise Damaged(
            f"there are {len(log)}, {len(joined)} and {len(refs)} blobs, and should be {meta['blobs'].decode()}"
        )
    part.processed = [int(meta["predictions"]), int(meta["outcomes"])]
    part.committed = list(part.processed)
    part.position = list(part.processed)
    part.done_ms = [int(meta["predictions_ms"]), int(meta["outcomes_ms"])]
    part.timeline = type(part.timeline)((part.done_ms[0], part.done_ms[1]))
    part.clock_ms, part.complete_at_ms = int(meta["clock_ms"]), int(meta["complete_at_ms"])
    join.counters = _counters.decode(meta["counters"])
    part.sequences = msgspec.json.decode(meta["sequences"], type=dict[str, int])
    for item in refs:
        join.intern(msgspec.msgpack.decode(open_sealed(item), type=tuple[str, str, str]))
    layout.refs = len(join.refs)
    layout.log_blobs = len(log)
    for blob in log:
        _apply(part, _delta.decode(open_sealed(blob)))
    for blob in joined:
        delta = _remembered.decode(open_sealed(blob))
        for key, outcome in delta.corrected:
            if key in join.joined:
                join.joined[key].outcome = outcome
        for row in delta.rows:
            join.joined.pop(row.id, None)
            join.joined[row.id] = row
        layout.joined_blobs.append((len(delta.rows), delta.last_ms))
        layout.joined_rows += len(delta.rows)
    while len(join.joined) > join.settings.dedupe_rows:
        join.joined.popitem(last=False)
    items = outbox.items() if isinstance(outbox, dict) else _pairs(outbox)
    entries = [_outbox.decode(open_sealed(value)) for _, value in items]
    numbers = {entry.cut.sequence for entry in entries}
    if part.owned.number and part.owned.number not in numbers:  # it is removed by the next checkpoint at the earliest
        raise Damaged(f"the outbox lacks checkpoint {part.owned.number}")
    return sorted(entries, key=lambda entry: entry.cut.sequence)


def _pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _apply(part: InputPartition, delta: Delta) -> None:
    join = part.join
    for side, removed, added in (
        (join.pending, delta.pending_removed, delta.pending_added),
        (join.waiting, delta.waiting_removed, delta.waiting_added),
    ):
        _replay(side, removed, added)
    for key, at_ms in delta.expired:
        join.expired.pop(key, None)
        join.expired[key] = at_ms
    while len(join.expired) > join.settings.dedupe_rows:
        join.expired.popitem(last=False)
    part.layout.log_rows += _size(delta)


def _replay(side: Side, removed: Iterable[bytes], added: Iterable[PendingRow | WaitingRow]) -> None:
    for key in removed:
        side.rows.pop(key, None)
    for row in added:
        side.rows[row.id] = row
