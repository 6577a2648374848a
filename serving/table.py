"""A labelled table from a file, row by row: features by name, and what turned out to be true."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from streams.errors import MissingInput, WrongSetting
from streams.events import Value

SUFFIXES = (".csv", ".csv.gz", ".parquet")
SLICE_ROWS = 10_000
FeatureValue = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number in the file from 0, and its cells. A missing cell is None."""

    number: int
    features: dict[str, FeatureValue]
    label: Value | None
    prediction: Value | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; the rest are features, in the file's order."""

    label: str
    prediction: str | None = None
    score: str | None = None

    def features(self, frame: pd.DataFrame) -> list[str]:
        """The columns that hold features."""
        return [name for name in frame.columns if name not in (self.label, self.prediction, self.score)]


def read_table(path: Path) -> pd.DataFrame:
    """The whole table. Raises :class:`MissingInput` or :class:`WrongSetting`, in one line."""
    if not path.is_file():
        raise MissingInput(f"{path} does not exist", "name a file that does")
    if not path.name.endswith(SUFFIXES):
        raise WrongSetting(f"{path} is none of {', '.join(SUFFIXES)}", "convert it to one of them")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError, EOFError, pyarrow.ArrowException) as error:
        raise WrongSetting(
            f"{path} cannot be read: {str(error).splitlines()[0]}", "is it what its name says?"
        ) from None
    if path.suffix != ".parquet" and not isinstance(frame.index, pd.RangeIndex):
        raise WrongSetting(f"{path} has rows with more cells than its header", "give every column a name")
    frame.columns = [str(name) for name in frame.columns]
    if frame.empty or len(frame.columns) < 2:
        raise WrongSetting(
            f"{path} has {len(frame)} rows and {len(frame.columns)} columns", "it needs rows and a label"
        )
    return frame


def choose_columns(
    frame: pd.DataFrame, label: str | None = None, prediction: str | None = None, score: str | None = None
) -> Columns:
    """The named columns; the label is the last one unless named. Raises :class:`WrongSetting` for an unknown one."""
    taken = [name for name in (prediction, score) if name is not None]
    label = label or [name for name in frame.columns if name not in taken][-1]
    for name in (label, *taken):
        if name not in frame.columns:
            raise WrongSetting(f"there is no column {name!r}", f"the columns are {', '.join(frame.columns)}")
    return Columns(label, prediction, score)


def text_columns(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold text."""
    return [name for name in names if not _is_number(frame[name])]


def rows(frame: pd.DataFrame, columns: Columns, skip: int = 0, limit: int | None = None) -> Iterator[Row]:
    """The rows from number ``skip`` on, at most ``limit``."""
    features = columns.features(frame)
    end = len(frame) if limit is None else min(len(frame), skip + limit)
    for start in range(skip, end, SLICE_ROWS):
        part = frame.iloc[start : min(end, start + SLICE_ROWS)]
        table = list(zip(*(_cells(part[name]) for name in features), strict=True)) if features else [()] * len(part)
        labels: list[Any] = _cells(part[columns.label])
        nothing: list[Any] = [None] * len(part)
        predictions = nothing if columns.prediction is None else _cells(part[columns.prediction])
        scores = nothing if columns.score is None else _cells(part[columns.score])
        for i, values in enumerate(table):
            yield Row(start + i, dict(zip(features, values, strict=True)), labels[i], predictions[i], scores[i])


def whole_numbers(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The table with those columns as whole numbers, if all of them are: ``1.0`` in a file means the class 1."""
    for name in names:
        column = frame[name]
        if not pd.api.types.is_float_dtype(column.dtype) or not (column.dropna() % 1 == 0).all():
            return frame
    return frame.astype(dict.fromkeys(names, "Int64"))


def _is_number(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column.dtype))


def _cells(column: pd.Series[Any]) -> list[Any]:
    """Python values that JSON can carry; anything but a number or a boolean is text."""
    if _is_number(column):
        cells: list[Any] = column.astype(object).tolist()
        return [None if _is_missing(cell) else cell for cell in cells]
    return [None if _is_missing(cell) else cell if isinstance(cell, bool) else str(cell) for cell in column.tolist()]


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and not math.isfinite(cell))
