"""What every command shares: the session's settings, where output goes, how an error is told."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import structlog
import typer
from rich.console import Console

from streams.errors import DriftlineError, WrongSetting
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of one invocation, where they came from, and the arguments that say the same to a child."""

    settings: Settings
    origin: dict[str, str]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, origin: dict[str, str], *, arguments: tuple[str, ...]) -> Session:
        """A session made of what :func:`streams.settings.load` returned."""
        return cls(settings, origin, arguments)


def session(ctx: typer.Context) -> Session:
    """The session that the top-level callback made."""
    found = ctx.find_object(Session)
    if found is None:
        raise WrongSetting("this command was started without its settings", "start it as `driftline …`")
    return found


def stderr() -> Console:
    """A console for everything that is not data. Honours NO_COLOR."""
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """A console for data."""
    return Console(highlight=False)


def report(error: DriftlineError) -> None:
    """One line that says what is wrong and how to mend it."""
    console = stderr()
    console.print(f"[bold red]driftline:[/] {_escape(error.message)}", soft_wrap=True, end="")
    console.print(f" — {_escape(error.hint)}" if error.hint else "", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def configure_logging(level: str) -> None:
    """structlog on stderr: a console renderer on a terminal, JSON elsewhere. Raises :class:`WrongSetting`."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise WrongSetting(f"--log {level} is not a level", "use debug, info, warning or error")
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("mode.timers").setLevel(logging.ERROR)  # a checkpoint longer than its interval is no event
    logging.basicConfig(
        level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
