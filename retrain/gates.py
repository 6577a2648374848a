"""Gates beside the comparison: what a version may cost to serve, that it takes the rows that the champion takes, and
how it may treat each group of rows.

A challenger that is better on the whole may be worse for some. Groups are the values of features that the operator
names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain.comparison import surely_worse
from retrain.dataset import Problem
from retrain.scoring import open_session, run_session
from retrain.training import Floats, Refused
from serving.manifest import Manifest
from streams.settings import RetrainSettings

Answers = npt.NDArray[np.float64]
TIMED_ROWS = 200
MINIMUM_ROWS = 50
"""Of a group, or of its positive rows: rates of fewer say nothing."""
MOST_NAMED = 5
"""Groups in one reason."""


class TooFewRows(Refused):
    """It cannot be judged yet: more rows are worth waiting for."""


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
    gain_p_value: float = 1.0
    """One-sided: how likely such a gain is when the challenger is no better there."""


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


def missing_matters(champion: Manifest, problem: Problem, rows: Floats) -> str | None:
    """Why whoever replaces the champion must accept missing values; None if it need not.

    It must where the champion does, and missing values come or may come: an unknown category is one to the server.
    """
    if not champion.signature.accepts_missing:
        return None
    categorical = next((feature.name for feature in problem.features if feature.categories), None)
    if categorical is not None:
        return f"feature {categorical} has categories, and an unknown one is a missing value"
    if np.isnan(rows).any():
        return "the rows have some"
    if champion.profile is not None and any(feature.missing for feature in champion.profile.features):
        return "the champion's own rows had some"
    return None


def require_missing(accepted: bool, why: str | None) -> None:
    """Raise :class:`Refused` for a version that does not accept missing values where :func:`missing_matters`."""
    if why is not None and not accepted:
        raise Refused(
            f"it does not accept missing values, the champion does, and {why}: the server would refuse such rows."
            " xgboost accepts them (retrain.algorithms)"
        )


def groups_of(
    rows: Floats, target: Answers, champion: Answers, challenger: Answers, problem: Problem, names: Sequence[str]
) -> list[Group]:
    """Every value of the named features that has enough rows. Answers and target are class indices, or numbers.

    Raises :class:`Refused` for a feature that the model does not have.
    """
    return [
        _group(label, target[here], champion[here], challenger[here], problem)
        for label, here in _values(rows, problem, names)
        if np.count_nonzero(here) >= MINIMUM_ROWS
    ]


def require_enough(rows: Floats, problem: Problem, settings: RetrainSettings) -> None:
    """Raise :class:`TooFewRows`, naming the groups, for one that is among the rows, and has too few to be judged.

    Nobody is kept waiting where the settings let groups lose and differ as they may.
    """
    if problem.task != "regression" and settings.group_loss >= 1.0 and settings.group_difference >= 1.0:
        return
    counted = ((label, int(np.count_nonzero(here))) for label, here in _values(rows, problem, settings.groups))
    few = [f"{label} has {count}" for label, count in counted if count < MINIMUM_ROWS]
    if few:
        others = f" and {len(few) - MOST_NAMED} other groups fewer too" if len(few) > MOST_NAMED else ""
        raise TooFewRows(
            f"{MINIMUM_ROWS} test rows of each group are needed (retrain.groups): {', '.join(few[:MOST_NAMED])}{others}"
        )


def _values(rows: Floats, problem: Problem, names: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Every value of the named features that some row has, and which rows."""
    columns = {feature.name: i for i, feature in enumerate(problem.features)}
    for name in names:
        if name not in columns:
            raise Refused(f"the setting retrain.groups names {name}, which is no feature of {problem.model}")
        column = rows[:, columns[name]]
        for value in np.unique(column[~np.isnan(column)]).tolist():
            yield f"{name} = {_shown(problem, columns[name], value)}", column == value


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
        old, new = np.abs(champion - target), np.abs(challenger - target)
        gained = surely_worse("mae", new, old)
    else:
        old, new = (champion != target).astype(np.float64), (challenger != target).astype(np.float64)
        gained = surely_worse("accuracy", new, old)
    found = Group(name, len(target), _mean(old), _mean(new), gain_p_value=gained)
    if problem.positive_index is None:
        return found
    positive = target == problem.positive_index
    said = challenger == problem.positive_index
    enough = np.count_nonzero(positive) >= MINIMUM_ROWS
    return replace(found, selected=_mean(said), found=_mean(said[positive]) if enough else None)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values))


def _shown(problem: Problem, column: int, value: float) -> str:
    categories = problem.features[column].categories
    return categories[int(value)] if 0 <= int(value) < len(categories) else f"{value:g}"
