"""Predictions on their way to Kafka: never in the way of an answer, never lost quietly.

A request reserves room for its rows before the model runs and hands them over afterwards. Room is given back by the
broker's acknowledgement, so the bound holds for rows waiting anywhere. A few rows are encoded and queued on the spot
(15 µs; waking a thread for them took 40 % more CPU a request and doubled the slowest answers), many by a thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from serving.engine import Predicted
from serving.manifest import Manifest
from serving.metrics import ServeMetrics
from serving.protocol import Rows
from serving.registry import Loaded
from serving.shadow import ShadowScorer
from streams import codec
from streams.codec import Headers
from streams.errors import DriftlineError
from streams.events import PREDICTION_TYPE, FullPrediction, ShadowAnswer, rfc3339
from streams.log import Delivery

CHECK_S = 0.5
"""How long a failed delivery may go unnoticed while nothing is asked."""


INLINE_CELLS = 512
INLINE_WAITING = 20_000
"""On the spot only so many features a request, and only while so few rows wait: the client's own queue (1 GiB, 500,000
records), which would block, is then far from full."""

SHADOW_WAITING = 5_000
"""A shadow is asked only while so few rows wait: a slow one thins out its own comparison, and holds nothing up."""


class Sender(Protocol):
    """What :class:`streams.kafka.SafeProducer` does; a fake and it pass one contract suite."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        """Queue one record. Raises :class:`streams.errors.RestartMe` once a delivery has failed."""

    def check(self) -> None:
        """Raise :class:`streams.errors.RestartMe` once a delivery has failed."""

    def waiting(self) -> int:
        """Records not yet acknowledged."""

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait for every acknowledgement."""

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush and stop."""


class Full(Exception):
    """Too many predictions wait for Kafka."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The answered rows of one request."""

    manifest: Manifest
    rows: Rows
    predicted: Predicted
    ids: list[str]
    at_ms: int
    segment: str | None
    traceparent: str | None
    shadow: Loaded | None = None
    """Asked the same rows before they are sent, by the publisher's thread: no answer waits for it."""


class PredictionPublisher:
    """Sends batches. Thread-safe, but for :meth:`publish` and :meth:`close`, which belong to one thread.

    ``failed`` is called, from any thread, when predictions cannot be published any more.
    """

    def __init__(
        self,
        sender: Sender,
        topic: str,
        metrics: ServeMetrics,
        failed: Callable[[Exception], None],
        *,
        limit: int,
        features: bool,
    ) -> None:
        self._sender = sender
        self._topic = topic
        self._metrics = metrics
        self._failed = failed
        self._limit = limit
        self._features = features
        self._scorer = ShadowScorer(metrics)
        self._in_flight = 0
        self._counting = threading.Lock()
        self._handed_over = 0
        self._taken_over = 0
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        metrics.unpublished.set_function(lambda: self._in_flight)
        self._thread = threading.Thread(target=self._run, name="publish-predictions", daemon=True)
        self._thread.start()

    def reserve(self, rows: int) -> None:
        """Take room for ``rows``. Raises :class:`Full` when there is none."""
        with self._counting:
            if self._in_flight + rows > self._limit:
                raise Full
            self._in_flight += rows

    def release(self, rows: int) -> None:
        """Give room back that :meth:`reserve` took."""
        with self._counting:
            self._in_flight -= rows

    def publish(self, batch: Batch) -> None:
        """Take rows for which room was reserved. Never waits for the broker."""
        cells = len(batch.ids) * len(batch.manifest.signature.features)
        idle = self._handed_over == self._taken_over
        if idle and batch.shadow is None and cells <= INLINE_CELLS and self._in_flight <= INLINE_WAITING:
            self._send_or_fail(batch)
        else:
            self._handed_over += 1
            self._batches.put(batch)

    def _run(self) -> None:
        while True:
            try:
                batch = self._batches.get(timeout=CHECK_S)
            except queue.Empty:
                if not self._healthy():
                    return
                continue
            if batch is None or not self._send_or_fail(batch):
                return
            self._taken_over += 1

    def _healthy(self) -> bool:
        try:
            self._sender.check()
        except DriftlineError as error:
            self._failed(error)
            return False
        return True

    def _send_or_fail(self, batch: Batch) -> bool:
        try:
            self._send(batch)
        except DriftlineError as error:
            self._failed(error)
            return False
        except BaseException as error:
            self._failed(RuntimeError(f"predictions cannot be published: {error!r}"))
            raise
        return True

    def _send(self, batch: Batch) -> None:
        manifest, predicted = batch.manifest, batch.predicted
        at = rfc3339(batch.at_ms)
        extra = {"ce_time": at} | ({"traceparent": batch.traceparent} if batch.traceparent else {})
        source = f"/driftline/serve/{manifest.model}"
        rows = batch.rows.features(manifest.signature.names) if self._features else None
        shadow = self._shadow_answers(batch)
        for i, prediction_id in enumerate(batch.ids):
            event = FullPrediction(
                prediction_id=prediction_id,
                model=manifest.model,
                version=str(manifest.version),
                prediction=predicted.predictions[i],
                predicted_at=batch.at_ms,
                score=predicted.scores[i] if predicted.scores is not None else None,
                segment=batch.segment,
                probabilities=predicted.probabilities[i] if predicted.probabilities is not None else None,
                features=rows[i] if rows is not None else None,
                shadow=(shadow[i] if shadow is not None else None) or msgspec.UNSET,
            )
            self._sender.send(
                self._topic,
                codec.encode(event),
                key=prediction_id.encode(),
                headers=codec.headers(PREDICTION_TYPE, source, prediction_id, extra),
                delivered=self._acknowledged,
            )

    def _shadow_answers(self, batch: Batch) -> list[ShadowAnswer | None] | None:
        if batch.shadow is None:
            return None
        if self._in_flight - len(batch.ids) > SHADOW_WAITING:
            self._scorer.skip(batch.shadow, len(batch.ids))
            return None
        return self._scorer.answers(batch.shadow, batch.rows.tensor)

    def _acknowledged(self, _: Delivery) -> None:
        self.release(1)
        self._metrics.published.inc()

    def close(self) -> None:
        """Send what was handed over, wait for the acknowledgements and stop.

        Raises :class:`streams.errors.RestartMe` if some are missing.
        """
        self._batches.put(None)
        self._thread.join()
        self._scorer.close()
        self._sender.close()
