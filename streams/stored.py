"""The stored form of an input partition: what a checkpoint writes to Redis, and how it is read back.

Keys of partition p (all with the hash tag): ``meta`` (guard, offsets, counters, times), ``log`` (a list of deltas of
the waiting rows, now and then replaced by one snapshot), ``joined`` (a list of deltas of the remembered pairs),
``refs`` (a list of interned model/version/segment), ``outbox`` (a hash: what may not be in Kafka yet). Rows that meet
within one checkpoint never touch the log. Rows are stored as they are in memory, 56 bytes each; texts are spelt in each
delta, so that it can be read by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streams.columns import NOBODY
from streams.effects import Effects
from streams.events import Value
from streams.records import Counters, Cut, Summary
from streams.rows import (
    EXPIRED,
    GONE,
    JOINED,
    ROW,
    WAITING,
    WHOLE_ROW,
    PredictionTable,
    Rows,
    RowTable,
    States,
    chosen,
    one_behind_the_other,
    with_whole_row,
)
from streams.seal import Damaged, open_sealed, seal
from streams.store import Command, Owned
from streams.values import TEXT, Ints, Kinds, Places, as_values, localised

if TYPE_CHECKING:
    from streams.join import PartitionJoin
    from streams.partition import InputPartition

COMPACT_FACTOR = 2
COMPACT_ROWS = 20_000
BLOB_ROWS = 100_000
"""Rows of a snapshot in one element of the list."""
PARTS = ("log", "joined", "refs", "outbox")

PAIR_ROW = with_whole_row([("outcome", "<f8"), ("joined_ms", "<i8"), ("outcome_kind", "u1")])
"""A remembered pair."""

_encode = msgspec.msgpack.encode


class Delta(msgspec.Struct, array_like=True):
    """What one checkpoint changed in the waiting rows; removals are applied before additions.

    Rows are :data:`streams.rows.ROW`, in the order of their offsets; ``removed`` and ``expired`` are offsets (int64).
    An expired prediction is a row that is remembered. ``texts`` and ``claims`` are what kinds TEXT and the refs of
    outcomes stand for.
    """

    predictions: bytes
    predictions_removed: bytes
    expired: bytes
    outcomes: bytes
    outcomes_removed: bytes
    texts: list[str]
    claims: list[str]

    @property
    def size(self) -> int:
        """Rows that it names."""
        rows = len(self.predictions) + len(self.outcomes)
        offsets = len(self.predictions_removed) + len(self.outcomes_removed) + len(self.expired)
        return rows // ROW.itemsize + offsets // 8


class Remembered(msgspec.Struct, array_like=True):
    """What one checkpoint changed in the dedupe memory: pairs (:data:`PAIR_ROW`) in the order of their completion, and
    outcomes that were replaced since, by the offset of the prediction.
    """

    pairs: bytes
    texts: list[str]
    corrected: list[tuple[int, Value]]


class OutboxEntry(msgspec.Struct, array_like=True):
    """A checkpoint's cut and summaries, kept until they are acknowledged. Epochs are stamped when they are produced."""

    cut: Cut
    summaries: list[tuple[str, Summary]]


class Layout:
    """How the stored lists look, so that a checkpoint knows when to compact and what to trim."""

    def __init__(self) -> None:
        self.log_rows = 0
        self.log_blobs = 0
        self.joined_blobs: deque[int] = deque()
        """Pairs in each delta of the dedupe memory."""
        self.joined_rows = 0
        self.refs = 0
        self.published: list[int] = []
        """Outbox entries that are acknowledged and may be removed."""


_delta = msgspec.msgpack.Decoder(Delta)
_remembered = msgspec.msgpack.Decoder(Remembered)
_outbox = msgspec.msgpack.Decoder(OutboxEntry)
_counters = msgspec.json.Decoder(Counters)


# ------------------------------------------------------------------------------------------------------- writing


def checkpoint(
    part: InputPartition, effects: Effects, pairs: Rows, cut: Cut, summaries: list[tuple[str, Summary]]
) -> tuple[list[Command], dict[str, str | bytes | int]]:
    """The Redis commands and the meta fields of one checkpoint."""
    name, layout = part.owned.name, part.layout
    commands: list[Command] = []
    _log(commands, part, effects, name("log"))
    if len(pairs) or effects.corrected:
        _push_pairs(commands, part, pairs, [(each.prediction_offset, each.now) for each in effects.corrected])
    _trim(commands, part, name("joined"))
    _push_refs(commands, part)
    if layout.published:
        commands.append(("HDEL", name("outbox"), *layout.published))
        layout.published = []
    commands.append(("HSET", name("outbox"), cut.sequence, seal(_encode(OutboxEntry(cut, summaries)))))
    return commands, meta_of(part)


