"""Telling everybody what happened to a model: each change of state is published after it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from serving.repository import CorruptVersion, Repository
from streams.codec import Undecodable, encode, headers, model_event_decoder
from streams.errors import DriftlineError, MissingInput
from streams.events import MODEL_EVENT_TYPE, ModelEvent, ModelState
from streams.kafka import SafeProducer, TopicReader
from streams.settings import Settings
from streams.topics import Topics

SOURCE = "driftline/retrain"

log = structlog.get_logger("retrain")


class Announcer(Protocol):
    """Publishes model events."""

    def publish(self, event: ModelEvent) -> None:
        """Publish one event; returns once it is acknowledged."""

    def last_states(self) -> dict[str, ModelState]:
        """Model → the published state of the highest revision; reads `model-events` whole."""


class KafkaAnnouncer:
    """Publishes to `model-events`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.kafka
        self._topic = Topics(settings.kafka.topic_prefix).model_events
        self._producer: SafeProducer | None = None
        self._reader: TopicReader | None = None
        self._states: dict[str, ModelState] = {}

    def check(self) -> None:
        """Raise :class:`Unavailable` without a broker or the topic: better before a change than after it."""
        TopicReader(self._settings, self._topic).close()

    def publish(self, event: ModelEvent) -> None:
        """See :class:`Announcer`."""
        if self._producer is None:
            self._producer = SafeProducer(self._settings)
        kind = MODEL_EVENT_TYPE.format(what=event.kind)
        time = {"ce_time": event.at} if event.at else None
        self._producer.send(
            self._topic, encode(event), event.state.model.encode(), headers(kind, SOURCE, event_id(event), time)
        )
        self._producer.flush()

    def last_states(self) -> dict[str, ModelState]:
        """See :class:`Announcer`. Reads on from where it read to the last time; for one thread's use."""
        if self._reader is None:
            self._states, self._reader = {}, TopicReader(self._settings, self._topic)
        try:
            self._read(self._reader)
        except DriftlineError:  # what it had got before is lost with it
            self._reader.close()
            self._reader = None
            raise
        return dict(self._states)

    def _read(self, reader: TopicReader) -> None:
        decoder = model_event_decoder()
        for record in reader.read_to_end():
            try:
                state = decoder.decode_any(record.value, record.headers).state
            except Undecodable:
                continue  # somebody else's record: no state of ours is in it
            if state.model not in self._states or state.revision >= self._states[state.model].revision:
                self._states[state.model] = state

    def close(self) -> None:
        """Leave the broker."""
        if self._reader is not None:
            self._reader.close()
        if self._producer is not None:
            self._producer.close()


def event_id(event: ModelEvent) -> str:
    """The same for the same event, so that a reader can tell a repetition after a crash."""
    episode = event.trigger.get("startsAt", "")
    parts = (event.state.model, event.state.revision, event.kind, event.version, event.detail, episode)
    return "/".join(str(part) for part in parts if part not in (None, ""))


def republish(repository: Repository, announcer: Announcer, at: str) -> list[str]:
    """Publish the newest state of every model whose last change was not published → the models' names.

    A process may have died between the change and its event, and every reader's truth is the topic.
    """
    published = announcer.last_states()
    return [model for model in repository.models() if catch_up(repository, announcer, model, published, at)]


def catch_up(
    repository: Repository, announcer: Announcer, model: str, published: Mapping[str, ModelState], at: str
) -> bool:
    """Publish the newest state of a model unless it, or a newer one, is ``published`` → whether it was not."""
    state, last = repository.state(model), published.get(model)
    if state is None or (last is not None and last.revision >= state.revision):
        return False
    announcer.publish(_catching_up(repository, state, last, at))
    return True


class Untold:
    """Publishes what was changed and not published, by another process too, while this one runs.

    For one thread's use. A change is made before it is published, so a state is left to whoever made it until it is
    still unpublished at the next look.
    """

    def __init__(self, repository: Repository, announcer: Announcer) -> None:
        self._repository = repository
        self._announcer = announcer
        self._published: dict[str, ModelState] = {}
        self._before: dict[str, int] = {}
        """Model → the revision that was unpublished at the last look."""

    def look(self, at: str) -> list[str]:
        """Publish what is due → the models' names. The topic is read only if a state may be unpublished.

        Raises what the announcer raises; the next look tries again.
        """
        untold = self._untold()
        if untold:
            self._published = self._announcer.last_states()
            untold = self._untold()
        due = [model for model, revision in untold.items() if self._before.get(model) == revision]
        self._before = untold
        return [model for model in due if catch_up(self._repository, self._announcer, model, self._published, at)]

    def _untold(self) -> dict[str, int]:
        """Model → its revision in the repository, if none as new is known to be published."""
        found: dict[str, int] = {}
        for model in self._repository.models():
            state, last = self._repository.state(model), self._published.get(model)
            if state is not None and (last is None or last.revision < state.revision):
                found[model] = state.revision
        return found


def _catching_up(repository: Repository, state: ModelState, last: ModelState | None, at: str) -> ModelEvent:
    before = last.aliases if last else {}
    champion, challenger = state.aliases.get("champion"), state.aliases.get("challenger")
    common: dict[str, Any] = {"state": state, "at": at, "detail": "republished"}
    if champion is not None and champion != before.get("champion") and last is not None:
        if champion == before.get("previous") and "previous" not in state.aliases:
            gone = before["champion"]
            return described(repository, ModelEvent("rolledback", version=gone, **common))
        return described(repository, ModelEvent("promoted", version=champion, alias="champion", **common))
    if challenger is not None and challenger != before.get("challenger"):
        return described(repository, ModelEvent("candidate", version=challenger, alias="challenger", **common))
    return described(repository, ModelEvent("registered", version=champion, alias="champion", **common))


def described(repository: Repository, event: ModelEvent) -> ModelEvent:
    """The event with what the manifest of its version says; without that if the version is damaged or gone."""
    if event.version is None:
        return event
    model, version = event.state.model, int(event.version)
    event.uri = repository.uri(model, version)
    try:
        manifest = repository.manifest(model, version)
    except (CorruptVersion, MissingInput) as error:
        # The state has changed already, often because the version is damaged: who follows the states must learn it.
        log.warning("told without the version's details", model=model, version=version, reason=str(error))
        return event
    event.sha256 = manifest.sha256
    event.metrics = manifest.metrics
    event.parity = manifest.parity
    event.trained_from = manifest.trained_from
    event.trigger = event.trigger or manifest.trigger
    return event
