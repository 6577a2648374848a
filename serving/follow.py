"""Following ``model-events``: the topic's history whole before the server is ready, then each promotion as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import structlog

from serving.registry import ModelRegistry
from serving.repository import Repository
from streams.codec import Undecodable, model_event_decoder
from streams.errors import DriftlineError
from streams.events import ModelState
from streams.kafka import Record, TopicReader

RETRY_S = 10.0
log = structlog.get_logger()


class ModelEvents:
    """Decodes model events and keeps the highest revision of each model's state."""

    def __init__(self) -> None:
        self._decoder = model_event_decoder()
        self.states: dict[str, ModelState] = {}

    def add(self, state: ModelState) -> bool:
        """Take a state in → whether it is the highest revision so far."""
        known = self.states.get(state.model)
        if known is not None and known.revision >= state.revision:
            return False
        self.states[state.model] = state
        return True

    def read(self, records: Iterable[Record]) -> list[ModelState]:
        """The new states among some records. What is no model event is logged and skipped."""
        found: dict[str, ModelState] = {}
        for record in records:
            try:
                state = self._decoder.decode_any(record.value, record.headers).state
            except Undecodable as error:
                log.warning("model event skipped", offset=record.offset, reason=error.reason, detail=str(error))
                continue
            if self.add(state):
                found[state.model] = state
        return list(found.values())


class ModelEventsFollower:
    """Applies model events to a registry from a thread of its own.

    A champion that cannot be loaded is tried again every ``RETRY_S``: an object store may show it later. ``failed`` is
    called once, from the thread, when the topic cannot be read any more.
    """

    def __init__(self, reader: TopicReader, registry: ModelRegistry, failed: Callable[[Exception], None]) -> None:
        self._reader = reader
        self._events = ModelEvents()
        self._registry = registry
        self._failed = failed
        self._pending: dict[str, ModelState] = {}
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-events", daemon=True)

    def read_history(self, repository: Repository) -> None:
        """Serve the newest states that the repository and the whole topic know.

        Raises a :class:`DriftlineError` for a champion that cannot be loaded: at the start nothing older could serve.
        """
        for model in repository.models():
            if (state := repository.state(model)) is not None:
                self._events.add(state)
        self._events.read(self._reader.read_to_end())
        for state in self._events.states.values():
            self._registry.apply(state)

    def start(self) -> None:
        """Follow what comes after the history."""
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for state in self._events.read(self._reader.poll()):
                    self.apply(state)
                if self._pending and time.monotonic() > self._retry_at:
                    for state in list(self._pending.values()):
                        self.apply(state)
        except DriftlineError as error:
            self._failed(error)
        except BaseException as error:
            self._failed(RuntimeError(f"model events cannot be followed: {error!r}"))
            raise

    def apply(self, state: ModelState) -> None:
        """Serve a state, or log why not and try again later."""
        self._pending.pop(state.model, None)
        try:
            self._registry.apply(state)
        except DriftlineError as error:
            self._pending[state.model] = state
            self._retry_at = time.monotonic() + RETRY_S
            log.error("the old version goes on serving", model=state.model, revision=state.revision, error=str(error))

    def stop(self) -> None:
        """End the thread, if it was started, and leave the broker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()
