"""Commands of the package `stack`: the whole system on one machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from streams.cli import session, stderr, stdout

POLL_S = 0.2


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(up)


def up(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder for everything: logs, state, models.")] = Path(".driftline"),
) -> None:
    """Run broker, store, worker, serve and retrain on this machine until Ctrl-C. Needs no Docker and no Java."""
    from stack.embedded import EmbeddedStack

    console = stderr()
    arguments = session(ctx).arguments
    stack = EmbeddedStack(data, arguments)
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {line}")

    with stack:
        stack.start(progress)
        if stack.supervisor is None:
            raise RuntimeError("the stack started without a supervisor")
        with stack.supervisor.signals():
            out = stdout()
            out.print(f"Kafka       {stack.broker.bootstrap}")
            out.print(f"Redis       {stack.store.url}")
            out.print(f"Inference   {stack.serve_url}")
            out.print(f"Metrics     http://{stack.addresses['worker']}/metrics")
            out.print(f"Models      {stack.repository}")
            out.print(f"Arguments   {' '.join(stack.arguments)}", soft_wrap=True)
            console.print("running; Ctrl-C stops everything")
            while not stack.supervisor.stop_asked:
                stack.poll()
                time.sleep(POLL_S)
        console.print("stopping")
