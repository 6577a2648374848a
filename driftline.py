"""The command line: mounts each package's commands and turns their errors into one line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import retrain.commands
import serving.commands
import stack.commands
import streams.commands
from streams.cli import Session, configure_logging, report
from streams.configuration import refuse_secret_flags
from streams.errors import DriftlineError, WrongSetting
from streams.settings import load

app = typer.Typer(
    name="driftline",
    help="The drift detector that lives in Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for commands in (stack.commands, streams.commands, serving.commands, retrain.commands):
    commands.mount(app)


@app.callback()
def settings(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file; default driftline.toml if there is one.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka: host:port[,host:port].")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    repository: Annotated[str | None, typer.Option(help="Model repository: folder or URL.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; may be repeated.")
    ] = None,
    log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Settings come from a TOML file, then DRIFTLINE_* variables, then these flags."""
    flags: dict[str, str] = {}
    for item in change or ():
        name, separator, value = item.partition("=")
        if not separator:
            raise WrongSetting(f"--set {item} is not SECTION.KEY=VALUE", "for example --set worker.checkpoint_s=0.5")
        flags[name] = value
    named = {"kafka.bootstrap": bootstrap, "redis.url": redis, "repository": repository}
    flags |= {name: value for name, value in named.items() if value is not None}
    configure_logging(log)
    refuse_secret_flags(flags)
    ctx.obj = Session.of(*load(config, flags=flags), arguments=tuple(_forwarded(config, flags, log)))


def _forwarded(config: Path | None, flags: dict[str, str], log: str) -> list[str]:
    """The same settings as arguments, for the processes that a command starts."""
    arguments = ["--log", log] + (["--config", str(config)] if config else [])
    return arguments + [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]


def main() -> None:
    """Entry point of the command ``driftline``."""
    try:
        app()
    except DriftlineError as error:
        report(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
