"""Commands of the package `serving`: serve and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli import session


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(serve)


def serve(
    ctx: typer.Context,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 picks one.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Gets the URL once connections are accepted.")] = None,
) -> None:
    """Answer inference requests (Open Inference Protocol v2) and publish every prediction."""
    from serving.process import serve as run  # imported here: the other commands need no ONNX Runtime

    run(session(ctx).settings, http, ready_file)
