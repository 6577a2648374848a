"""Replays one stream under several configurations side by side, and scores them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streams.errors import MissingInput
from streams.events import rfc3339
from streams.replay.outcomes import Outcomes, Seconds
from streams.replay.run import Course, Progress, Read, Run, replay
from streams.replay.score import Drift, Score, score
from streams.settings import Settings

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Policy:
    """A configuration by name. ``changes`` maps dotted settings to the values that differ from the current ones."""

    name: str
    settings: Settings
    changes: dict[str, Any]


class Comparison(msgspec.Struct):
    """What each policy made of the stream, the current configuration first. Times are stream time."""

    source: str
    begins: str
    ends: str
    outcomes: int
    models: list[str]
    drifts: list[str]
    cost_per_error: float | None
    policies: list[Score]
    limits: list[str]


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and what it takes to draw it: each model's outcomes, and whether its errors are amounts."""

    report: Comparison
    outcomes: Mapping[str, tuple[Seconds, bool]]
    stream_s: tuple[int, int]


def compare(
    source: str,
    course: Course,
    chunks: Iterable[Sequence[Read]],
    policies: Sequence[Policy],
    drifts: Sequence[Drift] = (),
    cost_per_error: float | None = None,
    model: str | None = None,
    limits: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Compared:
    """Feed the stream to every policy, of all models or of one. Blocking.

    Raises :class:`MissingInput` for a stream without an outcome (of that model).
    """
    runs = [Run(each.name, course, each.settings, model=model) for each in policies]
    counted = Outcomes(course.input_partitions, model)
    counted.begin_after(course.first_of_all)
    replay(course, _counting(chunks, counted), runs, progress)
    seconds = {name: each.fold() for name, each in sorted(counted.models.items())}
    seconds = {name: each for name, each in seconds.items() if len(each.at_s)}
    if not seconds:
        whose = f" of model {model!r}" if model is not None else ""
        known = ", ".join(sorted(counted.heard)[:10])
        raise MissingInput(
            f"{source} has no outcome{whose}", f"it has those of {known}" if known else "is this the right stream?"
        )
    begins = min(int(each.at_s[0]) for each in seconds.values())
    ends = max(int(each.at_s[-1]) for each in seconds.values()) + 1
    scores = [
        score(run.name, policy.changes, run.alerts, drifts, seconds, (begins, ends), cost_per_error)
        for run, policy in zip(runs, policies, strict=True)
    ]
    report = Comparison(
        source=source,
        begins=rfc3339(begins * 1000),
        ends=rfc3339(ends * 1000),
        outcomes=sum(int(each.outcomes.sum()) for each in seconds.values()),
        models=list(seconds),
        drifts=[_named(drift) for drift in drifts],
        cost_per_error=cost_per_error,
        policies=scores,
        limits=[*limits, *_short(begins, ends)],
    )
    return Compared(report, {n: (s, counted.models[n].regression) for n, s in seconds.items()}, (begins, ends))


def _counting(chunks: Iterable[Sequence[Read]], outcomes: Outcomes) -> Iterable[Sequence[Read]]:
    for chunk in chunks:
        outcomes.take(chunk)
        yield chunk


def _short(begins_s: int, ends_s: int) -> list[str]:
    if ends_s - begins_s >= DAY_S:
        return []
    hours = (ends_s - begins_s) / 3_600
    return [f"the stream has {hours:.2g} hours only: what is said of a week is extrapolated from them"]


def _named(drift: Drift) -> str:
    start = rfc3339(drift.start_s * 1000)
    return start if drift.end_s is None else f"{start}/{rfc3339(drift.end_s * 1000)}"
