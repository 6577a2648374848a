"""Why a version's detectors page when they do: the arithmetic from the budget to the thresholds, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import redis

from detectors.budget import WEEK_S, Watched, explained
from detectors.delay import expected_delay
from streams.detecting import Detecting, Normal, Paging
from streams.errors import MissingInput
from streams.settings import RedisSettings
from streams.store_client import connect, store_failure

FACTORS = (1.5, 2.0, 4.0)
"""Times the usual error whose delays are told."""
WORST = 0.99
DAY_S = 86_400
LONGEST_DAYS = 365


class VersionDetecting(msgspec.Struct):
    """One version in the monitor's report."""

    version: str
    champion: bool = False
    metric: str = "accuracy"
    detection: Detecting | None = None


class ModelDetecting(msgspec.Struct):
    """The part of the monitor's report that this is about."""

    model: str
    champion: str = ""
    versions: list[VersionDetecting] = []


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
            return each
    known = ", ".join(each.version for each in report.versions if each.detection is not None) or "none"
    asked = f"version {wanted!r}" if wanted else "champion"
    raise MissingInput(f"the detectors of model {report.model!r} know no {asked}", f"with outcomes: {known}")


def told(report: ModelDetecting, version: VersionDetecting) -> Iterator[str]:
    """The arithmetic, a line each."""
    found = version.detection
    if found is None:
        return
    champion = "its champion" if version.version == report.champion else "not its champion: it opens no alert"
    yield f"model {report.model}, version {version.version} ({champion})"
    if found.normal is None:
        week = found.outcomes_per_s * WEEK_S
        yield f"outcomes: {found.outcomes_per_s:.4g} a second are {week:,.0f} a week"
        yield f"learning what is normal: {found.missing:,} outcomes to go; nothing pages until then"
        return
    normal = found.normal
    watched = [Watched(each.stream, each.detector, each.share, normal.error / found.scale) for each in found.pagers]
    if not watched:
        yield "monitor.detectors is empty: nothing pages on drift"
        return
    yield from explained(found.false_alarms_per_week, found.outcomes_per_s, watched)
    what = "mean absolute error" if version.metric == "mae" else "error rate"
    yield (
        f"normal: {what} {normal.error:.4g} ± {normal.standard_error:.2g} from {normal.outcomes:,.0f} outcomes; "
        f"dispersion {normal.dispersion:.3g} (1: independent errors), wander {normal.wander:.2g}"
    )
    for each in found.pagers:
        if each.detector != "e_detector" or found.acceptable is None:
            continue
        yield f"acceptable to {each.detector}: up to {found.acceptable:.4g}"
        for factor in FACTORS:
            rate = factor * normal.error
            if rate / found.scale < WORST:
                yield f"delay to × {factor:g} ({rate:.4g}): {_delay(found, each, normal, rate)}"


def _delay(found: Detecting, pager: Paging, normal: Normal, error: float) -> str:
    level = (found.acceptable or 0.0) / found.scale
    outcomes = expected_delay(level, normal.dispersion, pager.threshold, error / found.scale)
    seconds = outcomes / (found.outcomes_per_s * pager.share)
    if math.isinf(outcomes) or seconds > LONGEST_DAYS * DAY_S:
        return "not within a year: it is acceptable, or hardly more"
    return f"about {outcomes:,.0f} outcomes, {_duration(seconds)}"


def _duration(seconds: float) -> str:
    for unit, name in ((DAY_S, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} seconds"
