"""Why a version's detectors page when they do: the arithmetic from the budget to the thresholds, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from detectors.budget import WEEK_S, Watched, explained
from detectors.delay import expected_delay
from detectors.four_rates import RATES
from detectors.hourly import LEAST_CYCLES
from streams import label_explanation
from streams.detecting import Detecting, HoursDetecting, RateDetecting, SegmentDetecting
from streams.errors import MissingInput
from streams.events import rfc3339
from streams.label_status import LabelStatus
from streams.settings import RedisSettings
from streams.store_client import connect, store_failure

FACTORS = (1.5, 2.0, 4.0)
"""Times the usual error whose delays are told."""
POINTS_LOST = (0.05, 0.1, 0.4)
"""By which a rate falls, whose delays are told."""
WORST = 0.99
WEEKDAYS = ("Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday")
"""From the first of the epoch on."""
UNKNOWN_HOURS = "until then a swing counts as wander"
DAY_S = 86_400
LONGEST_DAYS = 365


class VersionDetecting(msgspec.Struct):
    """One version in the monitor's report. ``labels`` are added to the champion: how its outcomes come."""

    version: str
    champion: bool = False
    metric: str = "accuracy"
    detection: Detecting | None = None
    labels: LabelStatus | None = None


class ModelDetecting(msgspec.Struct):
    """The part of the monitor's report that this is about."""

    model: str
    champion: str = ""
    versions: list[VersionDetecting] = []
    watermark_ms: int = 0
    labels: LabelStatus | None = None


_model = msgspec.json.Decoder(ModelDetecting)


def collect(settings: RedisSettings, model: str) -> ModelDetecting:
    """What the monitor says of a model; raises :class:`MissingInput` for one that it does not know."""
    try:
        client = connect(settings)
        fields: Any = client.hgetall(f"{settings.prefix}:status")
    except redis.RedisError as error:
        raise store_failure(error, settings) from None
    value = fields.get(model.encode())
    if value is None:
        known = sorted(name.decode("utf-8", "replace") for name in fields)
        some = f"it knows {', '.join(known[:10])}" if known else "it has seen no model yet: is a worker running?"
        raise MissingInput(f"the monitor knows no model {model!r}", some)
    return parsed(value, model)


def parsed(value: bytes, model: str) -> ModelDetecting:
    """A report; raises :class:`MissingInput` for one that another release wrote in another shape."""
    try:
        return _model.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise MissingInput(
            f"the monitor's report of {model!r} is another release's", "run the release of the workers"
        ) from None


def chosen(report: ModelDetecting, version: str | None) -> VersionDetecting:
    """The version asked for, or the champion; raises :class:`MissingInput`."""
    wanted = version or report.champion
    for each in report.versions:
        if each.version == wanted and each.detection is not None:
            return msgspec.structs.replace(each, labels=report.labels if wanted == report.champion else None)
    known = ", ".join(each.version for each in report.versions if each.detection is not None) or "none"
    asked = f"version {wanted!r}" if wanted else "champion"
    raise MissingInput(f"the detectors of model {report.model!r} know no {asked}", f"with outcomes: {known}")


def told(report: ModelDetecting, version: VersionDetecting) -> Iterator[str]:
    """The arithmetic, then when outcomes tell; a line each."""
    yield from _arithmetic(report, version)
    if version.version == report.champion:
        yield from label_explanation.told(version.labels, report.watermark_ms)
    else:
        yield f"how long outcomes take is measured for the champion only, which is version {report.champion}"


