"""The training rows: labelled pairs of one model since the change point, newest first, with their features."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrain.coverage import Counting, Coverage
from retrain.training import Floats, TrainedTask
from serving.manifest import Feature
from streams.events import FullPrediction, Label, Value
from streams.records import Labelled, LabelledRow

MAX_FEATURE = float(np.finfo(np.float32).max)
Features = Mapping[str, float | int | str | bool | None] | Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Reference:
    """A labelled pair: where its prediction is, what its outcome was, and when it was complete."""

    partition: int
    prediction_offset: int
    outcome_offset: int
    complete_ms: int
    outcome: Value

    @property
    def at(self) -> tuple[int, int]:
        """Where the prediction is: partition and offset."""
        return self.partition, self.prediction_offset

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts pairs by time; ties by partition and outcome offset, so that every run sorts alike."""
        return self.complete_ms, self.partition, self.outcome_offset


class References:
    """The newest pairs of one model, of whatever `labelled` records were added, duplicates and corrections collapsed.

    Records come at least once: per prediction offset the highest outcome offset wins. ``since_ms`` is the change
    point; pairs complete before it do not count, and what was complete after ``until_ms`` is as if it had not come. At
    most ``maximum`` pairs are returned.
    """

    def __init__(
        self, model: str, since_ms: int | None, maximum: int = sys.maxsize, until_ms: int | None = None
    ) -> None:
        self._model = model
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._maximum = maximum
        self._rows: dict[tuple[int, int], Reference] = {}
        self.read: dict[int, tuple[int, int]] = {}
        """What :meth:`covers` was told: partition of `labelled` → half-open range of offsets."""

    def covers(self, offsets: Mapping[int, tuple[int, int]]) -> None:
        """The records at these offsets of `labelled` were added. They meet those of before, or overlap with them."""
        for partition, (start, end) in offsets.items():
            first, last = self.read.get(partition, (start, end))
            self.read[partition] = min(first, start), max(last, end)

    def add(self, record: Labelled) -> None:
        """Take the rows of the model in ``record``."""
        if self._model not in record.models:
            return
        index = record.models.index(self._model)
        for row in record.rows():
            if row.model == index:
                self._add(record.partition, row)
        if len(self._rows) > 2 * self._maximum:
            self._rows = {(r.partition, r.prediction_offset): r for r in self.newest()}

    def _add(self, partition: int, row: LabelledRow) -> None:
        key = (partition, row.prediction_offset)
        known = self._rows.get(key)
        if known is not None and known.outcome_offset >= row.outcome_offset:
            return
        complete_ms = max(row.prediction_ms, row.outcome_ms)
        if self._until_ms is not None and complete_ms > self._until_ms:
            return
        if self._since_ms is None or complete_ms >= self._since_ms:
            self._rows[key] = Reference(partition, row.prediction_offset, row.outcome_offset, complete_ms, row.outcome)

    def __len__(self) -> int:
        return min(len(self._rows), self._maximum)

    def complete_from(self, at_ms: int) -> int:
        """How many of the newest pairs were complete at ``at_ms`` or later."""
        return min(self._maximum, sum(row.complete_ms >= at_ms for row in self._rows.values()))

    def newest(self) -> list[Reference]:
        """The newest pairs in time order, oldest first."""
        return sorted(self._rows.values(), key=lambda r: r.order)[-self._maximum :]


def ranges(references: Iterable[Reference]) -> dict[int, tuple[int, int]]:
    """Partition → the half-open range of prediction offsets to scan."""
    found: dict[int, tuple[int, int]] = {}
    for r in references:
        start, stop = found.get(r.partition, (r.prediction_offset, 0))
        found[r.partition] = min(start, r.prediction_offset), max(stop, r.prediction_offset + 1)
    return found


