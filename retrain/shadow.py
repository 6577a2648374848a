"""Rows after a promotion: what the promoted version answered, and what older versions would have answered to the same.

Only pairs complete after the newest row that the promoted version was made of count, whoever predicted them: with late
labels the first of them are of its predecessor, and the promoted version is scored on those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrain.comparison import MetricName
from retrain.dataset import Dataset, PredictionScan, Problem, Reference, gather
from retrain.log import LabelledFeed, Log
from retrain.run import Answers, absolute_errors, metric_of
from streams.events import Baseline
from streams.records import Labelled

Errors = npt.NDArray[np.float64]
Batch = tuple[list[Reference], list[Reference]]
"""Rows in time order: those that the watched version predicted, and the others."""
SCALE = 4.0
"""Of a regression: a difference of errors counts up to so many mean absolute errors of the version in its test."""
BATCH_ROWS = 500
"""Rows that are compared before the log is read further."""
KEEP_EVERY = 1.2
"""The evidence so far is persisted when there are so many times the rows: each time is a step of the run."""


def bet_scale(problem: Problem, baseline: Baseline | None) -> float:
    """The largest difference of absolute errors that a paired bet counts, in the errors' units; 1 for classes."""
    if problem.task != "regression":
        return 1.0
    return max(SCALE * (baseline.value if baseline is not None else 1.0), 1e-12)


def worth_keeping(compared: int, kept: int) -> bool:
    """Whether the evidence of ``compared`` rows is persisted now, if that of ``kept`` was the last."""
    return compared >= max(1.0, KEEP_EVERY * kept)


@dataclass(frozen=True, slots=True)
class ShadowErrors:
    """Absolute errors on the same rows in time order: the promoted version's, and each older version's by its name.

    ``complete_ms``: when each row was complete, in stream time.
    """

    promoted: Errors
    shadows: Mapping[str, Errors]
    complete_ms: npt.NDArray[np.int64]

    def first(self, rows: int) -> ShadowErrors:
        """Those of the oldest ``rows``."""
        shadows = {version: errors[:rows] for version, errors in self.shadows.items()}
        return ShadowErrors(self.promoted[:rows], shadows, self.complete_ms[:rows])


@dataclass(frozen=True, slots=True)
class _Waiting:
    reference: Reference
    own: bool
    """Whether the promoted version predicted it."""


class ShadowRows:
    """The labelled pairs of one model, in the order in which they come, each once: its first outcome counts.

    ``after_ms`` is the stream time of the newest row that the watched version has seen. Who is done with them
    calls :meth:`close`.
    """

    def __init__(self, log: Log, model: str, version: str, after_ms: int) -> None:
        self._log = log
        self._model = model
        self._version = version
        self._after_ms = after_ms
        self._feed: LabelledFeed | None = None
        self._seen: set[tuple[int, int]] = set()
        self._waiting: list[_Waiting] = []

    def batches(self, check: Callable[[], None]) -> Iterator[Batch]:
        """Up to ``BATCH_ROWS`` at a time, as :meth:`take` gives them, until the log ends as it is now."""
        if self._feed is None:
            self._feed = self._log.labelled(self._after_ms)
        while True:
            check()
            records = self._feed.poll()
            for record in records:
                self.add(record)
            ended = not records and self._feed.at_end()
            if len(self._waiting) >= BATCH_ROWS or (ended and self._waiting):
                yield self.take(BATCH_ROWS)
            elif ended:
                return

    def close(self) -> None:
        """Leave the log."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def add(self, record: Labelled) -> None:
        """Take the rows of the model in ``record``."""
        if self._model not in record.models:
            return
        index = record.models.index(self._model)
        for row in record.rows():
            complete_ms = max(row.prediction_ms, row.outcome_ms)
            key = (record.partition, row.prediction_offset)
            if row.model != index or complete_ms <= self._after_ms or key in self._seen:
                continue
            self._seen.add(key)
            reference = Reference(record.partition, row.prediction_offset, row.outcome_offset, complete_ms, row.outcome)
            self._waiting.append(_Waiting(reference, record.versions[row.version] == self._version))

    def take(self, limit: int) -> Batch:
        """The oldest ``limit`` rows that wait: those that the promoted version predicted, and the others."""
        self._waiting.sort(key=lambda w: w.reference.order)
        taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return [w.reference for w in taken if w.own], [w.reference for w in taken if not w.own]


def score(
    rows: Batch,
    problem: Problem,
    promoted: Answers,
    shadows: Mapping[str, Answers],
    scan: PredictionScan,
    check: Callable[[], None],
) -> ShadowErrors:
    """The errors on ``rows``, of :meth:`ShadowRows.take`; rows without usable features are left out.

    What the promoted version answered counts as it was published; to what another predicted it is asked now.
    """
    metric = metric_of(problem)
    parts = [gather(references, problem, scan, check) for references in rows]
    complete_ms = np.concatenate([part.complete_ms for part in parts])
    order = np.argsort(complete_ms, kind="stable")
    own, others = parts
    said = [own.served, promoted(others.features) if len(others) else others.served]
    ours = _errors(metric, parts, said)
    theirs = {
        version: _errors(metric, parts, [answers(p.features) if len(p) else p.served for p in parts])
        for version, answers in shadows.items()
    }
    usable = np.isfinite(ours)
    for errors in theirs.values():
        usable &= np.isfinite(errors)
    chosen = order[usable[order]]
    return ShadowErrors(
        ours[chosen], {version: errors[chosen] for version, errors in theirs.items()}, complete_ms[chosen]
    )


def _errors(metric: MetricName, parts: Sequence[Dataset], answered: Sequence[Errors]) -> Errors:
    return np.concatenate([absolute_errors(metric, a, part.target) for part, a in zip(parts, answered, strict=True)])