def _arithmetic(report: ModelDetecting, version: VersionDetecting) -> Iterator[str]:
    found = version.detection
    if found is None:
        return
    champion = "its champion" if version.version == report.champion else "not its champion: it opens no alert"
    yield f"model {report.model}, version {version.version} ({champion})"
    if found.normal is None:
        week = found.outcomes_per_s * WEEK_S
        yield f"outcomes: {found.outcomes_per_s:.4g} a second are {week:,.0f} a week"
        until = f", and until {rfc3339(1000 * found.until_s)}" if found.until_s else ""
        until += " (a whole day, because outcomes came all at once)" if found.until_s and found.at_once else ""
        yield f"learning what is normal: {found.missing:,} outcomes to go{until}; nothing pages on drift until then"
        yield from _hours(found.hours)
        yield from _parts(found, version.metric)
        return
    normal = found.normal
    watched = [Watched(each.stream, each.detector, each.share, normal.error / found.scale) for each in found.pagers]
    if not watched:
        yield "monitor.detectors is empty: nothing pages on drift"
        return
    budget = found.false_alarms_per_week if found.pagers_per_week is None else found.pagers_per_week
    arithmetic = explained(budget, found.outcomes_per_s, watched)
    if budget < found.false_alarms_per_week:
        shares = [f"{budget:g} for the errors of all outcomes"]
        if found.rates:
            names = ", ".join(RATES[each.rate].title for each in found.rates)
            shares.append(f"{sum(each.false_alarms_per_week for each in found.rates):g} for {names}")
        if found.segments:
            names = ", ".join(each.segment for each in found.segments)
            allotted = sum(each.false_alarms_per_week for each in found.segments)
            shares.append(f"{allotted:g} for the {_counted(len(found.segments), 'segment')} {names}")
        yield f"budget: {found.false_alarms_per_week:g} false alarms a week for the model: {', '.join(shares)}"
        arithmetic = arithmetic[1:]
    yield from arithmetic
    hourly = found.hours is not None and found.hours.on
    yield (
        f"normal: {_error(version.metric)} {normal.error:.4g} ± {normal.standard_error:.2g} from "
        f"{normal.outcomes:,.0f} outcomes; dispersion {normal.dispersion:.3g} (1: independent errors), wander "
        f"{normal.wander:.2g}{' of errors divided by what their hour lets expect' if hourly else ''}"
    )
    yield from _hours(found.hours)
    for each in found.pagers:
        if each.detector != "e_detector" or found.acceptable is None:
            continue
        now = (
            f" in an average hour, {found.acceptable * found.hours.now:.4g} in this one"
            if found.hours and hourly
            else ""
        )
        yield f"acceptable to {each.detector}: up to {found.acceptable:.4g}{now}"
        for factor in FACTORS:
            rate = factor * normal.error
            if rate / found.scale < WORST:
                level, per_s = found.acceptable / found.scale, found.outcomes_per_s * each.share
                told_delay = _delay(level, normal.dispersion, each.threshold, rate / found.scale, per_s)
                yield f"delay to × {factor:g} ({rate:.4g}): {told_delay}"
    yield from _parts(found, version.metric)


def _hours(hours: HoursDetecting | None) -> Iterator[str]:
    """What is known of the hours, if they are asked for."""
    if hours is None:
        return
    head = f"by hour of the {hours.by}: {hours.cycles} {_counted(hours.cycles, hours.by)} learnt from"
    recurs = f"{100 * hours.recurs:.0f} % of the variance between hours recurs"
    if hours.cycles < LEAST_CYCLES and hours.best == hours.worst:
        yield f"{head}, of {LEAST_CYCLES} at least; {UNKNOWN_HOURS}"
    elif not hours.on and hours.best == hours.worst:
        yield f"{head}; {recurs}, which may be chance: a swing counts as wander"
    else:
        span = f"× {hours.best:.2f} {_hour(hours.best_hour, hours.by)} to × {hours.worst:.2f} "
        whose = "" if hours.cycles >= LEAST_CYCLES else ", so another version's"
        yield f"{head}{whose}: {span}{_hour(hours.worst_hour, hours.by)}, now × {hours.now:.2f}; {recurs}"
        if not hours.on:
            so_far = f"{hours.foretold:,} of {hours.least_foretold:,} outcomes of whole {hours.by}s"
            yield f"  not believed before that has foretold the next ones: {so_far} so far; {UNKNOWN_HOURS}"


def _hour(hour: int, by: str) -> str:
    day = f"{WEEKDAYS[hour // 24]} " if by == "week" else ""
    return f"({day}{hour % 24:02}:00 UTC)"


def _counted(n: int, noun: str) -> str:
    return noun if n == 1 else f"{noun}s"


