"""Commands of the stream: worker, topics, config, audit, status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli import session, stdout
from streams.topics import TopicAdmin


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(worker)
    topics = typer.Typer(name="topics", help="Create, verify and repair the topics.", no_args_is_help=True)
    topics.command()(create)
    topics.command()(verify)
    topics.command()(repair)
    app.add_typer(topics)


def worker(
    ctx: typer.Context,
    ready_file: Annotated[Path | None, typer.Option(help="Written with the metrics URL once it runs.")] = None,
) -> None:
    """Join predictions with outcomes, watch the models, publish alerts."""
    from streams.worker import run  # Faust takes half a second to import; the other commands do without

    run(session(ctx).settings, ready_file)


def create(ctx: typer.Context) -> None:
    """Create the topics that are missing."""
    created = TopicAdmin(session(ctx).settings).create()
    stdout().print("\n".join(created) if created else "nothing to create")


def verify(ctx: typer.Context) -> None:
    """Check that the topics are as they must be."""
    for name, count in TopicAdmin(session(ctx).settings).verify().items():
        stdout().print(f"{name} {count}")


def repair(ctx: typer.Context) -> None:
    """Make partition counts equal by raising the smaller ones."""
    raised = TopicAdmin(session(ctx).settings).repair()
    stdout().print("\n".join(f"{name} → {count}" for name, count in raised.items()) if raised else "nothing to repair")