def meta_of(part: InputPartition) -> dict[str, str | bytes | int]:
    """The meta fields of a partition as it is."""
    join, layout = part.join, part.layout
    return {
        "predictions": part.processed[0],
        "outcomes": part.processed[1],
        "predictions_ms": part.done_ms[0],
        "outcomes_ms": part.done_ms[1],
        "clock_ms": part.clock_ms,
        "complete_at_ms": part.complete_at_ms,
        "counters": msgspec.json.encode(join.counters),
        "sequences": msgspec.json.encode(part.sequences),
        "passed": msgspec.json.encode(join.passed),
        "remembers": join.remembers,
        "expired": join.predictions.expired,
        "blobs": msgspec.json.encode((layout.log_blobs, len(layout.joined_blobs), layout.refs)),
    }


def whole(
    part: InputPartition, cut: Cut, summaries: list[tuple[str, Summary]]
) -> tuple[list[Command], dict[str, str | bytes | int]]:
    """The commands and the meta fields that put the partition, as of ``cut``, in the place of whatever is stored."""
    name, join = part.owned.name, part.join
    part.layout = Layout()
    join.predictions.stored, join.outcomes.stored = join.predictions.end, join.outcomes.end
    commands: list[Command] = [("DEL", *map(name, PARTS))]
    _push_snapshot(commands, part, name("log"))
    pairs = _remembered_pairs(join)
    for start in range(0, len(pairs), BLOB_ROWS):
        _push_pairs(commands, part, pairs[start : start + BLOB_ROWS], [])
    _push_refs(commands, part)
    commands.append(("HSET", name("outbox"), cut.sequence, seal(_encode(OutboxEntry(cut, summaries)))))
    return commands, meta_of(part)


def _push_pairs(commands: list[Command], part: InputPartition, pairs: Rows, corrected: list[tuple[int, Value]]) -> None:
    commands.append(("RPUSH", part.owned.name("joined"), seal(_encode(_remember(part, pairs, corrected)))))
    part.layout.joined_blobs.append(len(pairs))
    part.layout.joined_rows += len(pairs)


def _push_refs(commands: list[Command], part: InputPartition) -> None:
    refs, layout = part.join.refs.items, part.layout
    if len(refs) > layout.refs:
        commands.append(("RPUSH", part.owned.name("refs"), *(seal(_encode(ref)) for ref in refs[layout.refs :])))
        layout.refs = len(refs)


def _remembered_pairs(join: PartitionJoin) -> Rows:
    """All pairs that are remembered, as :data:`PAIR_ROW`, in the order of their completion."""
    table = join.predictions
    at = table.at(np.concatenate([np.empty(0, dtype=np.int64), *(offsets for offsets, _ in join.remembered)]))
    pairs = np.zeros(len(at), dtype=PAIR_ROW)
    pairs["row"] = table.rows.view(WHOLE_ROW)[at]
    pairs["joined_ms"], pairs["outcome"] = table.joined_ms[at], table.outcomes[at]
    pairs["outcome_kind"] = table.outcome_kinds[at]
    return pairs


def _log(commands: list[Command], part: InputPartition, effects: Effects, key: str) -> None:
    join, layout = part.join, part.layout
    predictions, outcomes = join.predictions, join.outcomes
    removed, outcomes_removed = map(_offsets, effects.removed)
    expired = _offsets(effects.expired)
    delta = _rows_of(part, predictions.stored, outcomes.stored, removed, outcomes_removed, expired)
    predictions.stored, outcomes.stored = predictions.end, outcomes.end
    if not delta.size:
        return
    layout.log_rows += delta.size
    live = predictions.waiting + predictions.expired + outcomes.waiting
    if layout.log_rows <= COMPACT_FACTOR * live + COMPACT_ROWS:
        commands.append(("RPUSH", key, seal(_encode(delta))))
        layout.log_blobs += 1
        return
    commands.append(("DEL", key))
    _push_snapshot(commands, part, key)


def _push_snapshot(commands: list[Command], part: InputPartition, key: str) -> None:
    """All waiting and expired rows, into an empty list."""
    table, layout = part.join.predictions, part.layout
    snapshot = _rows_of(part, 0, 0, expired=table.rows["offset"][table.select(EXPIRED)].tobytes())
    pieces = [seal(_encode(each)) for each in _pieces(snapshot)] if snapshot.size else []
    commands.extend(("RPUSH", key, each) for each in pieces)
    layout.log_rows, layout.log_blobs = snapshot.size, len(pieces)


def _offsets(chunks: Sequence[Ints]) -> bytes:
    return b"".join(chunk.tobytes() for chunk in chunks)


