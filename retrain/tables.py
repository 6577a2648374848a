"""Labelled tables from files: numeric and categorical features, and what the label says about the task."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retrain.dataset import Dataset, Problem
from retrain.training import TrainedTask
from serving.manifest import Feature
from streams.errors import MissingInput, WrongSetting
from streams.events import Label

MAX_CLASSES = 20
"""Whole numbers with more distinct values are a regression's target, not classes."""
MAX_CATEGORIES = 1_000
SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Table:
    """A labelled table as a model sees it. ``rows`` carry the file's order as their time; ``label`` is the column that
    their targets are of.
    """

    problem: Problem
    rows: Dataset
    label: str = ""


def read(path: Path, rows: int | None = None) -> pd.DataFrame:
    """The first ``rows`` rows of a file. Raises :class:`MissingInput` or :class:`WrongSetting`."""
    if not path.is_file():
        raise MissingInput(f"{path} does not exist", f"name a file with one of {', '.join(SUFFIXES)}")
    try:
        if path.name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            frame = pd.read_csv(path, nrows=rows)
        else:
            raise WrongSetting(f"{path} is no table that can be read", f"use one of {', '.join(SUFFIXES)}")
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise WrongSetting(f"{path} cannot be read: {str(error).splitlines()[0]}", "is it complete?") from None
    if frame.empty:
        raise WrongSetting(f"{path} has no rows", "a table needs a header and rows")
    return frame if rows is None else frame.head(rows)


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table(
    frame: pd.DataFrame,
    model: str,
    *,
    label: str | None = None,
    task: TrainedTask | None = None,
    positive: str | None = None,
) -> Table:
    """The table of ``frame``: ``label`` is the last column unless named, ``task`` is guessed from it unless given.

    Raises :class:`WrongSetting` for a table that cannot be learnt from.
    """
    column = label or str(frame.columns[-1])
    if column not in frame.columns:
        raise WrongSetting(f"there is no column {column}", f"the columns are {', '.join(map(str, frame.columns))}")
    if len(frame.columns) < 2:
        raise WrongSetting("the table has no feature beside its label", "add columns")
    outcomes = frame[column]
    if outcomes.isna().any():
        raise WrongSetting(f"column {column} has rows without a label", "remove them")
    chosen = task or guess_task(outcomes)
    classes = () if chosen == "regression" else _classes(outcomes, column)
    if chosen == "binary" and len(classes) != 2:
        raise WrongSetting(f"column {column} has {len(classes)} classes, not two", "use --task multiclass")
    positive_class = _positive(classes, positive) if chosen == "binary" else None
    if positive is not None and chosen != "binary":
        raise WrongSetting(f"a {chosen} model has no positive class", "drop --positive")
    if chosen == "regression" and not pd.api.types.is_numeric_dtype(outcomes):
        raise WrongSetting(f"column {column} has values that are no regression label", "check --task")
    features, columns = zip(
        *(_feature(frame[name], str(name)) for name in frame.columns if name != column), strict=True
    )
    problem = Problem(model, chosen, tuple(features), classes, positive_class)
    encoded = [problem.encode(value) for value in as_labels(outcomes, chosen)]
    if any(value is None for value in encoded):
        raise WrongSetting(f"column {column} has values that are no {chosen} label", "check --task")
    target = np.asarray(encoded, dtype=np.float64)
    matrix = np.column_stack(columns).astype(np.float32)
    if np.isinf(matrix).any():
        raise WrongSetting("a feature is infinite, or too large for float32", "remove or scale it")
    order = np.arange(len(frame), dtype=np.int64)
    return Table(problem, Dataset(matrix, target, np.full(len(frame), np.nan), order, {}, {}), column)


def guess_task(outcomes: pd.Series[Any]) -> TrainedTask:
    """Text and booleans are classes, whole numbers too if they are few; anything else is a regression's target."""
    distinct = outcomes.nunique()
    if pd.api.types.is_bool_dtype(outcomes) or not pd.api.types.is_numeric_dtype(outcomes):
        return "binary" if distinct <= 2 else "multiclass"
    whole = bool((outcomes == outcomes.round()).all())
    if whole and distinct <= MAX_CLASSES:
        return "binary" if distinct <= 2 else "multiclass"
    return "regression"


def as_labels(outcomes: pd.Series[Any], task: TrainedTask) -> list[Any]:
    """The label column as JSON values: whole numbers of a float column are integers where they are classes."""
    if task == "regression":
        return [float(value) for value in outcomes]
    if pd.api.types.is_bool_dtype(outcomes):
        return [bool(value) for value in outcomes]
    if pd.api.types.is_numeric_dtype(outcomes):
        return [int(value) if float(value).is_integer() else float(value) for value in outcomes]
    return [str(value) for value in outcomes]


def _classes(outcomes: pd.Series[Any], column: str) -> tuple[Label, ...]:
    classes = sorted(set(as_labels(outcomes, "multiclass")))
    if any(isinstance(label, float) for label in classes):
        raise WrongSetting(f"column {column} has fractions, which are no classes", "use --task regression")
    if len(classes) < 2:
        raise WrongSetting(f"column {column} has one class only", "take more --rows")
    if len(classes) > MAX_CATEGORIES:
        raise WrongSetting(f"column {column} has {len(classes)} classes", "name the label with --label")
    return tuple(classes)


def _positive(classes: tuple[Label, ...], wanted: str | None) -> Label:
    if wanted is None:
        return classes[-1]
    for label in classes:
        if str(label).lower() == wanted.lower():
            return label
    raise WrongSetting(f"{wanted} is not a class", f"the classes are {', '.join(map(str, classes))}")


def _feature(column: pd.Series[Any], name: str) -> tuple[Feature, np.ndarray[Any, Any]]:
    if pd.api.types.is_numeric_dtype(column):
        return Feature(name), column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not (pd.api.types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype)):
        raise WrongSetting(f"column {name} is {column.dtype}, neither numbers nor text", "convert or drop it")
    categories = sorted({str(value) for value in column.dropna()})
    if len(categories) > MAX_CATEGORIES:
        raise WrongSetting(f"column {name} has {len(categories)} different texts", "drop it: it is no category")
    codes = {category: float(i) for i, category in enumerate(categories)}
    values = np.asarray([codes[str(v)] if pd.notna(v) else np.nan for v in column], dtype=np.float64)
    return Feature(name, "categorical", categories), values
