"""Commands of the package `stack`: the whole system on one machine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streams.cli import session, stderr, stdout

POLL_S = 0.2


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(up)
    app.command()(demo)


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


def demo(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("driftline-demo.png"),
    data: Annotated[
        Path | None, typer.Option(help="Keep logs, state and models here; default: nothing is kept.")
    ] = None,
) -> None:
    """Show the whole loop in under two minutes: drift, alert, retraining, promotion, swap."""
    from stack import demo_view
    from stack.demo import Demo, Progress, Scenario

    console = stderr()
    scenario = Scenario()
    progress = Progress(scenario)
    with tempfile.TemporaryDirectory(prefix="driftline-demo-") as scratch:
        folder = data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with demo_view.watching(console, progress):
            report = Demo(folder, scenario, session(ctx).arguments, progress).run()
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        out = stdout()
        out.print(demo_view.timeline(report))
        out.print()
        out.print(demo_view.accuracies(report))
        law = "every prediction and outcome is accounted for" if report.conserved else "THE LAW IS VIOLATED"
        out.print(f"\n{report.rows} rows in {report.seconds:.0f} s; {law}")
    try:
        demo_view.plot(report, progress, plot)
        console.print(f"plot: {plot}")
    except ModuleNotFoundError:
        console.print("no plot: pip install 'driftline[plot]'", markup=False)
    if not report.conserved:
        raise typer.Exit(1)
