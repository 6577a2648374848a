"""A user's own estimator, by its name in the entry point group ``driftline.estimators``.

The entry point is called with ``task`` (``binary``, ``multiclass`` or ``regression``), ``classes`` (0 for a regression)
and ``seed``, and returns an object with

* ``fit(rows, target, sample_weight=None)``: float32 rows × features; class indices from 0, or numbers;
* ``predict_proba(rows)`` → rows × classes, in the order of the indices; of a regression ``predict(rows)`` → rows;
* ``to_onnx(features)`` → the model as ``onnx.ModelProto`` or bytes, with the one input ``features`` (float32, rows ×
  features) and the outputs label (int64) and probabilities, or the value alone. Without it skl2onnx converts it;
* ``accepts_missing``, if NaN in a row is a missing value to it: otherwise rows with NaN are refused;
* ``thresholds()`` → for each feature the values at which its answers jump, if it knows them: parity is checked there.

It runs in the training process only. Whatever it raises stops the run with the reason, and the champion stays.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import numpy.typing as npt

from retrain.training import Doubles, Floats, Refused, TrainedTask

GROUP = "driftline.estimators"
MOST_THRESHOLDS = 2_000
"""Of one feature."""


def find(name: str) -> EntryPoint:
    """The entry point, which is not imported yet. Raises :class:`Refused` if there is none, or more than one."""
    found = list(importlib.metadata.entry_points(group=GROUP, name=name))
    if len({each.value for each in found}) == 1:
        return found[0]
    if found:
        raise Refused(f"several packages have an estimator {name}: {', '.join(each.value for each in found)}")
    known = sorted({each.name for each in importlib.metadata.entry_points(group=GROUP)})
    raise Refused(
        f"no installed package has an entry point {name} in the group {GROUP}"
        f" ({', '.join(known) or 'there are none'}): install it where `driftline retrain` runs,"
        " or mend the setting retrain.estimator"
    )


def packages(name: str) -> dict[str, str]:
    """The package that has the estimator, and those that it requires, with their versions: what its bytes depend on.

    Raises :class:`Refused` as :func:`find` does.
    """
    package = find(name).dist
    if package is None:
        return {}
    found = {package.name: package.version}
    for requirement in package.requires or []:
        required = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            found[required] = importlib.metadata.version(required)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that nobody asked for
    return found


def fit(
    name: str,
    task: TrainedTask,
    classes: int,
    rows: Floats,
    target: npt.NDArray[Any],
    weights: Doubles | None,
    seed: int,
) -> Any:
    """The estimator, fitted. Raises :class:`Refused` with what went wrong in it."""
    entry = find(name)
    with _theirs(name, f"importing {entry.value}"):
        make = entry.load()
    with _theirs(name, "making it"):
        made = make(task=task, classes=classes, seed=seed)
    wanted = "predict" if task == "regression" else "predict_proba"
    for method in ("fit", wanted):
        if not callable(getattr(made, method, None)):
            raise Refused(f"the estimator {name} has no {method}")
    if not takes_nan(made) and np.isnan(rows).any():
        raise Refused(f"the estimator {name} does not say that it accepts missing values, and the rows have some")
    with _theirs(name, "fit"):
        if weights is None:
            made.fit(rows, target)
        else:
            made.fit(rows, target, sample_weight=weights)
    return made


def takes_nan(native: Any) -> bool:
    """Whether it says so."""
    return getattr(native, "accepts_missing", False) is True


def predict(name: str, native: Any, task: TrainedTask, classes: int, rows: Floats) -> Doubles:
    """Its answers: n × classes probabilities, or n values. Raises :class:`Refused` for anything else."""
    method = "predict" if task == "regression" else "predict_proba"
    with _theirs(name, method):
        said = np.asarray(getattr(native, method)(rows), dtype=np.float64)
    if task == "regression" and said.shape == (len(rows), 1):
        said = said.reshape(len(rows))
    shape = (len(rows),) if task == "regression" else (len(rows), classes)
    if said.shape != shape:
        hint = "" if task == "regression" else ": were rows of every class among those it was fitted on?"
        raise Refused(f"the estimator {name} answered {said.shape} for {len(rows)} rows, not {shape}{hint}")
    if not np.isfinite(said).all():
        raise Refused(f"the estimator {name} answered something that is no number")
    if task != "regression" and not (said.min(initial=0.0) >= 0.0 and np.allclose(said.sum(axis=1), 1.0, atol=1e-4)):
        raise Refused(f"the estimator {name} answered probabilities that do not add up to 1")
    return said


def thresholds(name: str, native: Any, features: int) -> list[Floats]:
    """Per feature the values at which its answers jump: as it says, or those of the trees in it; else none."""
    found: list[list[float]] = [[] for _ in range(features)]
    if callable(getattr(native, "thresholds", None)):
        with _theirs(name, "thresholds"):
            found = [[float(value) for value in values] for values in native.thresholds()]
        if len(found) != features:
            raise Refused(f"the estimator {name} has thresholds of {len(found)} features, not of {features}")
    else:
        for tree in _trees(native):
            for feature, split in zip(tree.feature, tree.threshold, strict=True):
                if feature >= 0:
                    found[int(feature)].append(float(split))
    arrays = [np.unique(np.asarray(values, dtype=np.float32))[:MOST_THRESHOLDS] for values in found]
    return [values[np.isfinite(values)] for values in arrays]


def _trees(native: Any) -> Iterator[Any]:
    """scikit-learn's trees, of a tree or of an ensemble of them."""
    if hasattr(native, "tree_"):
        yield native.tree_
    for member in np.ravel(np.asarray(getattr(native, "estimators_", []), dtype=object)):
        if hasattr(member, "tree_"):
            yield member.tree_


def to_onnx(name: str, native: Any, features: int) -> Any:
    """Its own conversion as an ``onnx.ModelProto``; None if it has none. Raises :class:`Refused`."""
    import onnx

    if not callable(getattr(native, "to_onnx", None)):
        return None
    with _theirs(name, "to_onnx"):
        made = native.to_onnx(features)
        graph = onnx.load_model_from_string(made) if isinstance(made, bytes) else made
    if not isinstance(graph, onnx.ModelProto):
        raise Refused(f"the estimator {name} made {type(made).__name__} in to_onnx, not an onnx.ModelProto or bytes")
    return graph


@contextmanager
def _theirs(name: str, doing: str) -> Iterator[None]:
    """Code that is not ours: whatever it raises is a reason for a person, and no bug of the loop."""
    try:
        yield
    except (Exception, SystemExit) as error:
        text = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
        raise Refused(f"the estimator {name} failed, {doing}: {said}") from error