class PredictionScan(Protocol):
    """Reads one partition of `predictions` once, from the lowest of ``offsets`` to the highest → those among them that
    still exist and decode, in order.
    """

    def __call__(self, partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """What a model answers: its features in order and, of a classifier, its classes by index.

    ``accepts_missing`` is how the version is served, and no part of the question: others may answer it otherwise.
    """

    model: str
    task: TrainedTask
    features: tuple[Feature, ...]
    classes: tuple[Label, ...]
    """Empty for a regression."""
    positive: Label | None = None
    accepts_missing: bool = field(default=False, compare=False)

    @property
    def positive_index(self) -> int | None:
        """The index of a binary model's positive class."""
        if self.task != "binary":
            return None
        return next((i for i, label in enumerate(self.classes) if same_class(label, self.positive)), 1)

    def encode(self, value: object) -> float | None:
        """A class's index or a number; None for what the model cannot answer."""
        if self.task == "regression":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return None
            return float(value)
        return next((float(i) for i, label in enumerate(self.classes) if same_class(label, value)), None)

    def row(self, features: Features | None) -> list[float] | str:
        """The features in the model's order, as serving takes them: NaN where a value is null, or a category that the
        model does not know if it accepts missing values; or why the row cannot be used.
        """
        if features is None:
            return "no_features"
        values: list[Any]
        if isinstance(features, Mapping):
            if any(feature.name not in features for feature in self.features):
                return "missing_feature"
            values = [features[feature.name] for feature in self.features]
        else:
            if len(features) != len(self.features):
                return "wrong_feature_count"
            values = list(features)
        row: list[float] = []
        for feature, value in zip(self.features, values, strict=True):
            if isinstance(value, str):
                if value in feature.categories:
                    row.append(float(feature.categories.index(value)))
                elif feature.categories and self.accepts_missing:
                    row.append(math.nan)
                else:
                    return "unknown_category" if feature.kind == "categorical" else "feature_not_a_number"
            else:
                row.append(math.nan if value is None else float(value))
        return row


def same_class(label: object, value: object) -> bool:
    """``true``, ``1`` and ``1.0`` are the same class; ``"1"`` is another."""
    return isinstance(label, str) == isinstance(value, str) and label == value


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows in time order, oldest first.

    ``target``: class indices, or numbers. ``served``: what the live model had answered, encoded alike (NaN where it
    cannot be). ``dropped``: reason → rows. ``offsets``: partition → scanned range of `predictions`. ``segments``: one a
    row, "" for a row without; empty if no row has one. ``labelled``: partition → range of `labelled` that was read.
    ``fresh_dropped`` and ``coverage`` are of rows that are new to the champion: those of them that were dropped, and
    which predictions have got outcomes (of a classifier).
    """

    features: Floats
    target: npt.NDArray[np.float64]
    served: npt.NDArray[np.float64]
    complete_ms: npt.NDArray[np.int64]
    dropped: dict[str, int]
    offsets: dict[int, tuple[int, int]]
    segments: tuple[str, ...] = ()
    labelled: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    fresh_dropped: dict[str, int] = field(default_factory=dict)
    coverage: Coverage | None = None

    def __len__(self) -> int:
        return len(self.target)

    def row_after(self, at_ms: int) -> int:
        """The first row that was complete after ``at_ms``; their number if none was."""
        return int(np.searchsorted(self.complete_ms, at_ms, side="right"))

    @property
    def sha256(self) -> str:
        """Hash of the rows that are used."""
        digest = hashlib.sha256()
        for array in (self.features, self.target):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def describe(self, topic: str, labelled_topic: str) -> dict[str, Any]:
        """Where the rows came from, as manifests and model events carry it: from `predictions` by way of `labelled`."""
        return {
            "topic": topic,
            "partitions": _plain(self.offsets),
            "labelled": {"topic": labelled_topic, "partitions": _plain(self.labelled)},
            "rows": len(self),
            "dropped": self.dropped,
            "from_ms": int(self.complete_ms[0]) if len(self) else None,
            "to_ms": int(self.complete_ms[-1]) if len(self) else None,
            "data_sha256": self.sha256,
        }


def _plain(offsets: Mapping[int, tuple[int, int]]) -> dict[str, list[int]]:
    return {str(partition): list(bounds) for partition, bounds in sorted(offsets.items())}


def gather(
    references: Sequence[Reference],
    problem: Problem,
    scan: PredictionScan,
    check: Callable[[], None] = lambda: None,
    fresh_ms: int | None = None,
) -> Dataset:
    """The features of ``references`` (in time order) by one sequential scan a partition.

    ``check`` is called for each row and may raise to abort. ``fresh_ms``: pairs complete from then on are new to the
    champion. In the same scan other predictions beside those of a classifier are looked at.
    """
    offsets = ranges(references)
    position = {(r.partition, r.prediction_offset): i for i, r in enumerate(references)}
    rows: list[list[float] | None] = [None] * len(references)
    target = np.full(len(references), np.nan)
    served = np.full(len(references), np.nan)
    segments = [""] * len(references)
    dropped = dict.fromkeys(range(len(references)), "prediction_gone")
    fresh = [i for i, r in enumerate(references) if fresh_ms is not None and r.complete_ms >= fresh_ms]
    counting = Counting([references[i].at for i in fresh] if problem.classes else [], len(problem.classes))
    for partition in sorted(offsets):
        wanted = {r.prediction_offset for r in references if r.partition == partition}
        beside = counting.offsets(partition)
        for offset, prediction in scan(partition, wanted | beside):
            check()
            if offset in beside:
                counting.look(partition, offset, _answered(prediction, problem))
            if offset not in wanted:
                continue
            i = position[partition, offset]
            usable = _usable(prediction, references[i], problem)
            if isinstance(usable, str):
                dropped[i] = usable
                continue
            dropped.pop(i, None)
            rows[i], target[i], served[i] = usable
            segments[i] = prediction.segment or ""
    kept = [i for i, row in enumerate(rows) if row is not None]
    table = np.asarray([row for row in rows if row is not None], dtype=np.float32)
    return Dataset(
        features=table.reshape(len(kept), len(problem.features)),
        target=target[kept],
        served=served[kept],
        complete_ms=np.asarray([references[i].complete_ms for i in kept], dtype=np.int64),
        dropped=dict(Counter(dropped.values())),
        offsets=offsets,
        segments=tuple(segments[i] for i in kept) if any(segments[i] for i in kept) else (),
        fresh_dropped=dict(Counter(dropped[i] for i in fresh if i in dropped)),
        coverage=counting.coverage([(references[i].at, served[i]) for i in fresh if i not in dropped]),
    )


def _answered(prediction: FullPrediction, problem: Problem) -> float | None:
    """What a prediction was, encoded; None of another model's, and of one whose row could not be used."""
    if prediction.model != problem.model or isinstance(problem.row(prediction.features), str):
        return None
    return problem.encode(prediction.prediction)


def _usable(
    prediction: FullPrediction, reference: Reference, problem: Problem
) -> tuple[list[float], float, float] | str:
    if prediction.model != problem.model:
        return "other_model"
    outcome = problem.encode(reference.outcome)
    if outcome is None:
        return "outcome_not_a_number" if problem.task == "regression" else "unknown_class"
    row = problem.row(prediction.features)
    if isinstance(row, str):
        return row
    if any(abs(value) > MAX_FEATURE for value in row):
        return "out_of_range"
    answered = problem.encode(prediction.prediction)
    return row, outcome, math.nan if answered is None else answered
