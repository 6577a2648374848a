"""Steady traffic in a thread: predictions and their outcomes at a bounded rate, until it is told to end.

Among them duplicates, corrections and outcomes that come first; the error rate rises and falls, so that alerts fire
while something breaks.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from streams.events import Baseline, ModelState
from tests.support.driftline import Driftline
from tests.support.producer import EventProducer, outcome, prediction

BINARY = ModelState("loans", 1, "binary", [0, 1], 1, {"champion": "1"}, {"1": Baseline("accuracy", 0.95, 5_000, 0.003)})
REGRESSION = ModelState(
    "prices", 1, "regression", aliases={"champion": "1"}, baselines={"1": Baseline("mae", 1.0, 5_000, 0.01)}
)
STEP_S = 0.02
DELAY_ROWS = 300
DUPLICATE_EVERY, CORRECTED_EVERY, EARLY_EVERY, REGRESSION_EVERY = 97, 101, 89, 4


@dataclass(frozen=True)
class Shape:
    """What the traffic is like. ``skew_ms``: how far the events' own times are off, either way."""

    rows_per_s: int = 400
    seed: int = 1
    drift_row: int = 2_500
    recover_row: int = 12_000
    """Rows after which it begins anew: the drift is in each cycle."""
    poison: float = 0.0
    skew_ms: int = 0
    record_skew_ms: int = 0
    """How far the record times of predictions lie behind those of outcomes; 0: the broker gives them."""
    shuffle_rows: int = DELAY_ROWS


class Traffic:
    """Publishes until :meth:`end`. A failed delivery is raised there."""

    def __init__(self, driftline: Driftline, shape: Shape, **config: str | int | float | bool) -> None:
        self.sent: Counter[str] = Counter()
        self._topics = driftline.topics
        self._bootstrap = driftline.settings.kafka.bootstrap
        self._config = config
        self._shape = shape
        self._rng = random.Random(shape.seed)
        self._waiting: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def end(self) -> Counter[str]:
        """Send the outcomes that are due still and wait until the broker has everything → what was sent."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.sent

    def _run(self) -> None:
        try:
            with EventProducer(self._bootstrap, **self._config) as producer:
                began, rows = time.monotonic(), 0
                while not self._stop.wait(STEP_S):
                    due = int((time.monotonic() - began) * self._shape.rows_per_s)
                    for _ in range(min(due - rows, self._shape.rows_per_s)):  # an outage is not made up for at once
                        self._row(producer)
                    rows = due
                while self._waiting:
                    self._observe(producer, self._waiting.pop(0))
        except BaseException as error:  # noqa: BLE001 - raised by end()
            self._failure = error

    def _row(self, producer: EventProducer) -> None:
        shape, rng, number = self._shape, self._rng, self.sent["rows"]
        self.sent["rows"] += 1
        identity = f"row-{shape.seed}-{number}"
        bad = number % shape.recover_row >= shape.drift_row
        said: int | float
        if number % REGRESSION_EVERY == 0:
            said = round(rng.uniform(90, 110), 3)
            true: int | float = round(said + rng.gauss(0, 3.0 if bad else 1.25), 3)
            event = prediction(identity, REGRESSION.model, said)
        else:
            said = number % 2
            true = 1 - said if rng.random() < (0.4 if bad else 0.04) else said
            event = prediction(identity, BINARY.model, said, segment=rng.choice("ab"))
        observed = outcome(identity, true)
        if shape.skew_ms:
            now_ms = time.time_ns() // 1_000_000
            event["predicted_at"] = now_ms + rng.randint(-shape.skew_ms, shape.skew_ms)
            observed["observed_at"] = now_ms + rng.randint(-shape.skew_ms, shape.skew_ms)
        if number % EARLY_EVERY == 0:
            self._observe(producer, observed)
        else:
            self._waiting.append(observed)
        self._predict(producer, event)
        if number % DUPLICATE_EVERY == 0:
            self._predict(producer, event)
        if rng.random() < shape.poison:
            self.sent["poison"] += 1
            producer.send(rng.choice((self._topics.predictions, self._topics.outcomes)), b"\x93garbage", identity)
        if len(self._waiting) > shape.shuffle_rows:
            self._observe(producer, self._waiting.pop(rng.randrange(max(1, shape.shuffle_rows // 2))))

    def _predict(self, producer: EventProducer, event: dict[str, Any]) -> None:
        self.sent["predictions"] += 1
        skew_ms = self._shape.record_skew_ms
        at_ms = time.time_ns() // 1_000_000 - skew_ms if skew_ms else None
        producer.send(self._topics.predictions, event, at_ms=at_ms)

    def _observe(self, producer: EventProducer, event: dict[str, Any]) -> None:
        self.sent["outcomes"] += 1
        producer.send(self._topics.outcomes, event)
        # Only of outcomes that are sent after their prediction: two that differ and come first need a person.
        if self.sent["outcomes"] % CORRECTED_EVERY == 0 and isinstance(event["outcome"], int):
            number = int(event["prediction_id"].rpartition("-")[2])
            if number % EARLY_EVERY:
                self.sent["outcomes"] += 1
                producer.send(self._topics.outcomes, {**event, "outcome": 1 - event["outcome"]})
