"""Predictions whose outcomes come late, in dumps, of one class or not at all, as a log for the monitor's tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.cohorts import rounded
from streams.catalog import Catalog
from streams.events import Alert
from streams.monitor import MonitorPartition
from streams.records import Correction, Summary, Take, VersionPart
from streams.settings import Settings
from tests.unit.streams.monitor_log import START_S, Log, cut, events, fresh

Seconds = NDArray[np.int64]
DAY_S = 86_400
MIDNIGHT_S = START_S - START_S % DAY_S + DAY_S
NEVER = -1
STEP = 100
"""Checkpoints that a monitor reads at once: one that read a month at once would be busy looking for the next minute."""


@dataclass(frozen=True)
class Traffic:
    """A row a prediction: when it was made, what it said, what was true, and when that arrived (or :data:`NEVER`)."""

    at_s: Seconds
    predicted: Seconds
    actual: Seconds
    known_s: Seconds
    segment: str = ""
    """The one that every row is of."""

    def delayed(self, delay_s: Seconds | int) -> Traffic:
        """Each outcome so long after its prediction."""
        return replace(self, known_s=self.at_s + delay_s)

    def dumped(self, second_of_day: int, span_s: int = 1) -> Traffic:
        """All outcomes of a day in the next night, within ``span_s``, in the order of their predictions."""
        dump_s = self.at_s - self.at_s % DAY_S + DAY_S + second_of_day
        place = (self.at_s % DAY_S) * span_s // DAY_S
        return replace(self, known_s=dump_s + place)

    def blocked(self, from_s: int, to_s: int, predicted: int | None = None, *, back: bool = True) -> Traffic:
        """What would have come within a time comes at its end, or (``back``) never; of one class only, or of all."""
        held = (self.known_s >= from_s) & (self.known_s < to_s)
        if predicted is not None:
            held &= self.predicted == predicted
        return replace(self, known_s=np.where(held, to_s if back else NEVER, self.known_s))


def traffic(
    minutes: int,
    errors: tuple[float, float] = (0.03, 0.1),
    positive: float = 0.3,
    a_minute: int = 20,
    start_s: int = MIDNIGHT_S,
    seed: int = 0,
    drift: tuple[int, tuple[float, float]] | None = None,
) -> Traffic:
    """Evenly spaced predictions, ``positive`` of them 1, wrong at a rate of each class; outcomes come at once.

    ``drift``: from a minute on the rates are others.
    """
    rng = np.random.default_rng(seed)
    n = minutes * a_minute
    at = start_s + np.arange(n, dtype=np.int64) * 60 // a_minute
    predicted = (rng.random(n) < positive).astype(np.int64)
    rates = np.asarray(errors)[predicted]
    if drift is not None:
        rates = np.where(at >= start_s + 60 * drift[0], np.asarray(drift[1])[predicted], rates)
    wrong = rng.random(n) < rates
    return Traffic(at, predicted, np.where(wrong, 1 - predicted, predicted), at.copy())


def log_of(found: Traffic, ends_s: int, every_s: int = 60, corrected: dict[int, int] | None = None) -> Log:
    """One partition's log, a checkpoint every so many seconds; ``corrected``: row → second of another outcome."""
    order, by_known = np.argsort(found.at_s, kind="stable"), np.argsort(found.known_s, kind="stable")
    made, known = found.at_s[order], found.known_s[by_known]
    moved = sorted((second, row) for row, second in (corrected or {}).items())
    log = Log(checkpoints=[[msgspec.json.encode(Take(0, 1, "t", "w"))]])
    start = int(made[0]) - int(made[0]) % every_s
    sequence = 0
    for number, begin in enumerate(range(start, ends_s, every_s), 1):
        end = begin + every_s
        new = order[np.searchsorted(made, begin) : np.searchsorted(made, end)]
        first, last = np.searchsorted(known, max(0, begin)), np.searchsorted(known, end)
        pairs = by_known[first:last]
        corrections = [row for second, row in moved if begin <= second < end]
        touched = {}
        if len(new) or len(pairs) or corrections:
            sequence += 1
            part = _part(found, new, pairs, int(first))
            part.corrections = [_correction(found, row, (corrected or {})[row]) for row in corrections]
            log.summaries.append(msgspec.msgpack.encode(Summary(0, 1, sequence, "loan", "binary", [part])))
            touched = {"loan": sequence}
        log.checkpoints[0].append(msgspec.json.encode(cut(0, number, end * 1000, touched)))
    return log


def _part(found: Traffic, new: Seconds, pairs: Seconds, offset: int) -> VersionPart:
    minutes = found.known_s[pairs] // 60
    cohorts = rounded(found.at_s[pairs] // 60, minutes)
    said, true = found.predicted[pairs], found.actual[pairs]
    cells = Counter(zip(minutes.tolist(), cohorts.tolist(), said.tolist(), true.tolist(), strict=True))
    classes = Counter(zip((found.at_s[new] // 60).tolist(), found.predicted[new].tolist(), strict=True))
    predictions: Counter[int] = Counter((found.at_s[new] // 60).tolist())
    return VersionPart.of(
        "1",
        found.segment,
        found.known_s[pairs],
        offset + np.arange(len(pairs)),
        (said != true).astype(np.uint8),
        cells=[(*cell, n) for cell, n in sorted(cells.items())],
        predictions=dict(predictions),
        classes=[(*of, n) for of, n in sorted(classes.items())],
        codes=(true | 2 * said).astype(np.uint8).tobytes(),
    )


def _correction(found: Traffic, row: int, second: int) -> Correction:
    known, said, was = int(found.known_s[row]), int(found.predicted[row]), int(found.actual[row])
    return Correction(second, known // 60, int(found.at_s[row]) // 60, said, was, 1 - was)


def watched(log: Log, configuration: Settings, catalog: Catalog) -> MonitorPartition:
    """A monitor that has read a whole log; its alerts are in the outbox."""
    monitor = fresh(configuration, 1)
    summaries = 0
    for offset, value in enumerate(log.checkpoints[0]):
        for number in range(summaries, min(len(log.summaries), offset)):
            monitor.summary(number, log.summaries[number])
        summaries = max(summaries, offset)
        monitor.checkpoint_record(0, offset, value)
        if offset % STEP == 0:
            monitor.advance(catalog)
    monitor.advance(catalog)
    return monitor


def told(log: Log, configuration: Settings, catalog: Catalog) -> list[Alert]:
    """The alerts of a log."""
    return events([each.alert for each in watched(log, configuration, catalog).outbox])


def at_minute(alert: Alert, start_s: int = MIDNIGHT_S) -> float:
    """When an alert that begins was told, in minutes from the start of the traffic."""
    assert alert.drift is not None
    assert alert.drift.detected_at is not None
    told_at = max(alert.starts_at, alert.drift.detected_at)
    return float(np.datetime64(told_at.rstrip("Z"), "ms").astype(np.int64) / 1000 - start_s) / 60
