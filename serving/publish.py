"""``driftline publish``: which table is played for which model, checked before the first row."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pandas as pd

from serving.client import ServeClient, ServedModel
from serving.play import ColumnOracle, OutcomePublisher, Pace, Played, Player, Report, ServeOracle
from serving.table import Columns, choose_columns, read_table, rows, text_columns, whole_numbers
from streams.errors import WrongSetting
from streams.kafka import SafeProducer
from streams.settings import Settings
from streams.topics import TopicAdmin, Topics

Progress = Callable[[int], Callable[[Played], None]]
"""Told the number of rows, gives what is called for each."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line said. ``url`` asks a server; ``prediction`` takes that column instead."""

    file: Path
    pace: Pace
    url: str
    model: str | None = None
    label: str | None = None
    prediction: str | None = None
    score: str | None = None
    version: str = "1"
    skip: int = 0
    limit: int | None = None


def publish(settings: Settings, choice: Choice, progress: Progress) -> Report:
    """Play the table → what was played. SIGINT and SIGTERM end it early, with its outcomes published.

    Raises a :class:`streams.errors.DriftlineError` for whatever keeps it from playing.
    """
    frame = read_table(choice.file)
    columns = choose_columns(frame, choice.label, choice.prediction, choice.score)
    count = len(range(choice.skip, len(frame) if choice.limit is None else min(len(frame), choice.skip + choice.limit)))
    if not count:
        raise WrongSetting(f"{choice.file} has {len(frame)} rows, none is left to play", "lower --skip-rows")
    with contextlib.ExitStack() as stack:
        client = None if columns.prediction else stack.enter_context(contextlib.closing(ServeClient(choice.url)))
        served = client.model(choice.model) if client else None
        TopicAdmin(settings).create()
        sender = SafeProducer(settings.kafka)
        stack.callback(sender.close)
        topics = Topics(settings.kafka.topic_prefix)
        if client and served:
            check_fits(frame, columns, served)
            model, classes = served.name, served.parameters.classes
            oracle: ServeOracle | ColumnOracle = ServeOracle(client, served)
            regression = served.parameters.task == "regression"
        else:
            model = choice.model or _unnamed()
            declared = settings.models.get(model)
            frame, regression = as_predicted(frame, columns, declared.task if declared else None)
            classes = (declared.classes if declared else None) or []
            oracle = ColumnOracle(sender, topics.predictions, model, choice.version)
        outcomes = OutcomePublisher(sender, topics.outcomes, model, classes)
        player = Player(model, oracle, outcomes, choice.pace, regression=regression, on_prediction=progress(count))
        with _stopped_by_signals(player):
            report = player.play(rows(frame, columns, choice.skip, choice.limit))
        sender.flush()
    if not report.rows and report.first_error:
        raise WrongSetting(f"no row was accepted: {report.first_error}", "do the table and the model belong together?")
    return report


def _unnamed() -> str:
    raise WrongSetting("--prediction-column needs the model's name", "add --model NAME")


def check_fits(frame: pd.DataFrame, columns: Columns, model: ServedModel) -> None:
    """Raise :class:`WrongSetting` for a table that the model cannot be asked about."""
    present = columns.features(frame)
    if absent := [name for name in model.features if name not in present]:
        raise WrongSetting(
            f"the table has no column {', '.join(absent)}, which {model.name} needs",
            f"its features are {', '.join(model.features)}",
        )
    numeric = [name for name in model.features if name not in model.text_features]
    if text := text_columns(frame, numeric):
        raise WrongSetting(f"column {text[0]} holds text, {model.name} takes numbers there", "convert the column")
    if model.parameters.task == "regression" and text_columns(frame, [columns.label]):
        raise WrongSetting(
            f"the label {columns.label} holds text, {model.name} predicts numbers", "name another: --label"
        )


def as_predicted(frame: pd.DataFrame, columns: Columns, task: str | None) -> tuple[pd.DataFrame, bool]:
    """The table as its own predictions are published, and whether they are a regression's.

    A column of fractions is a regression, unless the model is declared; whole numbers, text and booleans are classes.
    """
    names = [name for name in (columns.prediction, columns.label) if name is not None]
    if columns.score is not None and text_columns(frame, [columns.score]):
        raise WrongSetting(f"the score {columns.score} holds text", "name another: --score-column")
    if task != "regression":
        frame = whole_numbers(frame, names)
    fractions = columns.prediction is not None and pd.api.types.is_float_dtype(frame[columns.prediction].dtype)
    regression = task == "regression" or (task is None and fractions)
    if regression and (text := text_columns(frame, names)):
        raise WrongSetting(f"column {text[0]} holds text, the model predicts numbers", "name other columns")
    return frame, regression


@contextlib.contextmanager
def _stopped_by_signals(player: Player) -> Iterator[None]:
    """The first signal ends the play in order, a second one the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: FrameType | None) -> None:
        player.stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
