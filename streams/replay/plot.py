"""Draws a comparison as SVG: each model's error rate, the drifts, and a lane a policy with its alarms. Pure.

Drawn by hand: a few lines and bars need no plotting library, which would be the heaviest package of the image.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from streams.replay.outcomes import Seconds
from streams.replay.score import Alarm, Drift, Score

WIDTH, LEFT, RIGHT = 1_000, 210, 24
CURVE, LANE, GAP, HEAD = 120, 20, 46, 40
BINS = 240
TICKS = 6
COLOURS = {"critical": "#c62828", "warning": "#ef8e00"}
OTHER_COLOUR = "#607d8b"
MAX_LABEL = 30


@dataclass(frozen=True, slots=True)
class Panel:
    """One model: its outcomes by second and whether its errors are amounts."""

    model: str
    outcomes: Seconds
    regression: bool


def draw(panels: Sequence[Panel], scores: Sequence[Score], drifts: Sequence[Drift], stream_s: tuple[int, int]) -> str:
    """An SVG document. ``stream_s``: the first second of the stream, and the one after its last."""
    lanes = LANE * len(scores)
    height = HEAD + len(panels) * (CURVE + lanes + GAP) + 10
    body: list[str] = []
    top = HEAD
    for panel in panels:
        body.extend(_panel(panel, scores, drifts, stream_s, top))
        top += CURVE + lanes + GAP
    legend = "".join(
        f'<rect x="{x}" y="12" width="12" height="12" fill="{colour}"/><text x="{x + 17}" y="22">{name}</text>'
        for x, (name, colour) in zip((LEFT, LEFT + 80), COLOURS.items(), strict=True)
    )
    drift = (
        f'<line x1="{LEFT + 170}" y1="18" x2="{LEFT + 190}" y2="18" class="drift"/>'
        f'<text x="{LEFT + 196}" y="22">known drift</text>'
        if drifts
        else ""
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="12" fill="#222">'
        "<style>.drift{stroke:#6a1b9a;stroke-width:1.5;stroke-dasharray:5 3}.grid{stroke:#ddd}"
        ".curve{fill:none;stroke:#1565c0;stroke-width:1.5}.quiet{fill:#777}.within{fill:#6a1b9a;fill-opacity:0.07}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{legend}{drift}{"".join(body)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class _Across:
    """From stream time to the horizontal."""

    start_s: int
    end_s: int

    def x(self, at_s: float) -> float:
        share = (at_s - self.start_s) / max(self.end_s - self.start_s, 1)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share)), 1)


def _panel(
    panel: Panel, scores: Sequence[Score], drifts: Sequence[Drift], stream_s: tuple[int, int], top: int
) -> Iterator[str]:
    across = _Across(*stream_s)
    bottom = top + CURVE
    first_lane = bottom + 8
    lowest = first_lane + LANE * len(scores)
    edges = np.unique(np.linspace(stream_s[0], stream_s[1], BINS + 1).astype(np.int64))
    counts, errors = panel.outcomes.binned(edges)
    means = errors / np.maximum(counts, 1)
    highest = float(means.max(initial=0.0)) * 1.1 or 1.0
    yield f'<text x="14" y="{top + 14}" font-weight="bold">{_short(panel.model)}</text>'
    what = "mean absolute error" if panel.regression else "error rate"
    yield f'<text x="14" y="{top + 32}" class="quiet">{what}</text>'
    yield f'<text x="14" y="{top + 48}" class="quiet">{int(counts.sum()):,} outcomes</text>'
    for share in (0.0, 0.5, 1.0):
        y = bottom - CURVE * share
        value = f"{highest * share:.3g}" if panel.regression else f"{highest * share:.1%}"
        yield f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="grid"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" class="quiet">{value}</text>'
    points: list[str] = []
    for left, right, n, mean in zip(edges[:-1], edges[1:], counts, means, strict=True):
        if n:
            points.append(f"{across.x((int(left) + int(right)) / 2)},{bottom - CURVE * float(mean) / highest:.1f}")
        elif points:  # no outcomes: the line is broken, not drawn through
            yield f'<polyline points="{" ".join(points)}" class="curve"/>'
            points = []
    if points:
        yield f'<polyline points="{" ".join(points)}" class="curve"/>'
    for number, each in enumerate(scores):
        y = first_lane + LANE * number
        yield f'<text x="{LEFT - 6}" y="{y + 14}" text-anchor="end">{_short(each.policy)}</text>'
        yield f'<line x1="{LEFT}" y1="{y + LANE}" x2="{WIDTH - RIGHT}" y2="{y + LANE}" class="grid"/>'
        yield from (_bar(alarm, across, y) for alarm in each.episodes if alarm.model == panel.model)
    for drift in drifts:
        if stream_s[0] <= drift.start_s <= stream_s[1]:
            x = across.x(drift.start_s)
            if drift.end_s is not None:
                width = round(across.x(drift.end_s) - x, 1)
                yield f'<rect x="{x}" y="{top}" width="{width}" height="{lowest - top}" class="within"/>'
            yield f'<line x1="{x}" y1="{top}" x2="{x}" y2="{lowest}" class="drift"/>'
    for tick in range(TICKS + 1):
        at_s = stream_s[0] + (stream_s[1] - stream_s[0]) * tick / TICKS
        anchor = "end" if tick == TICKS else "middle" if tick else "start"
        text = _time(at_s, stream_s[1] - stream_s[0])
        yield f'<text x="{across.x(at_s)}" y="{lowest + 16}" text-anchor="{anchor}" class="quiet">{text}</text>'


def _bar(alarm: Alarm, across: _Across, y: int) -> str:
    start, end = across.x(alarm.fired_s), across.x(across.end_s if alarm.resolved_s is None else alarm.resolved_s)
    colour = COLOURS.get(alarm.severity, OTHER_COLOUR)
    title = escape(f"{alarm.alertname}: {alarm.summary}")
    return (
        f'<rect x="{start}" y="{y + 4}" width="{max(2.5, round(end - start, 1))}" height="{LANE - 7}" rx="2" '
        f'fill="{colour}" fill-opacity="0.75"><title>{title}</title></rect>'
    )


def _short(text: str) -> str:
    return escape(text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…")


def _time(at_s: float, span_s: int) -> str:
    at = dt.datetime.fromtimestamp(at_s, dt.UTC)
    if span_s >= 3 * 86_400:
        return f"{at:%Y-%m-%d}"
    return f"{at:%m-%d %H:%M}" if span_s >= 3_600 else f"{at:%H:%M:%S}"


def panels(outcomes: Mapping[str, tuple[Seconds, bool]], scores: Sequence[Score], limit: int = 8) -> list[Panel]:
    """The models to draw: those with most alarms first, then those with most outcomes, ``limit`` of them."""
    alarmed: dict[str, int] = {}
    for score in scores:
        for alarm in score.episodes:
            alarmed[alarm.model] = alarmed.get(alarm.model, 0) + 1
    names = sorted(outcomes, key=lambda name: (-alarmed.get(name, 0), -int(outcomes[name][0].outcomes.sum()), name))[
        :limit
    ]
    return [Panel(name, *outcomes[name]) for name in names]
