"""`driftline replay`: what the monitor says of the recorded stream, with these settings and with others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import structlog
import typer

from streams.cli import session, stderr, stdout
from streams.errors import WrongSetting
from streams.settings import Settings

DIFFERENT = 1
TOLD_EVERY_S = 10.0
Source = Literal["summaries", "inputs"]

log = structlog.get_logger(__name__)


def replay(
    ctx: typer.Context,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Replay the live run as it was, and compare with the published alerts. "
            "Exit code 0: identical, 1: different.",
        ),
    ] = False,
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="TOML file of settings that differ from the current ones: one policy a file."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="A setting that differs; all of them together are one policy."
        ),
    ] = None,
    source: Annotated[
        Source,
        typer.Option("--from", help="What to read: what the join has learnt, or the inputs, which are joined again."),
    ] = "summaries",
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Replay a CSV file (also .gz) instead, without a broker. Columns: prediction, outcome (or the last "
            "one); optional: time, model, version, segment, delay (in seconds)."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Rows a second of a CSV file without times.")] = 10.0,
    model: Annotated[str | None, typer.Option(help="This model only.")] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME[/END]", help="When something is known to have changed: delays, false alarms and costs."
        ),
    ] = None,
    cost_per_error: Annotated[
        float | None, typer.Option(min=0, help="What one error costs, in whatever you count: needs --drift.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture, as SVG.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay the recorded stream through detectors and alert policy, with other settings side by side.

    Touches nothing live: no consumer group, no store, nothing is published. It can run beside the workers, as a user
    who may only read. Promotions stay where they were, whatever a policy would have alerted.
    """
    settings = session(ctx).settings
    if check:
        if policy or change or csv or source != "summaries" or model or drift or plot or cost_per_error is not None:
            raise WrongSetting("--check replays the live run as it was", "give it no other option but --json")
        _check(settings, json=json)
        return
    if cost_per_error is not None and not drift:
        raise WrongSetting("--cost-per-error counts the errors since a drift", "say when it was: --drift TIME")
    if csv is not None and source != "summaries":
        raise WrongSetting("--csv is a source of its own", "leave out --from")
    from streams.replay import plot as drawing
    from streams.replay import text
    from streams.replay.policies import policies
    from streams.replay.score import parse_drift
    from streams.replay.sources import Question, of_inputs, of_summaries, of_table

    drifts = [parse_drift(each) for each in drift or ()]
    joins = csv is not None or source == "inputs"
    question = Question(policies(settings, policy or (), _pairs(change), joins=joins), drifts, cost_per_error, model)
    with _telling() as tell:
        if csv is not None:
            compared = of_table(settings, csv, rate, question, tell.say, tell.progress)
        elif source == "inputs":
            compared = of_inputs(settings, question, tell.say, tell.progress)
        else:
            compared = of_summaries(settings, question, tell.say, tell.progress)
    if plot is not None:
        panels = drawing.panels(compared.outcomes, compared.report.policies)
        _write(plot, drawing.draw(panels, compared.report.policies, drifts, compared.stream_s))
    if json:
        _print(compared.report)
    else:
        text.render_comparison(compared.report, stdout())


def _check(settings: Settings, *, json: bool) -> None:
    from streams.kafka import KafkaLog
    from streams.replay import text
    from streams.replay.verify import verify

    with _telling() as tell:
        report = verify(settings, KafkaLog(settings.kafka), tell.say, tell.progress)
    if json:
        _print(report)
    else:
        text.render_check(report, stdout())
    if not report.identical:
        raise typer.Exit(DIFFERENT)


def _pairs(changes: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in changes or ():
        name, separator, value = item.partition("=")
        if not separator:
            raise WrongSetting(f"--set {item} is not SECTION.KEY=VALUE", "for example --set monitor.baseline_drop=0.1")
        found[name] = value
    return found


def _write(file: Path, svg: str) -> None:
    try:
        file.write_text(svg)
    except OSError as error:
        raise WrongSetting(f"{file} cannot be written: {error.strerror}", "check --plot") from None


def _print(report: msgspec.Struct) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


@dataclass(slots=True)
class Telling:
    """Says what is going on: a line on a terminal, a line of the log now and then elsewhere."""

    update: Callable[[str], None]
    is_terminal: bool
    doing: str = ""
    told_s: float = 0.0

    def say(self, what: str) -> None:
        """Something else begins."""
        self.doing, self.told_s = what, time.monotonic()
        self.update(what)

    def progress(self, share: float) -> None:
        """So much of it is done, from 0 to 1."""
        if self.is_terminal:
            self.update(f"{self.doing}: {share:.0%}")
        elif time.monotonic() - self.told_s >= TOLD_EVERY_S:
            self.told_s = time.monotonic()
            log.info("replay.progress", what=self.doing, done=round(share, 3))


@contextmanager
def _telling() -> Iterator[Telling]:
    console = stderr()
    with console.status("") as line:
        yield Telling(line.update, console.is_terminal)
