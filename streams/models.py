"""Follows the model events: the catalog that the join and the monitor share, and the registration of new names."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from streams.catalog import Catalog, guess_task
from streams.codec import Undecodable, encode, headers, model_event_decoder
from streams.errors import RestartMe
from streams.events import MODEL_EVENT_TYPE, ModelEvent, ModelState, Prediction, Task
from streams.log import Log, Publisher
from streams.settings import Settings
from streams.topics import Topics

CATCH_UP_S = 60.0
SOURCE = "driftline/join"

log = structlog.get_logger(__name__)


class ModelEvents:
    """The model events read so far, folded into a :class:`Catalog`. Used from one thread at a time; blocking."""

    def __init__(self, settings: Settings, broker: Log, publisher: Publisher) -> None:
        self.catalog = Catalog()
        self._topic = Topics(settings.kafka.topic_prefix).model_events
        self._settings = settings
        self._publisher = publisher
        self._decoder = model_event_decoder()
        self._reader = broker.reader(self._topic)

    def start(self) -> None:
        """Read the whole topic, then register what the configuration declares and the log does not know."""
        self.catch_up()
        self._register(
            [
                ModelState(name, 0, declared.task, declared.classes, declared.positive, mode=declared.mode or "observe")
                for name, declared in self._settings.models.items()
                if declared.task is not None
            ]
        )

    def catch_up(self) -> None:
        """Read to the topic's end: whoever takes a partition needs every model that its last owner knew.

        A worker that has waited for its partitions, perhaps for days, would dead-letter the outcomes of a model that
        became known meanwhile.
        """
        for record in self._reader.read_to_end():
            self._apply(record.offset, record.value, record.headers)

    def refresh(self) -> None:
        """Take in what has come since; does not wait."""
        for record in self._reader.poll(0):
            self._apply(record.offset, record.value, record.headers)

    def register(self, predictions: Iterable[Prediction]) -> None:
        """Publish models that nobody declared, and wait until the log shows them: its first event of each decides for
        all."""
        states = []
        for made in predictions:
            task: Task = guess_task(made.prediction)
            states.append(ModelState(made.model, 0, task, mode="observe"))
            log.info("model.registered", model=made.model, task=task, version=str(made.version))
        self._register(states)

    def _register(self, states: Iterable[ModelState]) -> None:
        """Publish what the log does not know yet, all at once."""
        missing = {state.model: state for state in states if self.catalog.get(state.model) is None}
        kind = headers(MODEL_EVENT_TYPE.format(what="registered"), SOURCE)
        for model, state in missing.items():
            self._publisher.send(self._topic, encode(ModelEvent("registered", state)), key=model.encode(), headers=kind)
        self._publisher.flush()
        deadline = time.monotonic() + CATCH_UP_S
        while missing := {model: state for model, state in missing.items() if self.catalog.get(model) is None}:
            for record in self._reader.poll():
                self._apply(record.offset, record.value, record.headers)
            if time.monotonic() > deadline:
                named = ", ".join(map(repr, missing))
                raise RestartMe(f"the model events of {named} did not come back", "is the broker reachable?")

    def _apply(self, offset: int, value: bytes | None, record_headers: object) -> None:
        try:
            event = self._decoder.decode_any(value)
        except Undecodable as error:
            log.error("model_event.ignored", offset=offset, reason=error.reason, detail=str(error))
            event = None
        self.catalog.apply(offset, event)

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()
