"""The audit's report for people: one table of partitions, a line for each violation, the verdict last."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.audit import AuditReport

COLUMNS = (
    "partition",
    "cuts",
    "epoch",
    "predictions",
    "outcomes",
    "joined",
    "pending",
    "waiting",
    "expired",
    "duplicates",
    "corrections",
    "late",
    "dead",
    "lag",
)


def render(report: AuditReport, console: Console) -> None:
    """Print a report."""
    table = Table(box=None, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for each in report.partitions:
        counted = each.counters
        table.add_row(
            *map(
                str,
                (
                    each.partition,
                    each.cuts,
                    each.epoch,
                    counted.predictions,
                    counted.outcomes,
                    counted.joined,
                    each.pending,
                    each.waiting,
                    counted.expired_predictions + counted.expired_outcomes,
                    counted.duplicates,
                    counted.corrections,
                    counted.late,
                    counted.dead_predictions + counted.dead_outcomes,
                    each.lag_predictions + each.lag_outcomes,
                ),
            )
        )
    console.print(table)
    for note in report.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    for violation in report.violations:
        console.print(f"[red]violated:[/] {escape(violation)}", soft_wrap=True)
    totals = report.totals
    counted = totals.counters
    if report.conserved:
        console.print(
            f"[bold green]conserved:[/] {counted.predictions} predictions and {counted.outcomes} outcomes are"
            f" accounted for, {sum(report.lag.values())} records are not read yet",
            soft_wrap=True,
        )
    else:
        console.print(f"[bold red]violated:[/] {len(report.violations)} contradictions", soft_wrap=True)
