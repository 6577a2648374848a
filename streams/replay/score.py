"""What a policy is worth: its alarms a week, how soon it finds drifts whose times are known, and what the wait costs.

An *alarm* is an episode that fires and would page (its severity is not ``info``); an *alert* is a record of the topic,
of which an alarm has several. A drift is *found* by the first alarm of the model that fires within it. Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec

from streams.alerts import OUTCOMES_MISSING, EncodedAlert
from streams.episodes import seconds
from streams.errors import WrongSetting
from streams.events import Alert
from streams.replay.outcomes import EMPTY, Seconds

WEEK_S = 7 * 86_400
FINDS_NO_DRIFT = frozenset({OUTCOMES_MISSING})
"""Alerts that say nothing of how good the model is."""

_alert = msgspec.json.Decoder(Alert)


@dataclass(frozen=True, slots=True)
class Drift:
    """A time at which something is known to have changed; it lasts to ``end_s``, or to the next one."""

    start_s: int
    end_s: int | None = None


class Alarm(msgspec.Struct):
    """An episode that fired. ``resolved_s`` is None while it goes on; epoch seconds of stream time."""

    model: str
    alertname: str
    severity: str
    fired_s: int
    resolved_s: int | None
    summary: str


class Finding(msgspec.Struct):
    """What became of one drift of one model: when it was found, if it was, and what happened until then.

    ``errors`` are wrong outcomes, or for a regression the sum of absolute errors.
    """

    model: str
    drift_s: int
    found_s: int | None
    delay_s: int | None
    outcomes: int
    errors: float


class Score(msgspec.Struct):
    """One policy. What is about drifts is None where no drift is given; costs where none is stated."""

    policy: str
    settings: dict[str, Any]
    alerts: int
    alarms: int
    alarms_per_week: float
    false_alarms: int | None
    false_alarms_per_week: float | None
    found: int | None
    of: int | None
    median_delay_s: float | None
    median_delay_outcomes: float | None
    errors: float | None
    cost: float | None
    episodes: list[Alarm]
    findings: list[Finding]


def parse_drift(text: str) -> Drift:
    """``2026-01-31T12:00:00Z`` or ``START/END``; epoch seconds are taken too. Raises :class:`WrongSetting`."""
    start, separator, end = text.partition("/")
    drift = Drift(_time(start, text), _time(end, text) if separator else None)
    if drift.end_s is not None and drift.end_s <= drift.start_s:
        raise WrongSetting(f"--drift {text} ends before it starts", "give START/END")
    return drift


def _time(text: str, whole: str) -> int:
    try:
        return int(float(text)) if _is_number(text) else _epoch_s(text)
    except (ValueError, OverflowError):
        raise WrongSetting(
            f"--drift {whole}: {text!r} is not a time", "for example 2026-01-31T12:00:00Z, or START/END"
        ) from None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _epoch_s(text: str) -> int:
    at = dt.datetime.fromisoformat(text)
    return int((at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp())


def alarms(alerts: Iterable[EncodedAlert]) -> list[Alarm]:
    """The episodes that fired, by the time at which they did."""
    found: dict[tuple[str, str], Alarm] = {}
    for encoded in alerts:
        alert = _alert.decode(encoded.value)
        episode = (alert.fingerprint, alert.starts_at)
        if alert.status == "resolved":
            if episode in found:
                found[episode].resolved_s = seconds(alert.ends_at)
            continue
        severity = alert.labels.get("severity", "")
        if episode in found:
            found[episode].severity = severity
        elif severity != "info":
            detected = alert.drift.detected_at if alert.drift is not None else None
            fired_s = seconds(detected or alert.starts_at)
            found[episode] = Alarm(
                *(alert.labels["model"], alert.labels["alertname"], severity, fired_s, None),
                alert.annotations.get("summary", ""),
            )
    return sorted(found.values(), key=lambda each: (each.fired_s, each.model, each.alertname))


def score(
    policy: str,
    settings: dict[str, Any],
    alerts: Sequence[EncodedAlert],
    drifts: Sequence[Drift],
    outcomes: Mapping[str, Seconds],
    stream_s: tuple[int, int],
    cost_per_error: float | None,
) -> Score:
    """Judge the alerts of one policy. ``stream_s``: the first second of the stream, and the one after its last."""
    episodes = alarms(alerts)
    weeks = max(stream_s[1] - stream_s[0], 1) / WEEK_S
    findings: list[Finding] = []
    stretches = _stretches(drifts, stream_s[1])
    for model in sorted(outcomes):
        for start_s, end_s in stretches:
            if outcomes[model].between(start_s, end_s)[0]:
                findings.append(_finding(model, start_s, end_s, episodes, outcomes[model]))
    delays = [each for each in findings if each.delay_s is not None]
    false = [each for each in episodes if not any(start <= each.fired_s < end for start, end in stretches)]
    errors = sum(each.errors for each in findings)
    known = bool(stretches)
    return Score(
        policy=policy,
        settings=settings,
        alerts=len(alerts),
        alarms=len(episodes),
        alarms_per_week=len(episodes) / weeks,
        false_alarms=len(false) if known else None,
        false_alarms_per_week=len(false) / weeks if known else None,
        found=len(delays) if known else None,
        of=len(findings) if known else None,
        median_delay_s=median(each.delay_s or 0 for each in delays) if delays else None,
        median_delay_outcomes=median(each.outcomes for each in delays) if delays else None,
        errors=errors if known else None,
        cost=errors * cost_per_error if known and cost_per_error is not None else None,
        episodes=episodes,
        findings=findings,
    )


def _stretches(drifts: Sequence[Drift], end_s: int) -> list[tuple[int, int]]:
    ordered = sorted(drifts, key=lambda drift: drift.start_s)
    ends = [following.start_s for following in ordered[1:]] + [max(end_s, ordered[-1].start_s + 1 if ordered else 0)]
    return (
        [
            (drift.start_s, end if drift.end_s is None else min(end, drift.end_s))
            for drift, end in zip(ordered, ends, strict=True)
        ]
        if ordered
        else []
    )


def _finding(model: str, start_s: int, end_s: int, episodes: Sequence[Alarm], outcomes: Seconds = EMPTY) -> Finding:
    within = (
        each.fired_s
        for each in episodes
        if each.model == model and each.alertname not in FINDS_NO_DRIFT and start_s <= each.fired_s < end_s
    )
    found_s = min(within, default=None)
    seen, errors = outcomes.between(start_s, end_s if found_s is None else found_s + 1)
    return Finding(model, start_s, found_s, None if found_s is None else found_s - start_s, seen, errors)
