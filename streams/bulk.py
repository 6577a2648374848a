"""Whole runs at once: the join's short cut for rows that need no look at each other.

Most runs are plain: every id is new (or, for outcomes, every prediction waits) and every value fits its model. Such a
run is taken in with operations on columns, at a third of the cost of row by row. Anything else is refused here, before
anything has changed, and :mod:`streams.join` takes it row by row. Both give the same effects; the tests compare them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import repeat
from operator import ne
from typing import TYPE_CHECKING, TypeVar, cast

from streams.catalog import Catalog, is_classification
from streams.events import ModelState, Outcome, Prediction, Value, milliseconds
from streams.ids import compact_ids
from streams.join_rows import MINUTE_MS, JoinedRow, LabelledPair, Pairs, PendingRow

if TYPE_CHECKING:
    from streams.join import PartitionJoin

T = TypeVar("T")
Name = tuple[str, str | int, str | None]
CLASS_TYPES = {int, bool, str}
NUMBER_TYPES = {int, float}


def predictions(
    join: PartitionJoin, at_ms: int, events: Sequence[Prediction], offsets: Sequence[int], catalog: Catalog
) -> bool:
    """Take in a run of predictions that all begin to wait → False if they must be taken row by row."""
    refs = _refs(join, [(e.model, e.version, e.segment) for e in events])
    if refs is None:
        return False
    values = [e.prediction for e in events]
    groups = _groups(refs)
    for ref, rows in groups.items():
        model = catalog.get(join.refs[ref][0])
        if model is None or not _fit(_pick(values, rows), model):
            return False
    ids = compact_ids([e.prediction_id for e in events])
    keys = set(ids)
    known = (join.pending.rows, join.joined, join.waiting.rows)
    if len(keys) != len(ids) or not all(rows.keys().isdisjoint(keys) for rows in known):
        return False
    waiting = list(
        map(
            PendingRow,
            ids,
            offsets,
            repeat(at_ms),
            _times([e.predicted_at for e in events], at_ms),
            refs,
            values,
            [e.score for e in events],
        )
    )
    join.pending.put_all(waiting)
    join.counters.predictions += len(ids)
    minute = at_ms // MINUTE_MS
    for ref, rows in groups.items():
        minutes = join.pairs(ref).predictions
        minutes[minute] = minutes.get(minute, 0) + (len(ids) if rows is None else len(rows))
    join.keep_to_the_ceiling()
    return True


def outcomes(
    join: PartitionJoin, at_ms: int, events: Sequence[Outcome], offsets: Sequence[int], catalog: Catalog
) -> list[int]:
    """Join the outcomes of a run whose predictions wait → the rows that must still be taken one by one.

    What is left over has ids that are not joined, so its turn may come after.
    """
    everything = list(range(len(events)))
    ids = compact_ids([e.prediction_id for e in events])
    if len(set(ids)) != len(ids):
        return everything
    found = list(map(join.pending.rows.get, ids))
    left: list[int] = []
    if None in found:
        left = [row for row, partner in enumerate(found) if partner is None]
        plain = [row for row, partner in enumerate(found) if partner is not None]
        if not plain or any(ids[row] in join.joined for row in left):
            return everything  # a correction must come before the pairs that push its own out of the memory
        ids, offsets, events = _pick(ids, plain), _pick(offsets, plain), _pick(events, plain)
        found = _pick(found, plain)
    return left if _join(join, at_ms, ids, events, offsets, cast(Sequence[PendingRow], found), catalog) else everything


def _join(
    join: PartitionJoin,
    at_ms: int,
    ids: Sequence[bytes],
    events: Sequence[Outcome],
    offsets: Sequence[int],
    found: Sequence[PendingRow],
    catalog: Catalog,
) -> bool:
    """Join outcomes with the predictions found for them → False, and nothing done, if one of them does not fit."""
    values = [e.outcome for e in events]
    refs = [row.ref for row in found]
    groups = _groups(refs)
    tasks: dict[int, bool] = {}
    for ref, rows in groups.items():
        name = join.refs[ref][0]
        model = catalog.get(name)
        if model is None or not _fit(_pick(values, rows), model):
            return False
        if {e.model for e in _pick(events, rows)} - {None, name}:
            return False
        tasks[ref] = is_classification(model.task)
    join.pending.pop_all(ids)
    join.counters.outcomes += len(ids)
    join.counters.joined += len(ids)
    cohorts = [row.event_ms // MINUTE_MS for row in found]
    predicted = [row.value for row in found]
    delays = _delays(found, _times([e.observed_at for e in events], at_ms))
    for ref, rows in groups.items():
        _add(
            join.pairs(ref),
            tasks[ref],
            at_ms,
            _pick(offsets, rows),
            _pick(cohorts, rows),
            _pick(predicted, rows),
            _pick(values, rows),
            _pick(delays, rows),
        )
    numbers = [row.offset for row in found]
    times = [row.at_ms for row in found]
    remembered = list(map(JoinedRow, ids, repeat(at_ms), refs, predicted, values, numbers, times, cohorts))
    join.remember(remembered)
    join.effects.labelled.extend(map(LabelledPair, refs, numbers, offsets, times, repeat(at_ms), values))
    return True


def _add(
    pairs: Pairs,
    classification: bool,
    at_ms: int,
    offsets: Sequence[int],
    cohorts: Sequence[int],
    predicted: Sequence[Value],
    actual: Sequence[Value],
    delays: Sequence[int],
) -> None:
    minute = at_ms // MINUTE_MS
    pairs.seconds.extend(repeat(at_ms // 1000, len(offsets)))
    pairs.offsets.extend(offsets)
    for bucket, count in Counter(delays).items():
        pairs.delays[bucket] = pairs.delays.get(bucket, 0) + count
    if classification:
        pairs.errors.extend(map(ne, predicted, actual))
        for (cohort, said, was), count in Counter(zip(cohorts, predicted, actual, strict=True)).items():
            cell = (minute, cohort, said, was)
            pairs.cells[cell] = pairs.cells.get(cell, 0) + count
        return
    for cohort, said, was in zip(cohorts, predicted, actual, strict=True):
        error = float(said) - float(was)
        pairs.errors.append(error)
        pairs.add_moment(minute, cohort, error)


def _refs(join: PartitionJoin, names: Sequence[Name]) -> list[int] | None:
    """The number of each row's model, version and segment; None if one of them is new, which only happens once."""
    cache = join.refs_cache
    refs = list(map(cache.get, names))
    if None in refs:
        for name in set(names) - cache.keys():
            number = join.refs_index.get((name[0], str(name[1]), name[2] or ""))
            if number is None:
                return None
            cache[name] = number
        refs = list(map(cache.get, names))
    return [ref for ref in refs if ref is not None]


