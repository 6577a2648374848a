"""What a challenger would have answered: asked after the champion's answer is out, within bounds, for comparison alone.

Whatever goes wrong here costs the comparison some rows and nobody else anything: it is counted, and said once.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import onnxruntime
import structlog

from serving.engine import Features, Predicted
from serving.metrics import ServeMetrics
from serving.registry import Loaded
from streams.events import ShadowAnswer

TIME_LIMIT_S = 0.5
"""For the rows of one request, and for one call of the model: a longer call is ended, and the shadow given up."""
CHUNK_ROWS = 1_000
"""Rows a call."""
log = structlog.get_logger()


class ShadowScorer:
    """Asks shadows. For one thread's use; another, from the first shadow on, ends calls that take too long."""

    def __init__(self, metrics: ServeMetrics, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._metrics = metrics
        self._time_limit_s = time_limit_s
        self._call: tuple[float, onnxruntime.RunOptions] | None = None
        self._given_up: set[tuple[str, int]] = set()
        self._said: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None

    def _watching(self) -> None:
        while not self._stop.wait(self._time_limit_s / 2):
            call = self._call
            if call is not None and time.monotonic() - call[0] > self._time_limit_s:
                call[1].terminate = True

    def close(self) -> None:
        """End the thread. Whoever asks must have ended before: until then a call that does not end must be ended."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join()

    def skip(self, shadow: Loaded, rows: int) -> None:
        """Count rows that it is not asked about, because predictions wait already."""
        self._metrics.shadow_predictions.labels(shadow.engine.model, "skipped").inc(rows)

    def answers(self, shadow: Loaded, rows: Features) -> list[ShadowAnswer | None]:
        """One a row of [rows, features]; None where the shadow said nothing that could be compared."""
        key = shadow.engine.model, shadow.engine.version
        found: list[ShadowAnswer | None] = [None] * len(rows)
        if key in self._given_up:
            self.skip(shadow, len(rows))
            return found
        asked = np.arange(len(rows))
        if not shadow.engine.manifest.signature.accepts_missing:
            asked = asked[~np.isnan(rows).any(axis=1)]  # it would answer, and wrongly
        began = time.monotonic()
        scored = failed = 0
        for start in range(0, len(asked), CHUNK_ROWS):
            if time.monotonic() - began > self._time_limit_s:
                break
            chunk = asked[start : start + CHUNK_ROWS]
            try:
                said = _as_answers(key[1], self._ask(shadow, rows[chunk]))
                for i, answer in zip(chunk.tolist(), said, strict=True):
                    found[i] = answer
            except Exception as error:  # noqa: BLE001 — the runtime's classes have no base; nothing may reach an answer
                failed += len(chunk)
                self._complain(key, error)
                if key in self._given_up:
                    break
                continue
            scored += len(chunk)
        for result, count in (("scored", scored), ("failed", failed), ("skipped", len(rows) - scored - failed)):
            self._metrics.shadow_predictions.labels(key[0], result).inc(count)
        return found

    def _ask(self, shadow: Loaded, rows: Features) -> Predicted:
        if self._watch is None:
            self._watch = threading.Thread(target=self._watching, name="shadow-time-limit", daemon=True)
            self._watch.start()
        began, options = time.monotonic(), onnxruntime.RunOptions()
        self._call = began, options
        try:
            return shadow.engine.predict(rows, options)
        finally:
            self._call = None
            if time.monotonic() - began > self._time_limit_s:
                self._given_up.add((shadow.engine.model, shadow.engine.version))
            shadow.seconds.observe(time.monotonic() - began)

    def _complain(self, key: tuple[str, int], error: Exception) -> None:
        if key not in self._said:
            self._said.add(key)
            reason = "it took too long" if key in self._given_up else str(error).splitlines()[0]
            log.warning("the shadow does not answer", model=key[0], version=key[1], reason=reason)


def _as_answers(version: int, said: Predicted) -> list[ShadowAnswer]:
    scores = said.scores if said.scores is not None else [None] * len(said.predictions)
    return [
        ShadowAnswer(str(version), prediction, score)
        for prediction, score in zip(said.predictions, scores, strict=True)
    ]
