"""The parity gate: an exported model answers as the trained one, on every one of many hostile rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from retrain.scoring import open_session, run_session
from retrain.training import Doubles, Floats, Indices, Refused, Trained

ABSOLUTE = 1e-5
RELATIVE = 1e-3
"""Of a regression: the sums of float32 leaves are taken in another order."""
PERTURBATION = 0.1
"""Of a feature's standard deviation."""
MAX_THRESHOLDS = 2_000
NAN_SHARE = 0.2
SINGLE_ROWS = 200
"""Rows that are asked for one at a time as well."""


class Parity(msgspec.Struct, frozen=True):
    """What the gate found. ``rows_above`` and ``labels_differ`` must be zero, never a mean."""

    rows: int
    real_rows: int
    threshold_rows: int
    nan_rows: int
    unseen_rows: int
    single_rows: int
    largest_difference: float
    rows_above: int
    labels_differ: int
    shapes_right: bool
    tolerance: str

    @property
    def passed(self) -> bool:
        """Whether the exported model may serve."""
        return self.shapes_right and self.rows_above == 0 and self.labels_differ == 0

    def describe(self) -> str:
        """One line for a person."""
        if not self.shapes_right:
            return "the exported model answers in another shape than the trained one"
        return (
            f"{self.rows_above} of {self.rows} rows differ by more than {self.tolerance} "
            f"(largest {self.largest_difference:.2g}), {self.labels_differ} labels differ"
        )


def check(trained: Trained, onnx: bytes, real: Floats, *, minimum_rows: int, seed: int) -> Parity:
    """Compare ``trained`` and its export on the rows of :func:`probe_rows`, batched and single."""
    made = probe_rows(trained, real, minimum_rows=minimum_rows, seed=seed)
    probes = np.ascontiguousarray(np.concatenate([made.real, made.at_thresholds, made.missing, made.unseen]))
    native = trained.predict(probes)
    session = open_session(onnx)
    labels, answers = run_session(session, probes)
    expected = _labels(trained, native)
    shapes_right = _shapes_right(trained, len(probes), labels, answers)
    single_rows = 0
    largest = float("inf")
    above = differ = len(probes)
    if shapes_right:
        answers = answers.reshape(native.shape)
        chosen = np.linspace(0, len(probes) - 1, min(SINGLE_ROWS, len(probes)), dtype=np.int64)
        singles = [run_session(session, probes[i : i + 1]) for i in chosen]
        single_rows = len(singles)
        shapes_right = all(_shapes_right(trained, 1, label, answer) for label, answer in singles)
    if shapes_right:
        single_answers = np.concatenate([answer.reshape((1, *native.shape[1:])) for _, answer in singles])
        wrong = _too_far(trained, native, answers)
        wrong[chosen] |= _too_far(trained, native[chosen], single_answers)
        above = int(wrong.sum())
        largest = float(np.max(np.abs(native - answers), initial=0.0))
        mismatched = np.zeros(len(probes), dtype=np.bool_)
        if labels is not None:
            mismatched = labels != expected
            mismatched[chosen] |= (
                np.concatenate([label for label, _ in singles if label is not None]) != (expected[chosen])
            )
        differ = int(mismatched.sum())
    return Parity(
        rows=len(probes),
        real_rows=min(len(real), len(probes)),
        threshold_rows=len(made.at_thresholds),
        nan_rows=len(made.missing),
        unseen_rows=len(made.unseen),
        single_rows=single_rows,
        largest_difference=largest,
        rows_above=above,
        labels_differ=differ,
        shapes_right=shapes_right,
        tolerance=f"{RELATIVE:g} relative" if trained.task == "regression" else f"{ABSOLUTE:g}",
    )


class Probes(NamedTuple):
    """The rows of the gate: real ones topped up with perturbed real ones, and real ones with something hostile."""

    real: Floats
    at_thresholds: Floats
    """One feature at a split's threshold, and one float32 step on either side."""
    missing: Floats
    """Missing values, if the model takes them."""
    unseen: Floats
    """One feature beyond what any row shows: for a categorical one, a category that nobody has seen."""


def probe_rows(trained: Trained, real: Floats, *, minimum_rows: int, seed: int) -> Probes:
    """The rows to ask both models about. Raises :class:`Refused` without a real row."""
    if len(real) == 0:
        raise Refused("there is no real row to check the exported model with")
    rng = np.random.default_rng(seed)
    rows = real
    if missing := max(0, minimum_rows - len(real)):
        base = real[rng.integers(0, len(real), missing)]
        spread = np.ma.masked_invalid(real).std(axis=0).filled(0.0)
        rows = np.concatenate([real, (base + rng.normal(size=base.shape) * (PERTURBATION * spread)).astype(np.float32)])
    absent = np.zeros((0, real.shape[1]), dtype=np.float32)
    if trained.takes_nan:
        absent = np.array(real[rng.integers(0, len(real), max(100, minimum_rows // 10))])
        absent[rng.random(absent.shape) < NAN_SHARE] = np.nan
        absent[0] = np.nan
    return Probes(rows, _threshold_rows(trained, real, rng), absent, _unseen_rows(real, rng))


def _unseen_rows(real: Floats, rng: np.random.Generator) -> Floats:
    known = np.ma.masked_invalid(real)
    rows = np.array(real[rng.integers(0, len(real), 2 * real.shape[1])])
    for feature in range(real.shape[1]):
        rows[2 * feature, feature] = known.min(axis=0).filled(0.0)[feature] - 1.0
        rows[2 * feature + 1, feature] = known.max(axis=0).filled(0.0)[feature] + 1.0
    return rows


def _threshold_rows(trained: Trained, real: Floats, rng: np.random.Generator) -> Floats:
    pairs = [(feature, float(value)) for feature, values in enumerate(trained.thresholds()) for value in values]
    if len(pairs) > MAX_THRESHOLDS:
        pairs = [pairs[i] for i in rng.choice(len(pairs), MAX_THRESHOLDS, replace=False)]
    rows = np.repeat(real[rng.integers(0, len(real), len(pairs))], 3, axis=0)
    for i, (feature, value) in enumerate(pairs):
        at = np.float32(value)
        rows[3 * i, feature] = np.nextafter(at, np.float32(-np.inf))
        rows[3 * i + 1, feature] = at
        rows[3 * i + 2, feature] = np.nextafter(at, np.float32(np.inf))
    return rows


def _labels(trained: Trained, native: Doubles) -> Indices:
    if trained.task == "regression":
        return np.zeros(0, dtype=np.int64)
    return np.asarray(np.argmax(native, axis=1), dtype=np.int64)


def _shapes_right(trained: Trained, rows: int, labels: Indices | None, answers: Doubles) -> bool:
    if trained.task == "regression":
        return labels is None and answers.shape == (rows, 1)
    return labels is not None and labels.shape == (rows,) and answers.shape == (rows, trained.classes)


def _too_far(trained: Trained, native: Doubles, answers: Doubles) -> np.ndarray[Any, np.dtype[np.bool_]]:
    allowed = ABSOLUTE + (RELATIVE * np.abs(native) if trained.task == "regression" else 0.0)
    # Written so that NaN in an answer counts as too far.
    far = ~(np.abs(native - answers) <= allowed)
    return np.asarray(far if far.ndim == 1 else far.any(axis=1), dtype=np.bool_)
