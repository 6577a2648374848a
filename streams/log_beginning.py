"""Where the log of the monitor's inputs begins: whole, or behind what retention has removed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing

import msgspec

from streams.log import Log
from streams.records import Cut, Gap, SummaryHead, Take
from streams.topics import Topics

_checkpoint = msgspec.json.Decoder(Take | Cut | Gap)
_head = msgspec.msgpack.Decoder(SummaryHead)


def reaches_back(broker: Log, topics: Topics, partitions: Collection[int] | None) -> bool:
    """Whether nothing of ``checkpoints``, and of these partitions of ``summaries``, is gone from the log."""
    with (
        closing(broker.reader(topics.summaries, None, partitions)) as summaries,
        closing(broker.reader(topics.checkpoints, None, None)) as checkpoints,
    ):
        return not any(summaries.next.values()) and not any(checkpoints.next.values())


def first_sequences(
    broker: Log, topics: Topics, partitions: Collection[int] | None, tick: Callable[[], None] = lambda: None
) -> dict[int, dict[tuple[int, str], int]]:
    """For each partition of ``summaries``: (input partition, model) → the sequence before the first whole summary left.

    What the cuts name and no summary is left of is behind its last sequence. ``tick`` is called at each record.
    """
    named: dict[tuple[int, str], int] = {}
    with closing(broker.reader(topics.checkpoints, None, None)) as reader:
        for record in reader.read_to_end():
            tick()
            cut = _checkpoint.decode(record.value or b"")
            if isinstance(cut, Cut):
                named |= {(cut.partition, model): sequence for model, sequence in cut.models.items()}
    with closing(broker.reader(topics.summaries, None, partitions)) as reader:
        found: dict[int, dict[tuple[int, str], int]] = {p: {} for p in reader.next}
        for record in reader.read_to_end():
            tick()
            head = _head.decode(record.value or b"")
            before = head.sequence if head.part else head.sequence - 1
            first = found[record.partition]
            key = head.partition, head.model
            first[key] = min(first.get(key, before), before)
    return {p: {**named, **first} for p, first in found.items()}