@dataclass(frozen=True, slots=True)
class _Part:
    """How a part of the outcomes is told: one of the four rates, or a segment.

    ``outcomes`` are what it counts, ``own`` how those are called again. ``normal`` is its value when nothing is wrong,
    ``acceptable`` up or down to what it may be; ``changes`` are texts, and the error that each means.
    """

    name: str
    share: str
    outcomes: str
    own: str
    normal: str
    acceptable: str
    changes: Sequence[tuple[str, float]]
    scale: float = 1.0
    found: str = ""
    """What a delay counts."""


def _parts(found: Detecting, metric: str) -> Iterator[str]:
    """Of the four rates, then of the segments that are watched, what is normal, the threshold, and how soon a change
    is found.
    """
    for rate in found.rates:
        yield from _part(found, rate, _of_rate(rate))
    for segment in found.segments:
        if segment.outcomes:
            yield from _part(found, segment, _of_segment(segment, metric))
        else:
            yield f"segment {segment.segment}: no outcome of it yet; is it spelt as the events spell it?"


def _of_rate(each: RateDetecting) -> _Part:
    rate, error = RATES[each.rate], each.normal.error if each.normal is not None else 0.0
    losses = [(lost, error + lost) for lost in POINTS_LOST]
    return _Part(
        name=f"{rate.title} ({rate.means})",
        share=f"of the outcomes are {rate.outcomes}",
        outcomes=rate.outcomes,
        own="of them",
        normal=f"{1 - error:.4g}",
        acceptable="" if each.acceptable is None else f"down to {1 - each.acceptable:.4g}",
        changes=[(f"{1 - worse:.4g}, {100 * lost:.0f} points less", worse) for lost, worse in losses],
        found=rate.outcomes,
    )


def _of_segment(each: SegmentDetecting, metric: str) -> _Part:
    error = each.normal.error if each.normal is not None else 0.0
    return _Part(
        name=f"segment {each.segment}",
        share="of the outcomes",
        outcomes="outcomes of it",
        own="of its own",
        normal=f"{_error(metric)} {error:.4g}",
        acceptable="" if each.acceptable is None else f"up to {each.acceptable * each.scale:.4g}",
        changes=[(f"× {factor:g} ({factor * error:.4g})", factor * error) for factor in FACTORS],
        scale=each.scale,
        found="of its outcomes",
    )


def _part(found: Detecting, each: RateDetecting | SegmentDetecting, part: _Part) -> Iterator[str]:
    share, normal = each.outcomes_per_s / found.outcomes_per_s if found.outcomes_per_s else 0.0, each.normal
    head = f"{part.name}: {share:.3g} {part.share}"
    if normal is None:
        wanted = max(each.missing_own, math.ceil(each.missing * share))
        left = f", {_duration(wanted / each.outcomes_per_s)}" if each.outcomes_per_s else ""
        yield f"{head}; learning what is normal: about {wanted:,} {part.own} to go{left}; it pages from then on"
        return
    yield (
        f"{head}; normal: {part.normal} ± {normal.standard_error:.2g} from {normal.outcomes:,.0f} {part.own}; "
        f"dispersion {normal.dispersion:.3g}, wander {normal.wander:.2g}"
    )
    if each.acceptable is None or each.threshold is None:
        return
    yield (
        f"  {each.outcomes_per_s:.4g} {part.outcomes} a second × {WEEK_S:,} s / {each.false_alarms_per_week:g} = "
        f"one false alarm in {each.threshold:,.0f} of them; acceptable: {part.acceptable}"
    )
    for text, error in part.changes:
        if error / part.scale < WORST:
            level, per_s = each.acceptable, each.outcomes_per_s
            delay = _delay(level, normal.dispersion, each.threshold, error / part.scale, per_s, part.found)
            yield f"  delay to {text}: {delay}"


def _error(metric: str) -> str:
    return "mean absolute error" if metric == "mae" else "error rate"


def _delay(
    level: float, dispersion: float, threshold: float, error: float, per_s: float, what: str = "outcomes"
) -> str:
    outcomes = expected_delay(level, dispersion, threshold, error)
    seconds = outcomes / per_s
    if math.isinf(outcomes) or seconds > LONGEST_DAYS * DAY_S:
        return "not within a year: it is acceptable, or hardly more"
    return f"about {outcomes:,.0f} {what}, {_duration(seconds)}"


def _duration(seconds: float) -> str:
    for unit, name in ((DAY_S, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} seconds"
