"""Events as foreign producers write them: any bytes and key, and on a recorded log any record time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, Message, Producer

from streams.codec import Header
from streams.log import Record
from tests.support.kafka import MAX_MESSAGE_BYTES

FLUSH_S = 120.0
RECORDED = {"message.timestamp.type": "CreateTime"}
"""Of a topic that keeps the record times that it is given: a recorded log."""


class EventProducer:
    """Publishes events whose key is the prediction id, with the partitioner that they need (murmur2)."""

    def __init__(self, bootstrap: str, **config: str | int | float | bool) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,  # or a retry could change the order of a log
                "linger.ms": 5,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                **config,
            }
        )
        self._failure: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def send(
        self,
        topic: str,
        value: bytes | dict[str, Any] | None,
        key: str | bytes | None = None,
        *,
        partition: int | None = None,
        at_ms: int | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Queue one record; a dict is sent as JSON under its ``prediction_id``."""
        if isinstance(value, dict):
            key = value.get("prediction_id") if key is None else key
            value = self.encoded(value)
        more: dict[str, int] = {}
        if partition is not None:
            more["partition"] = partition
        if at_ms is not None:
            more["timestamp"] = at_ms
        while True:
            try:
                self._producer.produce(
                    topic, value=value, key=key, headers=list(headers) or None, on_delivery=self._report, **more
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    @staticmethod
    def encoded(event: dict[str, Any]) -> bytes:
        """An event's data as bytes."""
        return json.dumps(event).encode()

    def flush(self) -> None:
        """Wait until everything is in the broker."""
        left = self._producer.flush(FLUSH_S)
        if left or self._failure:
            raise AssertionError(f"{left} records are not delivered: {self._failure}")

    def copy(self, records: Iterable[Record], topic: str) -> None:
        """Write records into another topic: same partitions, order, bytes and record times."""
        for record in records:
            self.send(
                topic,
                record.value,
                record.key,
                partition=record.partition,
                at_ms=record.at_ms,
                headers=record.headers,
            )
        self.flush()

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failure = self._failure or str(error)


def prediction(identity: str, model: str, value: Any, version: str = "1", **more: Any) -> dict[str, Any]:
    """A prediction's data."""
    return {"prediction_id": identity, "model": model, "version": version, "prediction": value, **more}


def outcome(identity: str, value: Any, **more: Any) -> dict[str, Any]:
    """An outcome's data."""
    return {"prediction_id": identity, "outcome": value, **more}