def _groups(refs: Sequence[int]) -> dict[int, list[int] | None]:
    """The rows of each ref; None stands for all of them, the usual case."""
    distinct = set(refs)
    if len(distinct) == 1:
        return {refs[0]: None}
    groups: dict[int, list[int] | None] = {ref: [] for ref in distinct}
    for row, ref in enumerate(refs):
        rows = groups[ref]
        if rows is not None:
            rows.append(row)
    return groups


def _pick(column: Sequence[T], rows: Sequence[int] | None) -> list[T]:
    return list(column) if rows is None else [column[row] for row in rows]


def _fit(values: Collection[Value], model: ModelState) -> bool:
    """Whether every value is plainly a value of the model (some that are not plain may still be)."""
    if not is_classification(model.task):
        return set(map(type, values)) <= NUMBER_TYPES
    if model.classes is not None:
        return set(model.classes).issuperset(values)
    return set(map(type, values)) <= CLASS_TYPES


def _times(times: Sequence[object], at_ms: int) -> list[int]:
    return [t if type(t) is int else at_ms if t is None else milliseconds(t) for t in times]  # type: ignore[arg-type]


def _delays(found: Sequence[PendingRow], observed: Sequence[int]) -> list[int]:
    return [(max(0, later - row.event_ms) // 1000).bit_length() for row, later in zip(found, observed, strict=True)]
