"""Telling everybody what happened to a model: each change of state is published after it was made."""

from __future__ import annotations

from typing import Any, Protocol

import structlog

from serving.repository import CorruptVersion, Repository
from streams.codec import Undecodable, encode, headers, model_event_decoder
from streams.errors import MissingInput
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
        """See :class:`Announcer`."""
        decoder = model_event_decoder()
        found: dict[str, ModelState] = {}
        with TopicReader(self._settings, self._topic) as reader:
            for record in reader.read_to_end():
                try:
                    state = decoder.decode_any(record.value, record.headers).state
                except Undecodable:
                    continue  # somebody else's record: no state of ours is in it
                if state.model not in found or state.revision >= found[state.model].revision:
                    found[state.model] = state
        return found

    def close(self) -> None:
        """Leave the broker."""
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
    told: list[str] = []
    for model in repository.models():
        state = repository.state(model)
        if state is None:
            continue
        last = published.get(model)
        if last is None or last.revision < state.revision:
            announcer.publish(_catching_up(repository, state, last, at))
            told.append(model)
    return told


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
