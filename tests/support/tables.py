"""The rows of a join's tables in words: places in its lists of texts are spelt out, values have their types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.events import Value
from streams.join import PartitionJoin
from streams.rows import EXPIRED, WAITING, Rows
from streams.values import Ints, as_value

Spelt = tuple[object, ...]


def spelt(found: Rows, texts: Sequence[str], *, claims: bool) -> list[Spelt]:
    """(key, offset, record time, event time, type of the value, value, ref or claim) of each row."""
    rows: list[Spelt] = []
    for row in found:
        value = as_value(int(row["kind"]), float(row["number"]), texts)
        ref = (texts[row["ref"]] if row["ref"] >= 0 else None) if claims else int(row["ref"])
        times = (int(row[name]) for name in ("offset", "at_ms", "event_ms"))
        rows.append((row["key"].tolist(), *times, type(value), value, ref))
    return rows


def pending(join: PartitionJoin) -> list[Spelt]:
    """Predictions that wait."""
    table = join.predictions
    return spelt(table.rows[table.select(WAITING)], join.texts.items, claims=False)


def expired(join: PartitionJoin) -> list[Spelt]:
    """Predictions that expired and are remembered."""
    table = join.predictions
    return spelt(table.rows[table.select(EXPIRED)], join.texts.items, claims=False)


def waiting(join: PartitionJoin) -> list[Spelt]:
    """Outcomes that wait."""
    table = join.outcomes
    return spelt(table.rows[table.select(WAITING)], join.texts.items, claims=True)


def _remembered_rows(join: PartitionJoin) -> Ints:
    offsets = [offset for chunk, _ in join.remembered for offset in chunk.tolist()]
    return join.predictions.at(np.array(offsets, dtype=np.int64))


def remembered(join: PartitionJoin) -> list[tuple[Spelt, int, type, Value]]:
    """(prediction, when the pair was complete, the type of the outcome, the outcome) of each remembered pair."""
    table, texts, at = join.predictions, join.texts.items, _remembered_rows(join)
    outcomes = [
        as_value(int(kind), float(number), texts)
        for kind, number in zip(table.outcome_kinds[at], table.outcomes[at], strict=True)
    ]
    made = spelt(table.rows[at], texts, claims=False)
    return [
        (row, joined_ms, type(outcome), outcome)
        for row, joined_ms, outcome in zip(made, table.joined_ms[at].tolist(), outcomes, strict=True)
    ]
