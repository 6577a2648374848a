"""Commands of the package `serving`: serve and publish."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.cli import session, stderr, stdout

if TYPE_CHECKING:
    from serving.play import Played, Report


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
    app.command()(serve)
    app.command()(publish)


def serve(
    ctx: typer.Context,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 picks one.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Gets the URL once connections are accepted.")] = None,
) -> None:
    """Answer inference requests (Open Inference Protocol v2) and publish every prediction."""
    from serving.process import serve as run  # imported here: the other commands need no ONNX Runtime

    run(session(ctx).settings, http, ready_file)


def publish(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A labelled table: .csv, .csv.gz or .parquet.")],
    model: Annotated[str | None, typer.Option(help="Default: the only one that the server has.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Default: the last column.")] = None,
    url: Annotated[str | None, typer.Option(help="Of `driftline serve`; default: http://serve.http.")] = None,
    prediction_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Publish these predictions instead of asking a server.")
    ] = None,
    score_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Scores of those predictions.")] = None,
    version: Annotated[str, typer.Option(help="Version that made those predictions.")] = "1",
    rate: Annotated[float | None, typer.Option(min=0.001, help="Rows a second; default: as fast as it goes.")] = None,
    delay_rows: Annotated[int, typer.Option(min=0, help="An outcome comes so many rows after its prediction.")] = 0,
    delay_s: Annotated[float, typer.Option(min=0, help="An outcome comes so many seconds after its prediction.")] = 0.0,
    skip_rows: Annotated[int, typer.Option(min=0, help="Leave out so many rows at the beginning.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Play at most so many rows.")] = None,
    chunk: Annotated[int, typer.Option(min=1, max=10_000, help="Rows in one request at most.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Play a labelled table as a live stream: a prediction for each row, its outcome later."""
    from serving.play import Pace
    from serving.publish import Choice
    from serving.publish import publish as run

    settings = session(ctx).settings
    choice = Choice(
        file=file,
        pace=Pace(rate, chunk, delay_rows, delay_s),
        url=url or f"http://{settings.serve.http}",
        model=model,
        label=label,
        prediction=prediction_column,
        score=score_column,
        version=version,
        skip=skip_rows,
        limit=rows,
    )
    with _progress() as progress:
        report = run(settings, choice, progress)
    _print_report(report, as_json=as_json)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], Callable[[Played], None]]]:
    """A bar on stderr; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("publish"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), disable=not sys.stderr.isatty()) as bar:

        def start(total: int) -> Callable[[Played], None]:
            task = bar.add_task("publish", total=total)
            return lambda _: bar.advance(task)

        yield start


def _print_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    console = stdout()
    quality = {"accuracy as served": report.accuracy, "mean absolute error": report.mae}
    console.print(f"model                {report.model}")
    console.print(f"rows                 {report.rows} in {report.seconds:.1f} s ({report.rows_per_s:.0f} rows/s)")
    console.print(f"outcomes             {report.outcomes} ({report.unlabelled} rows have none)")
    for name, value in quality.items():
        if value is not None:
            console.print(f"{name:<20} {value:.4f}")
    console.print(f"versions             {', '.join(f'{v}: {n}' for v, n in report.versions.items())}")
    if report.errors:
        console.print(f"errors               {report.errors}, the first: {report.first_error}", markup=False)
