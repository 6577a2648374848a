"""A replay's findings as text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.replay.check import CheckReport, Difference
from streams.replay.compare import Comparison
from streams.replay.score import Score

SHOWN = 20
"""Differences that are written out; --json has them all."""


def render_check(report: CheckReport, console: Console) -> None:
    """Whether the replayed alerts are those that were published, and which are not."""
    for limit in report.limits:
        console.print(f"[yellow]note[/]: {escape(limit)}", soft_wrap=True)
    for note in report.notes:
        console.print(f"[red]different[/]: {escape(note)}", soft_wrap=True)
    for each in report.differences[:SHOWN]:
        _difference(each, console)
    if len(report.differences) > SHOWN:
        console.print(f"and {len(report.differences) - SHOWN} more, see --json")
    if report.identical and not report.replayed and not report.published:
        console.print(
            f"[green]identical[/]: no alert was published up to {report.until}, and none comes out of the replay",
            soft_wrap=True,
        )
    elif report.identical:
        console.print(
            f"[green]identical[/]: {report.replayed} alerts up to {report.until} come out of the replay, "
            "id for id and byte for byte as they were published",
            soft_wrap=True,
        )
    else:
        console.print(
            f"[bold red]different[/]: {report.published} alerts were published, {report.replayed} come out of the "
            f"replay up to {report.until}, {len(report.differences)} are not the same",
            soft_wrap=True,
        )
    if report.compacted:
        console.print(
            f"{report.compacted} of them are no longer in the topic, which keeps the newest of each key: "
            f"their number was compared with the cuts at {report.steps} points",
            soft_wrap=True,
        )
    if report.earlier:
        console.print(f"{report.earlier} published alerts are older than the log and were not compared", soft_wrap=True)


def _difference(each: Difference, console: Console) -> None:
    console.print(f"[red]{each.kind}[/]: {escape(each.summary)}, {escape(each.id)}", soft_wrap=True)
    for path, (published, replayed) in each.fields.items():
        console.print(
            f"    {escape(path)}: published {escape(json.dumps(published))}, replayed {escape(json.dumps(replayed))}",
            soft_wrap=True,
        )


def render_comparison(found: Comparison, console: Console) -> None:
    """The policies side by side: a line each."""
    for limit in found.limits:
        console.print(f"[yellow]note[/]: {escape(limit)}", soft_wrap=True)
    models = f"{len(found.models)} models" if len(found.models) > 1 else f"model {found.models[0]}"
    console.print(
        f"{found.outcomes:,} outcomes of {escape(models)}, {found.begins} to {found.ends}, from {escape(found.source)}",
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold")
    table.add_column("", no_wrap=True)
    for each in found.policies:
        table.add_column(escape(each.policy), justify="right", overflow="fold")
    for name, cell in _rows(found):
        table.add_row(name, *(cell(each) for each in found.policies))
    console.print(table)


def _rows(found: Comparison) -> Iterator[tuple[str, Callable[[Score], str]]]:
    """(what is measured, how a policy's cell reads)."""
    yield "alarms", lambda score: str(score.alarms)
    yield "alarms a week", lambda score: rate(score.alarms_per_week)
    if found.drifts:
        yield "false alarms (outside of drifts)", lambda score: str(score.false_alarms)
        yield "false alarms a week", lambda score: rate(score.false_alarms_per_week or 0.0)
        yield "drifts found", lambda score: f"{score.found} of {score.of}"
        yield "median delay", lambda score: "—" if score.median_delay_s is None else duration(score.median_delay_s)
        yield (
            "median delay in outcomes",
            lambda score: "—" if score.median_delay_outcomes is None else f"{score.median_delay_outcomes:,.0f}",
        )
        yield "errors from a drift to its alarm", lambda score: f"{score.errors or 0.0:,.6g}"
    if found.cost_per_error is not None:
        yield "cost of them", lambda score: "—" if score.cost is None else f"{score.cost:,.2f}"
    yield "records in the topic alerts", lambda score: str(score.alerts)


def rate(number: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{number:,.0f}" if number >= 1_000 else f"{number:.3g}"


def duration(seconds: float) -> str:
    """``2 d 3 h``, ``4 min 5 s``: the two largest units."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    left = round(seconds)
    parts: list[str] = []
    for name, size in units:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])
