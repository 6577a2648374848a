"""Commands of the stream: worker, topics, config, audit, replay, status, explain, silence, doctor, acls, schemas."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.cli import session, stderr, stdout
from streams.permissions import Process
from streams.replay.command import replay
from streams.silence_command import silence
from streams.topics import TopicAdmin

if TYPE_CHECKING:
    from streams.audit_log import Progress

VIOLATED = 1
WATCH_S = 2.0
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(worker)
    app.command()(audit)
    app.command()(replay)
    app.command()(status)
    app.command()(explain)
    app.command()(silence)
    app.command()(doctor)
    app.command()(acls)
    app.command()(schemas)
    topics = typer.Typer(name="topics", help="Create, verify and repair the topics.", no_args_is_help=True)
    topics.command()(create)
    topics.command()(verify)
    topics.command()(repair)
    topics.command()(accept)
    app.add_typer(topics)
    config = typer.Typer(name="config", help="The settings.", no_args_is_help=True)
    config.command("show")(show_config)
    app.add_typer(config)


def worker(
    ctx: typer.Context,
    ready_file: Annotated[Path | None, typer.Option(help="Written with the metrics URL once it runs.")] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss", help="Where neither Redis nor the log has a partition's state any more, begin it again."
        ),
    ] = False,
) -> None:
    """Join predictions with outcomes, watch the models, publish alerts."""
    from streams.worker import run  # Faust takes half a second to import; the other commands do without

    run(session(ctx).settings, ready_file, accept_loss=accept_loss)


def audit(
    ctx: typer.Context,
    json: Json = False,
    follow_to_end: Annotated[
        bool, typer.Option(help="First wait until the workers have covered everything that is in the inputs now.")
    ] = False,
) -> None:
    """Check that every prediction and outcome is accounted for exactly once. Exit code 0: conserved, 1: violated."""
    from streams import audit_log, audit_text

    settings = session(ctx).settings
    with _progress("reading the checkpoints") as progress:
        report = audit_log.audit(settings, follow_to_end=follow_to_end, progress=progress)
    if json:
        _print(msgspec.json.encode(report))
    else:
        audit_text.render(report, stdout())
    if not report.conserved:
        raise typer.Exit(VIOLATED)


def status(
    ctx: typer.Context,
    json: Json = False,
    watch: Annotated[bool, typer.Option(help="Show it again and again until Ctrl-C.")] = False,
) -> None:
    """Show models, versions, windows, alerts, what waits, and lag."""
    from streams.status import collect, render

    settings = session(ctx).settings
    console = stdout()
    try:
        while True:
            found = collect(settings)
            if json and watch:
                typer.echo(msgspec.json.encode(found))  # a line each time, for a machine that reads along
            elif json:
                _print(msgspec.json.encode(found))
            else:
                if watch:
                    console.clear()
                render(found, console)
            if not watch:
                return
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return  # the way to end --watch


def explain(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Option(help="Another version than its champion.")] = None,
    json: Json = False,
) -> None:
    """Show why drift of a model pages when it does: from the budget of false alarms to thresholds and delays."""
    from streams import explanation

    report = explanation.collect(session(ctx).settings.redis, model)
    found = explanation.chosen(report, version)
    if json:
        _print(msgspec.json.encode(found))
        return
    for line in explanation.told(report, found):
        typer.echo(line)


def doctor(
    ctx: typer.Context,
    json: Json = False,
    process: Annotated[
        Process | None, typer.Option(help="Whose permissions on Kafka to check; without it any one will do.")
    ] = None,
) -> None:
    """Check the broker, the topics, the store, the model repository and the ports. Exit code 1: something is wrong."""
    from streams.doctor import examine, render

    found = examine(session(ctx).settings, process)
    if json:
        _print(msgspec.json.encode(found))
    else:
        render(found, stdout())
    if not all(check.ok for check in found):
        raise typer.Exit(VIOLATED)


def acls(
    ctx: typer.Context,
    process: Annotated[Process, typer.Argument(show_default=False)],
    user: Annotated[str | None, typer.Option(help="Its name on Kafka and Redis; default driftline-PROCESS.")] = None,
) -> None:
    """Print what a process must be allowed to do: commands for kafka-acls.sh, and a line of Redis's ACL file."""
    from streams.permissions import kafka_commands, redis_user

    settings, name = session(ctx).settings, user or f"driftline-{process}"
    for command in kafka_commands(settings, process, name):
        typer.echo(command)
    if (line := redis_user(settings, process, name)) is not None:
        typer.echo(line)


def schemas(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write them to.", show_default=False)],
) -> None:
    """Write JSON Schemas of the public events and an AsyncAPI document."""
    from streams.schemas import write

    for path in write(folder):
        stdout().print(str(path), soft_wrap=True)


def show_config(ctx: typer.Context, json: Json = False) -> None:
    """List every setting: value, where it came from, meaning."""
    from streams.configuration import list_settings, render

    found = list_settings(session(ctx).settings, session(ctx).origin)
    if json:
        _print(msgspec.json.encode(found))
    else:
        render(found, stdout())


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


def accept(ctx: typer.Context) -> None:
    """Take the topics' partition counts as they are now: ids published before a change stay where they were."""
    from streams.store import StateStore
    from streams.store_client import connect, require_durable

    settings = session(ctx).settings
    counts = TopicAdmin(settings).verify()
    client = connect(settings.redis)
    require_durable(client, settings.redis)
    StateStore(client, settings.redis.prefix).accept_layout(counts)
    for name, count in counts.items():
        stdout().print(f"{name} {count}")


def _print(encoded: bytes) -> None:
    """JSON as data: not wrapped, not coloured."""
    typer.echo(msgspec.json.format(encoded, indent=2).decode())


@contextmanager
def _progress(began: str) -> Iterator[Progress]:
    """A line on stderr that says what is going on, on a terminal only."""
    console = stderr()
    with console.status(began) as line:
        yield line.update