def _pieces(snapshot: Delta) -> Iterable[Delta]:
    """A snapshot as several deltas: a list's element should not grow without bound."""
    step = BLOB_ROWS * ROW.itemsize
    largest = max(len(snapshot.predictions), len(snapshot.outcomes))
    for start in range(0, max(largest, 1), step):
        last = start + step >= largest
        yield Delta(
            snapshot.predictions[start : start + step],
            b"",
            snapshot.expired if last else b"",
            snapshot.outcomes[start : start + step],
            b"",
            snapshot.texts,
            snapshot.claims,
        )


def _rows_of(
    part: InputPartition,
    first_prediction: int,
    first_outcome: int,
    removed: bytes = b"",
    outcomes_removed: bytes = b"",
    expired: bytes = b"",
) -> Delta:
    """The waiting and the expired rows from a row on."""
    join = part.join
    table = join.predictions
    states = table.states[first_prediction : table.end]
    predictions = chosen(table.rows[first_prediction : table.end], (states == WAITING) | (states == EXPIRED))
    outcomes = chosen(join.outcomes.rows, join.outcomes.select(WAITING, first_outcome))
    kinds = np.concatenate([predictions["kind"], outcomes["kind"]])
    numbers, texts = localised(kinds, np.concatenate([predictions["number"], outcomes["number"]]), join.texts.items)
    if texts:
        predictions, outcomes = predictions.copy(), outcomes.copy()
        predictions["number"], outcomes["number"] = np.split(numbers, [len(predictions)])
    claims: list[str] = []
    if (outcomes["ref"] != NOBODY).any():
        present, own = np.unique(outcomes["ref"], return_inverse=True)
        nobody = int(present[0] == NOBODY)
        claims = [join.texts.items[place] for place in present[nobody:].tolist()]
        outcomes = outcomes.copy()
        outcomes["ref"] = own - nobody
    return Delta(predictions.tobytes(), removed, expired, outcomes.tobytes(), outcomes_removed, texts, claims)


def _remember(part: InputPartition, pairs: Rows, corrected: list[tuple[int, Value]]) -> Remembered:
    rows = np.zeros(len(pairs), dtype=PAIR_ROW)
    for name in ("row", "outcome", "joined_ms", "outcome_kind"):
        rows[name] = pairs[name]
    kinds = np.concatenate([rows["kind"], rows["outcome_kind"]])
    numbers, texts = localised(kinds, np.concatenate([rows["number"], rows["outcome"]]), part.join.texts.items)
    if texts:
        rows["number"], rows["outcome"] = np.split(numbers, 2)
    return Remembered(rows.tobytes(), texts, corrected)


def _trim(commands: list[Command], part: InputPartition, key: str) -> None:
    """Drop the oldest deltas of the dedupe memory whose pairs are all forgotten, whole.

    Corrections alone count no row: what they correct is in older deltas, so the oldest delta never needs them.
    """
    layout = part.layout
    drop = 0
    while layout.joined_blobs:
        count = layout.joined_blobs[0]
        if count and layout.joined_rows - count < part.join.remembers:
            break
        layout.joined_blobs.popleft()
        layout.joined_rows -= count
        drop += 1
    if drop:
        commands.append(("LTRIM", key, drop, -1))


