"""Gates beside the comparison: what a challenger may cost to serve, and how it may treat each group of rows.

A challenger that is better on the whole may be worse for some. Groups are the values of features that the operator
names.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain.dataset import Problem
from retrain.scoring import open_session, run_session
from retrain.training import Floats, Refused
from streams.settings import RetrainSettings

Answers = npt.NDArray[np.float64]
TIMED_ROWS = 200
MINIMUM_ROWS = 50
"""Of a group, or of its positive rows: rates of fewer say nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that have one value of a feature: their share wrong by each model, or their mean absolute error."""

    name: str
    rows: int
    champion: float
    challenger: float
    selected: float | None = None
    """Share that the challenger puts into the positive class (binary)."""
    found: float | None = None
    """Share of the positive rows that it puts there (binary), if there are enough."""


def require_cheap(onnx: bytes, rows: Floats, settings: RetrainSettings) -> None:
    """Raise :class:`Refused` for a model that is too large, or too slow for one row (the median of 200)."""
    megabytes = len(onnx) / 1e6
    if megabytes > settings.maximum_model_mb:
        raise Refused(f"the model has {megabytes:.1f} MB, at most {settings.maximum_model_mb:g} are allowed")
    session = open_session(onnx)
    taken = []
    for i in range(min(TIMED_ROWS, len(rows))):
        begun = time.perf_counter()
        run_session(session, rows[i : i + 1])
        taken.append(time.perf_counter() - begun)
    if taken and (took_ms := 1000 * float(np.median(taken))) > settings.maximum_latency_ms:
        raise Refused(f"one row takes {took_ms:.1f} ms, at most {settings.maximum_latency_ms:g} are allowed")


def groups_of(
    rows: Floats, target: Answers, champion: Answers, challenger: Answers, problem: Problem, names: Sequence[str]
) -> list[Group]:
    """Every value of the named features that has enough rows. Answers and target are class indices, or numbers.

    Raises :class:`Refused` for a feature that the model does not have.
    """
    found = []
    columns = {feature.name: i for i, feature in enumerate(problem.features)}
    for name in names:
        if name not in columns:
            raise Refused(f"the setting retrain.groups names {name}, which is no feature of {problem.model}")
        column = rows[:, columns[name]]
        for value in np.unique(column[~np.isnan(column)]).tolist():
            here = column == value
            if np.count_nonzero(here) >= MINIMUM_ROWS:
                label = f"{name} = {_shown(problem, columns[name], value)}"
                found.append(_group(label, target[here], champion[here], challenger[here], problem))
    return found


def require_fair(groups: Sequence[Group], problem: Problem, settings: RetrainSettings) -> None:
    """Raise :class:`Refused`, naming the groups: one that loses more than is allowed, or two that differ by too much.

    A loss is a difference of shares wrong, or a share of the champion's mean absolute error.
    """
    reasons = []
    for group in groups:
        loss = group.challenger - group.champion
        if problem.task == "regression":
            loss /= max(group.champion, 1e-12)
        if loss > settings.group_loss:
            reasons.append(
                f"{group.name} loses {loss:.3f} on {group.rows} rows, at most {settings.group_loss:g} is allowed"
            )
    for what, rates in (
        ("selection rate", {g.name: g.selected for g in groups}),
        ("true positive rate", {g.name: g.found for g in groups}),
    ):
        reasons += _apart(what, {name: rate for name, rate in rates.items() if rate is not None}, settings)
    if reasons:
        raise Refused("it treats groups worse than allowed: " + "; ".join(reasons))


def _apart(what: str, rates: dict[str, float], settings: RetrainSettings) -> list[str]:
    found = []
    for feature in dict.fromkeys(name.partition(" = ")[0] for name in rates):
        of = {name: rate for name, rate in rates.items() if name.partition(" = ")[0] == feature}
        low, high = min(of, key=of.__getitem__), max(of, key=of.__getitem__)
        if (apart := of[high] - of[low]) > settings.group_difference:
            found.append(
                f"the {what} is {of[low]:.3f} of {low} and {of[high]:.3f} of {high},"
                f" {apart:.3f} apart where {settings.group_difference:g} is allowed"
            )
    return found


def _group(name: str, target: Answers, champion: Answers, challenger: Answers, problem: Problem) -> Group:
    if problem.task == "regression":
        return Group(name, len(target), _mean(np.abs(champion - target)), _mean(np.abs(challenger - target)))
    wrong = _mean(champion != target), _mean(challenger != target)
    if problem.positive_index is None:
        return Group(name, len(target), *wrong)
    positive = target == problem.positive_index
    said = challenger == problem.positive_index
    enough = np.count_nonzero(positive) >= MINIMUM_ROWS
    return Group(name, len(target), *wrong, selected=_mean(said), found=_mean(said[positive]) if enough else None)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values))


def _shown(problem: Problem, column: int, value: float) -> str:
    categories = problem.features[column].categories
    return categories[int(value)] if 0 <= int(value) < len(categories) else f"{value:g}"
