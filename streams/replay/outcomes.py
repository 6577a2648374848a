"""How many outcomes each model had, and how wrong they were, second by second: what delays and costs are counted in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.order import Inputs
from streams.records import Cut, Summary
from streams.replay.run import CheckpointRead, Read
from streams.values import Ints

FOLD_AFTER = 256
"""Additions after which those of equal seconds are put together."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seconds:
    """One entry a second, rising: outcomes completed in it, and their errors (wrong ones, or Σ|error|)."""

    at_s: Ints
    outcomes: Ints
    errors: Floats

    def between(self, from_s: int, to_s: int) -> tuple[int, float]:
        """(outcomes, errors) of the seconds from ``from_s`` up to but without ``to_s``."""
        start, end = np.searchsorted(self.at_s, (from_s, to_s))
        return int(self.outcomes[start:end].sum()), float(self.errors[start:end].sum())

    def binned(self, edges: Ints) -> tuple[Ints, Floats]:
        """(outcomes, errors) between each edge and the next."""
        at = np.searchsorted(self.at_s, edges)
        counts = np.concatenate(([0], np.cumsum(self.outcomes)))
        sums = np.concatenate(([0.0], np.cumsum(self.errors)))
        return np.diff(counts[at]), np.diff(sums[at])


EMPTY = Seconds(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


class ModelOutcomes:
    """The outcomes of one model, all versions and segments together."""

    def __init__(self) -> None:
        self.regression = False
        self._folded = EMPTY
        self._added: list[Seconds] = []

    def add(self, seconds: Ints, errors: Floats) -> None:
        """Take in one outcome an entry, in any order."""
        if not len(seconds):
            return
        self._added.append(_folded(seconds, np.ones(len(seconds), np.int64), np.abs(errors)))
        if len(self._added) >= FOLD_AFTER:
            self.fold()

    def fold(self) -> Seconds:
        """Everything so far."""
        if self._added:
            each = [self._folded, *self._added]
            self._added = []
            self._folded = _folded(
                np.concatenate([one.at_s for one in each]),
                np.concatenate([one.outcomes for one in each]),
                np.concatenate([one.errors for one in each]),
            )
        return self._folded


def _folded(seconds: Ints, outcomes: Ints, errors: Floats) -> Seconds:
    at_s, place = np.unique(seconds, return_inverse=True)
    counts = np.bincount(place, weights=outcomes, minlength=len(at_s)).astype(np.int64)
    sums = np.bincount(place, weights=errors, minlength=len(at_s)).astype(np.float64)
    return Seconds(at_s, counts, sums)


class Outcomes:
    """The outcomes of all models, or of ``only`` one, that the cuts let take effect, as monitors count them."""

    def __init__(self, input_partitions: int, only: str | None = None) -> None:
        self.models: dict[str, ModelOutcomes] = {}
        self.heard: set[str] = set()
        """Every model that the stream speaks of."""
        self.inputs = Inputs(input_partitions, lambda model: only is None or model == only)

    def begin_after(self, sequences: Mapping[tuple[int, str], int]) -> None:
        """Do without the summaries up to these sequences of (input partition, model): the log has them no more."""
        self.inputs.begin_after(sequences)

    def take(self, read: Sequence[Read]) -> None:
        """Take in records of ``summaries`` and ``checkpoints``."""
        for each in read:
            if isinstance(each, CheckpointRead):
                self.inputs.checkpoint(each.partition, each.offset, each.record)
                if isinstance(each.record, Cut):
                    self.heard.update(each.record.models)
            elif each.value is not None:
                self.inputs.summary(each.value)
        self._add(self.inputs.admit())
        self.inputs.fed(self.inputs.watermark_ms // 1000)

    def _add(self, admitted: Iterable[Summary]) -> None:
        for summary in admitted:
            model = self.models.setdefault(summary.model, ModelOutcomes())
            model.regression = model.regression or summary.task == "regression"
            for part in summary.versions:
                seconds, _, errors = part.columns()
                model.add(seconds, errors)