# ------------------------------------------------------------------------------------------------------- reading


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
    join.passed = msgspec.json.decode(meta["passed"], type=list[int])
    part.sequences = msgspec.json.decode(meta["sequences"], type=dict[str, int])
    for item in refs:
        join.refs.add(msgspec.msgpack.decode(open_sealed(item), type=tuple[str, str, str]))
    layout.refs = len(join.refs)
    layout.log_blobs = len(log)
    deltas = [_delta.decode(open_sealed(blob)) for blob in log]
    memory = [_remembered.decode(open_sealed(blob)) for blob in joined]
    layout.log_rows = sum(delta.size for delta in deltas)
    layout.joined_blobs.extend(len(each.pairs) // PAIR_ROW.itemsize for each in memory)
    layout.joined_rows = sum(layout.joined_blobs)
    _load_outcomes(join.outcomes, deltas, join.texts)
    _load_predictions(part, deltas, memory, int(meta["remembers"]), int(meta["expired"]))
    items = outbox.values() if isinstance(outbox, dict) else outbox[1::2]
    entries = [_outbox.decode(open_sealed(value)) for value in items]
    numbers = {entry.cut.sequence for entry in entries}
    if part.owned.number and part.owned.number not in numbers:  # it is removed by the next checkpoint at the earliest
        raise Damaged(f"the outbox lacks checkpoint {part.owned.number}")
    return sorted(entries, key=lambda entry: entry.cut.sequence)


def _load_outcomes(table: RowTable, deltas: Sequence[Delta], texts: Places[str]) -> None:
    chunks = []
    for delta in deltas:
        rows = np.frombuffer(delta.outcomes, dtype=ROW).copy()
        _respell(rows["kind"], rows["number"], delta.texts, texts)
        claims = np.array([texts.add(claim) for claim in delta.claims] + [NOBODY], dtype=np.int32)
        rows["ref"] = claims[rows["ref"]]
        chunks.append(rows)
    rows = _kept(chunks, [delta.outcomes_removed for delta in deltas])
    table.replace(rows, np.full(len(rows), WAITING, dtype=np.uint8))


def _load_predictions(
    part: InputPartition, deltas: Sequence[Delta], memory: Sequence[Remembered], remembers: int, expired: int
) -> None:
    join = part.join
    table: PredictionTable = join.predictions
    chunks = [np.frombuffer(delta.predictions, dtype=ROW).copy() for delta in deltas]
    for delta, rows in zip(deltas, chunks, strict=True):
        _respell(rows["kind"], rows["number"], delta.texts, join.texts)
    waiting = _kept(chunks, [delta.predictions_removed for delta in deltas])
    states: States = np.full(len(waiting), WAITING, dtype=np.uint8)
    gone = np.frombuffer(b"".join(delta.expired for delta in deltas), dtype="<i8")
    states[np.isin(waiting["offset"], gone)] = EXPIRED
    forgotten = np.flatnonzero(states == EXPIRED)
    states[forgotten[: len(forgotten) - expired]] = GONE
    pairs = _pairs(memory, join.texts)[-remembers:] if remembers else np.zeros(0, dtype=PAIR_ROW)
    rows = np.zeros(len(waiting) + len(pairs), dtype=ROW)
    whole = rows.view(WHOLE_ROW)
    whole[: len(waiting)] = waiting.view(WHOLE_ROW)
    whole[len(waiting) :] = pairs["row"]
    order = np.argsort(rows["offset"], kind="stable")
    table.replace(rows[order], np.concatenate([states, np.full(len(pairs), JOINED, dtype=np.uint8)])[order])
    at = table.at(pairs["offset"])
    table.joined_ms[at], table.outcomes[at] = pairs["joined_ms"], pairs["outcome"]
    table.outcome_kinds[at] = pairs["outcome_kind"]
    if len(pairs):
        join.remembered.append((pairs["offset"].copy(), pairs["joined_ms"].copy()))
    join.remembers = len(pairs)


def _pairs(memory: Sequence[Remembered], texts: Places[str]) -> Rows:
    """The remembered pairs in the order of their completion, with their last outcomes."""
    chunks: list[Rows] = []
    corrected: dict[int, Value] = {}
    for each in memory:
        rows = np.frombuffer(each.pairs, dtype=PAIR_ROW).copy()
        _respell(rows["kind"], rows["number"], each.texts, texts)
        _respell(rows["outcome_kind"], rows["outcome"], each.texts, texts)
        chunks.append(rows)
        corrected.update(each.corrected)
    rows = one_behind_the_other(chunks, PAIR_ROW)
    _correct(rows, corrected, texts)
    return rows


def _correct(pairs: Rows, corrected: Mapping[int, Value], texts: Places[str]) -> None:
    """Replace outcomes by the offsets of their predictions; those of forgotten pairs are passed over."""
    if not len(pairs) or not corrected:
        return
    offsets = np.fromiter(corrected, dtype=np.int64, count=len(corrected))
    values = as_values(list(corrected.values()))
    _respell(values.kinds, values.numbers, values.texts, texts)
    order = np.argsort(pairs["offset"])
    at = order[np.searchsorted(pairs["offset"], offsets, sorter=order).clip(max=len(pairs) - 1)]
    there = pairs["offset"][at] == offsets
    pairs["outcome"][at[there]], pairs["outcome_kind"][at[there]] = values.numbers[there], values.kinds[there]


def _kept(chunks: Sequence[Rows], removed: Sequence[bytes]) -> Rows:
    """What is left of rows added and removed in turn; an offset is never added twice."""
    rows = one_behind_the_other(chunks, ROW)
    gone = np.frombuffer(b"".join(removed), dtype="<i8")
    kept: Rows = rows[~np.isin(rows["offset"], gone)]
    return kept


def _respell(kinds: Kinds, numbers: Any, own: Sequence[str], texts: Places[str]) -> None:
    """Make places in ``own`` places in ``texts``, in place."""
    rows = kinds == TEXT
    if rows.any():
        codes = np.array([texts.add(text) for text in own], dtype=np.float64)
        numbers[rows] = codes[numbers[rows].astype(np.int64)]
