"""How many labels a model has got since its last run: what a run by number of new labels waits for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import structlog

from retrain.champion import fresh_ms
from retrain.training import Refused
from serving.repository import CorruptVersion, Repository
from streams.errors import MissingInput
from streams.records import Labelled

MOST = 100_000
"""Milliseconds of a model that are kept, the newest: a run by labels needs fewer."""

log = structlog.get_logger("retrain")


class LabelCounts:
    """Labels by model and time at which their pair was complete. A record that comes twice counts twice, so a run may
    begin a little early; it counts its rows itself.
    """

    def __init__(self) -> None:
        self._known: dict[str, Counter[int]] = {}
        self._from_ms: dict[str, int] = {}
        self._fresh_ms: dict[tuple[str, int], int] = {}
        self._told: dict[str, str] = {}

    def add(self, record: Labelled) -> None:
        """Count the pairs of a record."""
        complete_ms = np.maximum(
            np.frombuffer(record.prediction_ms, dtype="<i8"), np.frombuffer(record.outcome_ms, dtype="<i8")
        )
        models = np.frombuffer(record.model, dtype="<u2")
        for index, model in enumerate(record.models):
            since_ms = self._from_ms.get(model, 0)
            own = complete_ms[models == index]
            found, counts = np.unique(own[own >= since_ms], return_counts=True)
            known = self._known.setdefault(model, Counter())
            known.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            if len(known) > 2 * MOST:
                self._known[model] = Counter({at_ms: known[at_ms] for at_ms in sorted(known)[-MOST:]})

    def forget(self, model: str, before_ms: int) -> None:
        """What was complete before counts no more."""
        if before_ms <= self._from_ms.get(model, 0):
            return
        self._from_ms[model] = before_ms
        known = self._known.get(model, Counter())
        self._known[model] = Counter({at_ms: n for at_ms, n in known.items() if at_ms >= before_ms})

    def count(self, model: str) -> int:
        """The labels that count."""
        return self._known.get(model, Counter()).total()

    def fresh_ms(self, model: str, version: int, repository: Repository) -> int | None:
        """Since when, in stream time, no row had a part in a version; asked of the repository once.

        None for a version whose manifest cannot be used: each cause is told once, and the other models go on.
        """
        known = self._fresh_ms.get((model, version))
        if known is not None:
            return known
        try:
            known = self._fresh_ms[model, version] = fresh_ms(repository.manifest(model, version))
        except (CorruptVersion, MissingInput, Refused) as error:
            if self._told.get(model) != str(error):
                log.error("no runs by labels or schedule", model=model, version=version, reason=str(error))
            self._told[model] = str(error)
            return None
        self._told.pop(model, None)
        return known
