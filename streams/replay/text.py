"""A replay's findings as text for people."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape

from streams.replay.check import CheckReport, Difference

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
    if report.identical:
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
