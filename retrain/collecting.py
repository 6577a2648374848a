"""Waiting for the rows of a run: enough new ones, and older ones beside them as far as they are cheap to find."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrain.champion import fresh_ms
from retrain.dataset import Dataset, Problem, References, gather
from retrain.log import LabelledFeed, Log
from retrain.training import Refused
from serving.manifest import Manifest

WAIT_S = 0.5
HOUR_MS = 3_600_000
LOOKBACKS_MS = (HOUR_MS // 4, 2 * HOUR_MS, 16 * HOUR_MS, 120 * HOUR_MS, None)
"""How far before the new rows older ones are looked for, step by step: nobody knows how many labels an hour has."""
AHEAD_MS = 24 * HOUR_MS
"""By so much at most the clock of a host that makes versions is ahead of the log's: a wrong time zone."""


def made_ms(log: Log, manifest: Manifest, check: Callable[[], None]) -> int:
    """As :func:`retrain.champion.fresh_ms`; but of a version that was made of a file, if nothing was complete in the
    log since then, the time of the first labelled row that it predicted itself: its host's clock is ahead.
    """
    at_ms = fresh_ms(manifest)
    if manifest.trained_from.get("to_ms"):
        return at_ms  # the log's own time
    with closing(_complete_ms(log, manifest.model, None, at_ms, check)) as found:
        if any((complete_ms >= at_ms).any() for complete_ms in found):
            return at_ms
    with closing(_complete_ms(log, manifest.model, str(manifest.version), at_ms - AHEAD_MS, check)) as found:
        own = [complete_ms[complete_ms >= at_ms - AHEAD_MS] for complete_ms in found]
    return int(np.concatenate([[at_ms], *own]).min())


def _complete_ms(
    log: Log, model: str, version: str | None, since_ms: int, check: Callable[[], None]
) -> Generator[npt.NDArray[np.int64], None, None]:
    """Record by record, when pairs were complete; only those that one version predicted, if it is named."""
    feed = log.labelled(since_ms)
    try:
        while (records := feed.poll()) or not feed.at_end():
            check()
            for record in records:
                times = [np.frombuffer(each, dtype="<i8") for each in (record.prediction_ms, record.outcome_ms)]
                models, versions = np.asarray(record.models), np.asarray(record.versions)
                own = models[np.frombuffer(record.model, dtype="<u2")] == model
                if version is not None:
                    own &= versions[np.frombuffer(record.version, dtype="<u2")] == version
                yield np.maximum(*times)[own]
    finally:
        feed.close()


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects the rows of one model, ``maximum_rows`` of the newest at most."""

    log: Log
    problem: Problem
    maximum_rows: int

    def collect(
        self,
        fresh_ms: int,
        minimum: int,
        check: Callable[[], None],
        pause: Callable[[float], None],
        over: Callable[[], bool],
    ) -> Dataset:
        """Block until ``minimum`` rows complete at ``fresh_ms`` or later are usable → the newest rows there are.

        Raises :class:`Refused` once ``over`` says so, or if as many rows as are ever used hold too few.
        """
        references = References(self.problem.model, None, self.maximum_rows)
        needed, usable, fresh = minimum, 0, 0
        dropped: dict[str, int] = {}
        feed = self.log.labelled(fresh_ms)
        news = True
        try:
            while True:
                check()
                if _read(feed, references):
                    news = True
                    continue
                if not feed.at_end():
                    continue
                if news:  # counting takes a look at every row
                    news, fresh = False, references.complete_from(fresh_ms)
                    usable = max(0, fresh - sum(dropped.values()))
                if fresh >= needed:
                    self._add_older(references, fresh_ms, check)
                    dataset = gather(references.newest(), self.problem, self.log.predictions, check, fresh_ms)
                    usable = len(dataset) - dataset.row_after(fresh_ms - 1)
                    if usable >= minimum:
                        return replace(dataset, labelled=references.read)
                    dropped = dataset.dropped
                    # A scan costs as much as its range: look again only when enough rows may have come.
                    needed = fresh + minimum - usable
                if fresh >= self.maximum_rows or over():
                    why = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
                    raise Refused(
                        f"{usable} labelled rows since the change, {minimum} are needed"
                        + (f" (dropped: {why})" if why else "")
                    )
                pause(WAIT_S)
        finally:
            feed.close()

    def _add_older(self, references: References, fresh_ms: int, check: Callable[[], None]) -> None:
        for lookback_ms in LOOKBACKS_MS:
            if len(references) >= self.maximum_rows:
                return
            feed = self.log.labelled(None if lookback_ms is None else fresh_ms - lookback_ms)
            try:
                while _read(feed, references) or not feed.at_end():
                    check()
            finally:
                feed.close()


def _read(feed: LabelledFeed, references: References) -> bool:
    """Whether anything came."""
    records = feed.poll()
    for record in records:
        references.add(record)
    references.covers(feed.offsets())
    return bool(records)
