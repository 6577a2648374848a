"""What a checkpoint publishes of its pairs: a summary for each version, and the pairs by reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.cohorts import rounded
from detectors.four_rates import ACTUAL, OTHER, PREDICTED
from native import pairs as native
from streams.catalog import Positive
from streams.columns import Name
from streams.effects import MINUTE_MS, PAIR, Corrected, Effects
from streams.events import Value
from streams.records import Correction, Labelled, VersionPart
from streams.rows import Rows, States, chosen, one_behind_the_other
from streams.stretch import Mask
from streams.values import INT, TEXT, Codes, Floats, Ints, Kinds, Places, as_value, as_values, localised

SUMMARY_ROWS = 20_000
"""Pairs in one summary record: at most 20 bytes each, so a record stays below 512 kB."""
LABELLED_ROWS = 10_000
"""Rows in one labelled record: about 45 bytes each."""
Place = tuple[int, int, int]
"""Partition, epoch and sequence of a cut."""
DENSE = 1 << 16
"""A table of counts of so many cells is cheaper than sorting."""


def all_pairs(effects: Effects) -> Rows:
    """Every pair since the last checkpoint, in the order in which they became complete."""
    return one_behind_the_other(effects.pairs, PAIR)


def version_parts(
    pairs: Rows,
    effects: Effects,
    texts: Sequence[str],
    is_classes: Callable[[int], bool],
    positive_of: Callable[[int], Positive | None] = lambda _: None,
) -> dict[int, list[VersionPart]]:
    """The summary of each ref that something happened to, in parts of at most ``SUMMARY_ROWS`` pairs.

    ``positive_of`` gives the positive class of a ref of classes.

    All refs are counted in one pass: each call of numpy costs microseconds, and there may be hundreds of refs.
    """
    pairs = _in_order(pairs)
    columns = Columns.of(pairs)
    bounds = _bounds(columns.refs)
    arrived = Arrived.of(effects)
    corrected: dict[int, list[Corrected]] = {}
    for each in effects.corrected:
        corrected.setdefault(each.ref, []).append(each)
    refs = sorted(bounds.keys() | arrived.present | corrected.keys())
    classes = {ref for ref in refs if is_classes(ref)}
    positives = {ref: positive for ref in bounds if ref in classes and (positive := positive_of(ref)) is not None}
    found = _parts(columns, bounds, classes, _codes(pairs, bounds, positives, texts), positives.keys())
    as_classes, as_numbers = _apart(columns, bounds.keys(), classes)
    cells, moments = _cells(as_classes, texts), _moments(as_numbers)
    delays = _delays(columns)
    by_minute, by_class = _predicted(arrived, classes, texts)
    for ref in refs:
        first = found.setdefault(ref, [VersionPart.of("", "", [], [], np.empty(0, dtype=np.uint8))])[0]
        first.cells, first.moments, first.delays = cells.get(ref, []), moments.get(ref, []), delays.get(ref, {})
        first.predictions, first.classes = by_minute.get(ref, {}), by_class.get(ref, [])
        first.corrections = [_correction(each) for each in corrected.get(ref, ())]
    return found


def _in_order(pairs: Rows) -> Rows:
    """Pairs by (ref, second of completion, outcome offset), as they often are."""
    loops = native.loops()
    if loops is not None and loops.rise(pairs):
        return pairs
    refs, seconds, offsets = pairs["ref"], pairs["joined_ms"] // 1000, pairs["outcome_offset"]
    other, later = np.diff(refs), np.diff(seconds)
    rising = (other > 0) | ((other == 0) & ((later > 0) | ((later == 0) & (np.diff(offsets) > 0))))
    return pairs if rising.all() else chosen(pairs, np.lexsort((offsets, seconds, refs)))


@dataclass(frozen=True, slots=True)
class Columns:
    """What a summary says of pairs, a row each: of numbers they are ``off``, classes are ``wrong`` or not."""

    refs: Ints
    seconds: NDArray[np.uint32]
    offsets: Ints
    wrong: NDArray[np.uint8]
    off: Floats
    minutes: Ints
    """In which they became complete."""
    cohorts: Ints
    predicted: Ints
    """Classes as :func:`_classes` has them, and so are ``observed``."""
    observed: Ints
    delays: Ints
    """The label delays' buckets: that of s seconds is the number of bits of s."""

    @classmethod
    def of(cls, pairs: Rows) -> Columns:
        """Those of pairs."""
        loops = native.loops()
        found = cls(*(_columns(pairs) if loops is None else loops.columns(pairs)))
        return replace(found, cohorts=rounded(found.cohorts, found.minutes))

    def __len__(self) -> int:
        return len(self.refs)

    def where(self, rows: Any) -> Columns:
        """Some of them."""
        return Columns(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _columns(pairs: Rows) -> tuple[Any, ...]:
    """Those of :class:`Columns`; the cohorts are minutes yet."""
    wrong = pairs["number"] != pairs["outcome"]
    wrong |= (pairs["kind"] == TEXT) != (pairs["outcome_kind"] == TEXT)
    seconds = np.maximum(0, pairs["outcome_event_ms"] - pairs["event_ms"]) // 1000
    return (
        pairs["ref"].astype(np.int64),
        (pairs["joined_ms"] // 1000).astype("<u4"),
        pairs["outcome_offset"].astype(np.int64),
        wrong.astype(np.uint8),
        pairs["number"] - pairs["outcome"],
        pairs["joined_ms"] // MINUTE_MS,
        pairs["at_ms"] // MINUTE_MS,
        _classes(pairs["kind"], pairs["number"]),
        _classes(pairs["outcome_kind"], pairs["outcome"]),
        np.frexp(seconds.astype(np.float64))[1].astype(np.int64),
    )


def _apart(columns: Columns, refs: Set[int], classes: Set[int]) -> tuple[Columns, Columns]:
    """(pairs of classes, pairs of numbers); mostly all are of one kind, and nothing is copied."""
    if refs <= classes:
        return columns, columns.where(np.s_[:0])
    if not refs & classes:
        return columns.where(np.s_[:0]), columns
    of_classes = np.isin(columns.refs, list(classes))
    return columns.where(of_classes), columns.where(~of_classes)


def _bounds(refs: Ints) -> dict[int, tuple[int, int]]:
    """Ref → where its rows begin and end, of refs in order."""
    if not len(refs):
        return {}
    starts = np.flatnonzero(np.r_[True, refs[1:] != refs[:-1]])
    ends = [*starts[1:].tolist(), len(refs)]
    return {ref: (start, end) for ref, start, end in zip(refs[starts].tolist(), starts.tolist(), ends, strict=True)}


@dataclass(frozen=True, slots=True)
class Arrived:
    """New predictions, a row each."""

    refs: Codes
    minutes: Ints
    kinds: Kinds
    numbers: Floats

    @classmethod
    def of(cls, effects: Effects) -> Arrived:
        """Those since the last checkpoint."""
        if not effects.predicted:
            none = np.empty(0, dtype=np.int64)
            return cls(none.astype(np.int32), none, none.astype(np.uint8), none.astype(np.float64))
        return cls(*map(np.concatenate, zip(*effects.predicted, strict=True)))

    @property
    def present(self) -> Set[int]:
        """The refs that occur."""
        return set(np.flatnonzero(np.bincount(self.refs)).tolist()) if len(self.refs) else set()

    def where(self, rows: NDArray[np.bool_]) -> Arrived:
        """Some of them."""
        return Arrived(self.refs[rows], self.minutes[rows], self.kinds[rows], self.numbers[rows])


Classes = list[tuple[int, Value, int]]


def _predicted(
    arrived: Arrived, classes: Set[int], texts: Sequence[str]
) -> tuple[dict[int, dict[int, int]], dict[int, Classes]]:
    """(ref → minute of arrival → predictions, ref → (minute of arrival, predicted class, predictions))."""
    by_minute: dict[int, dict[int, int]] = {}
    by_class: dict[int, Classes] = {}
    present = arrived.present
    if present <= classes:
        of_classes, of_numbers = arrived, None
    else:
        chosen = np.isin(arrived.refs, list(classes))
        of_classes, of_numbers = arrived.where(chosen), arrived.where(~chosen)
    columns = of_classes.refs, of_classes.minutes, _classes(of_classes.kinds, of_classes.numbers)
    for (ref, minute, predicted), n in _counted(*columns):
        by_class.setdefault(ref, []).append((minute, _class(predicted, texts), n))
        minutes = by_minute.setdefault(ref, {})
        minutes[minute] = minutes.get(minute, 0) + n
    if of_numbers is not None:
        for (ref, minute), n in _counted(of_numbers.refs, of_numbers.minutes):
            by_minute.setdefault(ref, {})[minute] = n
    return by_minute, by_class


def _parts(
    pairs: Columns, bounds: Mapping[int, tuple[int, int]], classes: Set[int], codes: States, coded: Set[int]
) -> dict[int, list[VersionPart]]:
    """Ref → its pairs in one or more parts; version, segment and counts are not set. ``coded`` refs have codes."""
    found: dict[int, list[VersionPart]] = {}
    for ref, (start, end) in bounds.items():
        errors = pairs.wrong if ref in classes else pairs.off
        slices = [np.s_[at : min(end, at + SUMMARY_ROWS)] for at in range(start, end, SUMMARY_ROWS)]
        found[ref] = [VersionPart.of("", "", pairs.seconds[at], pairs.offsets[at], errors[at]) for at in slices]
        if ref in coded:
            for part, at in zip(found[ref], slices, strict=True):
                part.codes = codes[at].tobytes()
    return found


def _codes(
    pairs: Rows, bounds: Mapping[int, tuple[int, int]], positives: Mapping[int, Positive], texts: Sequence[str]
) -> States:
    """The code of each pair (:mod:`detectors.four_rates`), in one pass over all refs; without meaning for a ref that
    has no positive class.
    """
    if not positives:
        return np.empty(0, dtype=np.uint8)
    lengths = [end - start for start, end in bounds.values()]
    wanted, text, free = _wanted(bounds, positives, texts)
    if (loops := native.loops()) is not None:
        return loops.codes(pairs, np.cumsum(lengths), wanted, text, free)
    wanted, text, free = np.repeat(wanted, lengths), np.repeat(text, lengths), np.repeat(free, lengths)
    codes, other = np.zeros(len(pairs), dtype=np.uint8), np.zeros(len(pairs), dtype=np.bool_)
    for number, kind, bit in (("outcome", "outcome_kind", ACTUAL), ("number", "kind", PREDICTED)):
        values, is_text = pairs[number], pairs[kind] == TEXT
        codes |= ((values == wanted) & (is_text == text)) * np.uint8(bit)
        other |= ((values != 0.0) & (values != 1.0)) | is_text
    codes[free & other] = OTHER
    return codes


def _wanted(
    bounds: Mapping[int, tuple[int, int]], positives: Mapping[int, Positive], texts: Sequence[str]
) -> tuple[NDArray[np.float64], Mask, Mask]:
    """Of each ref the number of its positive class, whether that is a text, and whether it is only assumed."""
    columns: list[tuple[float, bool, bool]] = []
    for ref in bounds:
        positive = positives.get(ref)
        if positive is None:
            columns.append((np.nan, False, False))
        elif isinstance(positive.label, str):
            place = texts.index(positive.label) if positive.label in texts else np.nan  # nan: nobody has said it yet
            columns.append((place, True, False))
        else:
            columns.append((float(positive.label), False, not positive.declared))
    numbers, is_text, free = zip(*columns, strict=True)
    return np.array(numbers, dtype=np.float64), np.array(is_text, dtype=np.bool_), np.array(free, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Coded:
    """A column, or several, as codes below ``span``; ``stands_for`` gives the values that a code stands for."""

    codes: Ints
    span: int
    stands_for: Callable[[int], tuple[int, ...]]


def _coded(column: NDArray[np.integer]) -> Coded:
    low = int(column.min())
    span = int(column.max()) - low + 1
    if span <= DENSE:
        return Coded(column.astype(np.int64) - low, span, lambda code: (code + low,))
    distinct, codes = np.unique(column, return_inverse=True)
    return Coded(codes.astype(np.int64), len(distinct), lambda code: (int(distinct[code]),))


def _together(one: Coded, other: Coded) -> Coded:
    """Two columns as one."""
    codes, span = one.codes * other.span + other.codes, one.span * other.span

    def stands_for(code: int) -> tuple[int, ...]:
        return one.stands_for(code // other.span) + other.stands_for(code % other.span)

    if span <= DENSE:
        return Coded(codes, span, stands_for)
    distinct, codes = np.unique(codes, return_inverse=True)
    return Coded(codes.astype(np.int64), len(distinct), lambda code: stands_for(int(distinct[code])))


def _counted(*columns: NDArray[np.integer]) -> Iterator[tuple[tuple[int, ...], int]]:
    """The distinct rows of columns in order, and how often each occurs."""
    if not len(columns[0]):
        return
    if (loops := native.loops()) is not None:
        wide = [np.ascontiguousarray(column, dtype=np.int64) for column in columns]
        if (found := loops.counts(wide, DENSE)) is not None:
            yield from _dense(*found)
            return
    coded = reduce(_together, map(_coded, columns))
    counts = np.bincount(coded.codes)
    for code in np.flatnonzero(counts).tolist():
        yield coded.stands_for(code), int(counts[code])


def _dense(least: Sequence[int], spans: Sequence[int], counts: Ints) -> Iterator[tuple[tuple[int, ...], int]]:
    """The rows that occur, of those that could, from their numbers."""
    present = np.flatnonzero(counts)
    digits = np.unravel_index(present, tuple(spans))
    columns = [(digit + low).tolist() for digit, low in zip(digits, least, strict=True)]
    yield from zip(zip(*columns, strict=True), counts[present].tolist(), strict=True)


def _classes(kinds: Kinds, numbers: NDArray[np.float64]) -> Ints:
    """Classes as integers: twice the number, or twice the place of a text and one."""
    return np.asarray(2 * numbers.astype(np.int64) + (kinds == TEXT), dtype=np.int64)


def _class(code: int, texts: Sequence[str]) -> Value:
    return as_value(TEXT if code & 1 else INT, code >> 1, texts)


Cells = list[tuple[int, int, Value, Value, int]]
Moments = list[tuple[int, int, int, float, float, float]]


def _cells(pairs: Columns, texts: Sequence[str]) -> dict[int, Cells]:
    rows = _counted(pairs.refs, pairs.minutes, pairs.cohorts, pairs.predicted, pairs.observed)
    found: dict[int, Cells] = {}
    for (ref, minute, cohort, predicted, outcome), n in rows:
        cell = minute, cohort, _class(predicted, texts), _class(outcome, texts), n
        found.setdefault(ref, []).append(cell)
    return found


def _moments(pairs: Columns) -> dict[int, Moments]:
    found: dict[int, Moments] = {}
    if not len(pairs):
        return found
    coded = reduce(_together, map(_coded, (pairs.refs, pairs.minutes, pairs.cohorts)))
    errors = pairs.off
    counts = np.bincount(coded.codes)
    absolute, squared, signed = (np.bincount(coded.codes, weights=w) for w in (np.abs(errors), errors * errors, errors))
    for code in np.flatnonzero(counts).tolist():
        ref, minute, cohort = coded.stands_for(code)
        sums = float(absolute[code]), float(squared[code]), float(signed[code])
        found.setdefault(ref, []).append((minute, cohort, int(counts[code]), *sums))
    return found


def _delays(pairs: Columns) -> dict[int, dict[int, int]]:
    """Ref → pairs by label delay."""
    found: dict[int, dict[int, int]] = {}
    for (ref, bucket), n in _counted(pairs.refs, pairs.delays):
        found.setdefault(ref, {})[bucket] = n
    return found


def _correction(each: Corrected) -> Correction:
    return Correction(
        each.at_ms // 1000,
        each.joined_ms // MINUTE_MS,
        each.prediction_ms // MINUTE_MS,
        each.prediction,
        each.was,
        each.now,
    )


# --------------------------------------------------------------------------------------------------------- labelled


def labelled(
    place: Place, pairs: Rows, corrected: Sequence[Corrected], refs: Sequence[Name], texts: Sequence[str]
) -> Iterator[Labelled]:
    """The pairs of a cut by reference in records of at most ``LABELLED_ROWS``, then the corrected ones."""
    for start in range(0, len(pairs), LABELLED_ROWS):
        yield _labelled(place, pairs[start : start + LABELLED_ROWS], refs, texts)
    for start in range(0, len(corrected), LABELLED_ROWS):
        some = corrected[start : start + LABELLED_ROWS]
        values = as_values([each.now for each in some])
        chunk = np.zeros(len(some), dtype=PAIR)
        chunk["ref"] = [each.ref for each in some]
        chunk["offset"] = [each.prediction_offset for each in some]
        chunk["outcome_offset"] = [each.offset for each in some]
        chunk["at_ms"] = [each.prediction_ms for each in some]
        chunk["outcome_at_ms"] = [each.at_ms for each in some]
        chunk["outcome"], chunk["outcome_kind"] = values.numbers, values.kinds
        yield _labelled(place, chunk, refs, values.texts)


def _labelled(place: Place, pairs: Rows, names: Sequence[Name], texts: Sequence[str]) -> Labelled:
    models: Places[str] = Places()
    versions: Places[str] = Places()
    present, at = np.unique(pairs["ref"], return_inverse=True)
    places = [(models.add(names[ref][0]), versions.add(names[ref][1])) for ref in present.tolist()]
    codes = np.array(places, dtype="<u2").reshape(-1, 2)[at]
    numbers, own = localised(pairs["outcome_kind"], pairs["outcome"], texts)
    return Labelled(
        *place,
        models.items,
        versions.items,
        pairs["offset"].tobytes(),
        pairs["outcome_offset"].tobytes(),
        pairs["at_ms"].tobytes(),
        pairs["outcome_at_ms"].tobytes(),
        codes[:, 0].tobytes(),
        codes[:, 1].tobytes(),
        pairs["outcome_kind"].tobytes(),
        numbers.tobytes(),
        own,
    )
