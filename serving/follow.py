"""Following ``model-events``: the topic's history whole before the server is ready, then each promotion as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from serving.registry import CHAMPION, ModelRegistry
from serving.repository import Repository
from streams.codec import Undecodable, model_event_decoder
from streams.errors import DriftlineError
from streams.events import ModelState
from streams.log import Record

RETRY_S = 5.0
MAX_RETRY_S = 300.0
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


class Reader(Protocol):
    """What is needed of a :class:`streams.kafka.TopicReader`."""

    def read_to_end(self) -> Iterable[Record]:
        """Every record up to the end as it is now."""

    def poll(self) -> list[Record]:
        """The next records; an empty list after a short time without one."""

    def close(self) -> None:
        """Leave the broker."""


class ModelEventsFollower:
    """Applies model events to a registry from a thread of its own.

    A champion that cannot be loaded is tried again after ``retry_s``, then ever more seldom: an object store may show
    it later. ``failed`` is called once, from the thread, when the topic cannot be read any more.
    """

    def __init__(
        self,
        reader: Reader,
        registry: ModelRegistry,
        failed: Callable[[Exception], None],
        retry_s: float = RETRY_S,
    ) -> None:
        self._reader = reader
        self._events = ModelEvents()
        self._registry = registry
        self._failed = failed
        self._pending: dict[str, ModelState] = {}
        self._first_retry_s = self._retry_s = retry_s
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-events", daemon=True)

    def read_history(self, repository: Repository) -> None:
        """Serve the newest states that the repository and the whole topic know.

        A model of which the repository knows nothing is left to the other servers that share the topic, until it
        appears. Raises a :class:`DriftlineError` for a champion that cannot be loaded: nothing older could serve.
        """
        here = repository.models()
        for model in here:
            if (state := repository.state(model)) is not None:
                self._events.add(state)
        self._events.read(self._reader.read_to_end())
        for state in self._events.states.values():
            if state.model in here:
                self._registry.apply(state)
            elif CHAMPION in state.aliases:
                log.warning("the repository does not have this model", model=state.model)
                self._pending[state.model] = state

    def start(self) -> None:
        """Follow what comes after the history."""
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for state in self._events.read(self._reader.poll()):
                    self._apply(state)
                    self._retry_in(self._first_retry_s)
                if self._pending and time.monotonic() > self._retry_at:
                    self._retry()
        except DriftlineError as error:
            self._failed(error)
        except BaseException as error:
            self._failed(RuntimeError(f"model events cannot be followed: {error!r}"))
            raise

    def _retry(self) -> None:
        for state in list(self._pending.values()):
            self._apply(state)
        self._retry_in(min(MAX_RETRY_S, 2 * self._retry_s))

    def _retry_in(self, seconds: float) -> None:
        self._retry_s = seconds
        self._retry_at = time.monotonic() + seconds

    def _apply(self, state: ModelState) -> None:
        """Serve a state, or say why not and try again later."""
        self._pending.pop(state.model, None)
        try:
            self._registry.apply(state)
        except DriftlineError as error:
            self._pending[state.model] = state
            log.error("this state is not served", model=state.model, revision=state.revision, error=str(error))

    def stop(self) -> None:
        """End the thread, if it was started, and leave the broker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()
