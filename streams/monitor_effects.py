"""The settings that change what the monitor says, as its cuts record them by value, and settings from that again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from streams.errors import StateMismatch
from streams.settings import ModelSettings, MonitorSettings, Settings


def recorded(settings: Settings) -> dict[str, Any]:
    """What a cut says of the settings: the section ``monitor`` whole, and what is declared of each model."""
    return {
        "monitor": settings.monitor.model_dump(mode="json"),
        "models": {name: each.model_dump(mode="json", exclude_none=True) for name, each in settings.models.items()},
    }


def in_force(settings: Settings, record: Mapping[str, Any]) -> Settings:
    """``settings`` with what a cut recorded in their place.

    Raises :class:`StateMismatch` for settings that this release does not know: another one wrote the cut.
    """
    try:
        return settings.model_copy(
            update={
                "monitor": MonitorSettings.model_validate(record["monitor"]),
                "models": {name: ModelSettings.model_validate(each) for name, each in record["models"].items()},
            }
        )
    except (ValidationError, KeyError, AttributeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first is not None else repr(error)
        raise StateMismatch(
            f"the monitor's cuts record settings that this release does not have ({what})",
            "replay with the release that wrote them, or without --check",
        ) from None
