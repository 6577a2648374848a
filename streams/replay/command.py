"""`driftline replay`: what the monitor says of the recorded stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import msgspec
import structlog
import typer

from streams.cli import session, stderr, stdout

DIFFERENT = 1
TOLD_EVERY_S = 10.0

log = structlog.get_logger(__name__)


def replay(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the published alerts. Exit code 0: identical, 1: different.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay the recorded stream through detectors and alert policy. Touches nothing live.

    No consumer group, no store, nothing is published: it can run beside the workers, as a user who may only read.
    """
    from streams.kafka import KafkaLog
    from streams.replay import text
    from streams.replay.verify import verify

    settings = session(ctx).settings
    with _telling() as tell:
        report = verify(settings, KafkaLog(settings.kafka), tell.say, tell.progress)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        text.render_check(report, stdout())
    if not report.identical:
        raise typer.Exit(DIFFERENT)


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
