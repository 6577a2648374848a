"""Fetches as a broker sends them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faust.types import TP

from streams.fetched import KeptRecords

LZ4 = 3
LOG_APPEND_TIME_FLAG = 0x08
TP0 = TP("predictions", 0)


def chunk(
    base: int,
    values: Sequence[bytes | None],
    *,
    deltas: Sequence[int] | None = None,
    last_delta: int | None = None,
    append_ms: int | None = 5_000,
    codec: int = LZ4,
) -> bytes:
    """A record batch as a broker stores it. ``deltas`` are offsets from ``base``: compaction leaves only some."""
    made = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    deltas = range(len(values)) if deltas is None else deltas
    for delta, value in zip(deltas, values, strict=True):
        made.append(delta, 1_000 + delta, b"k%d" % (base + delta), value, [])
    data = bytearray(made.build())
    data[0:8] = base.to_bytes(8, "big")
    if append_ms is not None:
        data[22] |= LOG_APPEND_TIME_FLAG
        data[35:43] = append_ms.to_bytes(8, "big")
    if last_delta is not None:
        data[23:27] = last_delta.to_bytes(4, "big")
    return bytes(data)


def records_of(data: bytes, position: int, *, crcs: bool = False) -> Any:
    """What aiokafka makes of a fetch from ``position`` on; ``crcs`` are right where the chunk has no append time."""
    return PartitionRecords(TP0, KeptRecords(data), [], position, None, None, crcs, READ_COMMITTED)
