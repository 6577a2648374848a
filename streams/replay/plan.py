"""The course of a live run, from its own cuts: what was in force up to when, and how many alerts there were by then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from streams.records import MonitorCut


@dataclass(frozen=True, slots=True)
class Step:
    """Stream time up to ``until_ms``: what it took effect under.

    ``model_events`` is the catalog's position; ``settings`` are as :func:`streams.monitor_effects.recorded` gives them,
    None where no cut tells them. ``alert_sequence`` numbers the last alert by the end of the step.
    """

    until_ms: int
    model_events: int
    settings: Mapping[str, Any] | None
    alert_sequence: int


def steps(cuts: Iterable[MonitorCut]) -> list[Step]:
    """The steps of one partition of the monitor, from the cuts that count, in order.

    A step ends where the catalog, the settings or the number of alerts changes. What the first cuts do not tell of the
    settings is taken from the first one that does.
    """
    found: list[Step] = []
    settings: Mapping[str, Any] | None = None
    for cut in cuts:
        if cut.settings is not msgspec.UNSET:
            if settings is None:
                found = [replace(each, settings=cut.settings) for each in found]
            settings = cut.settings
        step = Step(cut.watermark_ms, cut.model_events, settings, cut.alert_sequence)
        if found and replace(found[-1], until_ms=step.until_ms) == step:
            found[-1] = step
        else:
            found.append(step)
    return found
