"""Maintenance silences: asked for on the command line, recorded in ``model-events``, obeyed by the monitor.

A silence is an event like a freeze: it is in the log for ever, with its reason and who asked. It runs on stream time,
so a replay is silent in the same minutes; from where on it was known is in the monitor's cuts.
"""

from __future__ import annotations

import datetime as dt
import getpass
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from streams.catalog import Catalog
from streams.codec import encode, headers
from streams.errors import MissingInput, WrongSetting
from streams.events import MODEL_EVENT_TYPE, ModelEvent, Silence, rfc3339

SOURCE = "driftline/silence"
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LONGEST_S = 30 * 86_400
_DURATION = re.compile(r"(\d+)([smhd])")


@dataclass(frozen=True, slots=True)
class Span:
    """A silence in stream seconds, its end not included."""

    start_s: int
    end_s: int

    @classmethod
    def of(cls, silence: Silence) -> Span:
        """Its times as seconds."""
        return cls(_seconds(silence.starts_at), _seconds(silence.ends_at))

    def covers(self, at_s: int) -> bool:
        """Whether a second is silent."""
        return self.start_s <= at_s < self.end_s


def _seconds(time: str) -> int:
    return int(dt.datetime.fromisoformat(time).timestamp())


def duration_s(text: str) -> int:
    """Seconds of ``90m``, ``2h`` or ``1h30m``; raises :class:`WrongSetting` for anything else, and for over 30 days."""
    parts = _DURATION.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise WrongSetting(f"{text!r} is no duration", "write it as 30m, 2h, 1h30m or 3d")
    seconds = sum(int(number) * UNITS_S[unit] for number, unit in parts)
    if not 0 < seconds <= LONGEST_S:
        raise WrongSetting(
            f"a silence of {text} is none", "give more than nothing and at most 30d; ask again if it lasts"
        )
    return seconds


def begun(catalog: Catalog, model: str, now_ms: int, for_s: int, reason: str, by: str) -> ModelEvent:
    """The event that silences a model from now on. Raises :class:`MissingInput` for a model that nobody knows."""
    return _event(catalog, model, now_ms, Silence(rfc3339(now_ms), rfc3339(now_ms + for_s * 1000), reason, by))


def ended(catalog: Catalog, model: str, now_ms: int, by: str) -> ModelEvent:
    """The event that ends a model's silence now. Raises :class:`WrongSetting` if none is on."""
    known = catalog.silences.get(model)
    if known is None or Span.of(known).end_s * 1000 <= now_ms:
        raise WrongSetting(f"{model} is not silenced", "`driftline silence --list` shows what is")
    return _event(catalog, model, now_ms, msgspec.structs.replace(known, ends_at=rfc3339(now_ms), by=by))


def current(catalog: Catalog, now_ms: int) -> dict[str, Silence]:
    """The silences that are on, by model."""
    found = sorted(catalog.silences.items())
    return {model: silence for model, silence in found if Span.of(silence).end_s * 1000 > now_ms}


def encoded(event: ModelEvent) -> tuple[bytes, bytes, list[tuple[str, bytes | None]]]:
    """Value, key and headers for the topic ``model-events``."""
    kind = MODEL_EVENT_TYPE.format(what=event.kind)
    name = f"{event.state.model}/silenced/{event.at}"
    return encode(event), event.state.model.encode(), headers(kind, SOURCE, name, {"ce_time": event.at or ""})


def whoami() -> str:
    """user@host of this process, as far as the system knows."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user need not have a name
        return socket.gethostname()


def _event(catalog: Catalog, model: str, now_ms: int, silence: Silence) -> ModelEvent:
    state = catalog.get(model)
    if state is None:
        known: Iterable[str] = sorted(each.model for each in catalog)
        raise MissingInput(f"there is no model {model}", f"known are: {', '.join(known) or 'none'}")
    return ModelEvent("silenced", state, silence=silence, at=rfc3339(now_ms), by=silence.by, reason=silence.reason)
