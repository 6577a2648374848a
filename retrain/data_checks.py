"""Are these rows fit to be learnt from? Each check stops a run with a reason that a person can use.

They stop what no real change of the world looks like: a column that went missing, a unit that changed, classes that are
not reported any more, labels that have nothing to do with their rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrain.coverage import Coverage, lacking
from retrain.dataset import Dataset, Problem
from retrain.training import Floats, Refused
from serving.manifest import FeatureProfile, Manifest, ReferenceProfile
from streams.events import Baseline

SUSPECTED = "suspected_labels"
"""A manifest's metric: of the rows that the version was trained on, the share of labels that are probably wrong."""
MINIMUM_ROWS = 100
"""Of fewer, a share says nothing."""
JUDGED_ROWS = 300
"""Of fewer a tree may find nothing by chance. Of 878 windows of nine recorded streams 6 were stopped with 100 rows,
with 300 the 2 in which two opposite concepts were mixed half and half."""
MISSED_BY_CHANCE = 1e-6
"""Of a class that is no longer reported. In recorded streams one class of two has come 82 times in a row."""
ONE_SIDED = 0.75
"""Share of one class from which on hardly any model beats always saying it."""
FOLDS = 5
DEPTH = 6
LEAF_ROWS = 5
"""Of the trees that judge labels: coarse ones, which a few wrong labels do not sway."""
JUDGED_MOST = 2_000
"""Newest rows that are looked at for wrong labels: more cost more, and say no more."""
DEVIATIONS = 4.0
"""By so many standard deviations the share of suspected labels must exceed what is tolerated."""
TELLING = 0.5
"""Of a champion that gets half of what always saying the commonest class gets wrong: its features tell the labels."""
WIDER = 10.0
"""A value counts as out of range when it lies beyond the reference by so many times the reference's width."""
SCALED_ROWS = 30
"""Of fewer outcomes that is not told."""
OUTLIERS = 0.05
"""Largest share of the numbers, which says nothing of their scale."""


@dataclass(frozen=True, slots=True)
class DataPolicy:
    """What is tolerated, as shares of the rows but for ``scale``.

    ``missing``: of one feature's values, above the share that the reference misses. ``out_of_range``: of one feature's
    values, far beyond the reference's. ``class_share``: a class of two that the reference predicts at least ten times
    as often must be labelled at least so often. ``newest``: the rows that the labels are judged by, since older ones
    may be of another concept. ``label_errors``: labels that are probably wrong, beyond the champion's own rows' share.
    ``dropped``: new rows that cannot be used. ``one_sided``: by how much less (a share of theirs) may be labelled of
    what was predicted to be of one class than of the others. ``scale``: so many times as large as what was predicted,
    or as small, may a regression's outcomes be; cents are a hundred times euros.
    """

    missing: float = 0.5
    out_of_range: float = 0.5
    class_share: float = 0.005
    newest: float = 0.3
    label_errors: float = 0.2
    dropped: float = 0.2
    one_sided: float = 0.5
    scale: float = 10.0


POLICY = DataPolicy()


def require_sound(
    dataset: Dataset, problem: Problem, champion: Manifest | None, fresh: int = 0, policy: DataPolicy = POLICY
) -> None:
    """Raise :class:`Refused` with every reason why these rows must not be learnt from. See :func:`unsound`.

    ``fresh`` is the first row that is new to the champion: from there on labels are looked at one by one.
    """
    profile, measured = (champion.profile, champion.baseline) if champion is not None else (None, None)
    reasons = unsound(dataset, problem, profile, measured, policy) + _new_rows(
        dataset, problem, measured, fresh, policy
    )
    if not reasons and champion is not None:
        reasons = _suspected(dataset, problem, champion.metrics.get(SUSPECTED), fresh, policy)
    if reasons:
        raise Refused("the rows are not fit to be learnt from: " + "; ".join(reasons))


def require_reported(
    dataset: Dataset, problem: Problem, champion: Manifest, fresh: int = 0, policy: DataPolicy = POLICY
) -> None:
    """Raise :class:`Refused` with every reason why nobody must be weighed on these rows: outcomes that do not come as
    they should, or rows that were lost. Few rows tell that, too.
    """
    reasons = _schema(dataset, problem) or _classes(dataset, problem, champion.profile, policy)
    reasons += _new_rows(dataset, problem, champion.baseline, fresh, policy)
    if reasons:
        raise Refused("the rows are not fit to be compared on: " + "; ".join(reasons))


def _new_rows(
    dataset: Dataset, problem: Problem, measured: Baseline | None, fresh: int, policy: DataPolicy
) -> list[str]:
    """What is wrong with the rows that are new to the champion, as they come."""
    reasons = _dropped(dataset, fresh, policy)
    if problem.task == "regression":
        return reasons + _scale(dataset, measured, fresh, policy)
    if dataset.coverage is not None:
        reasons += _one_sided(dataset.coverage, problem, policy) or _vanished(dataset, problem, fresh, policy)
    return reasons


def _dropped(dataset: Dataset, fresh: int, policy: DataPolicy) -> list[str]:
    dropped = sum(dataset.fresh_dropped.values())
    rows = len(dataset) - fresh + dropped
    if dropped <= policy.dropped * rows:
        return []
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(dataset.fresh_dropped.items()))
    return [
        f"{dropped} of {rows} new rows cannot be used ({why}), {policy.dropped:.0%} are tolerated (retrain.dropped):"
        " what has changed in the events?"
    ]


def _one_sided(coverage: Coverage, problem: Problem, policy: DataPolicy) -> list[str]:
    """Labels that are missing where one class was predicted: those of that class, most likely."""
    if policy.one_sided >= 1.0 or (found := lacking(coverage, policy.one_sided)) is None:
        return []
    return [
        f"outcomes of what was predicted {problem.classes[found.index]!r} do not come as others do: of the predictions"
        f" {found.expected:.1%} were that, of those that are labelled {found.share:.1%}. Does the feed report the"
        " class, or do its outcomes come later? If they are one-sided on purpose, set retrain.outcomes_one_sided to 1"
        " for this model"
    ]


def _vanished(dataset: Dataset, problem: Problem, fresh: int, policy: DataPolicy) -> list[str]:
    """A class of several that is predicted and that no outcome is of any more."""
    if problem.task != "multiclass" or dataset.coverage is None:
        return []
    found = []
    for index, expected in enumerate(dataset.coverage.shares.tolist()):
        if expected < 10 * policy.class_share:
            continue
        newest = _rows_to_miss(expected)
        outcomes = dataset.target[fresh:][-newest:]
        if len(outcomes) == newest and not (outcomes == index).any():
            found.append(
                f"class {problem.classes[index]!r} has none of the newest {newest} outcomes, {expected:.0%} of the"
                " predictions were that: does the feed still report it?"
            )
    return found


def _scale(dataset: Dataset, measured: Baseline | None, fresh: int, policy: DataPolicy) -> list[str]:
    """Numbers of another unit than those that were predicted for the same rows.

    What a model predicts is smaller than its outcomes, at the mean, by no more than its mean absolute error.
    """
    known = np.isfinite(dataset.served[fresh:])
    if measured is None or measured.metric != "mae" or np.count_nonzero(known) < SCALED_ROWS:
        return []
    outcomes = _magnitude(dataset.target[fresh:][known])
    predicted = _magnitude(dataset.served[fresh:][known])
    if predicted == 0.0 or predicted / policy.scale <= outcomes <= policy.scale * (predicted + measured.value):
        return []  # where nothing was predicted nothing says how large they may be
    return [
        f"outcomes are of another size than predictions: {outcomes:.3g} at the mean, and {predicted:.3g} predicted for"
        f" the same {np.count_nonzero(known)} rows, with an error of {measured.value:.3g} once. Has their unit changed?"
        " If it is the world that did, raise retrain.outcome_scale for this model"
    ]


def _magnitude(values: npt.NDArray[np.float64]) -> float:
    """The mean absolute value without the largest of them. Not the median: most outcomes may be zero."""
    sizes = np.sort(np.abs(values))
    return float(np.mean(sizes[: math.ceil((1.0 - OUTLIERS) * len(sizes))]))


def _suspected(dataset: Dataset, problem: Problem, before: float | None, fresh: int, policy: DataPolicy) -> list[str]:
    """More labels that are probably wrong than can be told by the champion's own rows, where ``before`` were."""
    if before is None or problem.task == "regression" or policy.label_errors >= 1.0:
        return []
    start = max(0, min(fresh, len(dataset) - JUDGED_ROWS))
    labels = dataset.target[start:].astype(np.int64)
    found = suspected_share(dataset.features[start:], labels)
    judged = min(len(labels), JUDGED_MOST)
    allowed = before + policy.label_errors
    if found is None or found <= allowed + DEVIATIONS * math.sqrt(allowed * max(0.0, 1.0 - allowed) / judged):
        return []
    return [
        f"{found:.0%} of the newest {judged} labels are probably wrong: models fitted on the others say another class"
        f" as surely as they are right elsewhere. Of the champion's own rows it was {before:.0%}, and"
        f" {policy.label_errors:.0%} more are tolerated (retrain.label_errors). Look at who labels since when; if the"
        " world did become so much harder to tell, raise the setting for this model"
    ]


def unsound(
    dataset: Dataset,
    problem: Problem,
    reference: ReferenceProfile | None,
    measured: Baseline | None = None,
    policy: DataPolicy = POLICY,
) -> list[str]:
    """What is wrong with the rows; an empty list for rows that may be learnt from.

    ``reference`` and ``measured`` are the champion's profile and baseline. Without them only what the rows say of
    themselves is checked.
    """
    if reasons := _schema(dataset, problem):
        return reasons  # nothing else can be told of rows of another shape
    reasons = _classes(dataset, problem, reference, policy)
    if len(dataset) < MINIMUM_ROWS:
        return reasons
    known = {profile.name: profile for profile in reference.features} if reference is not None else {}
    for column, feature in enumerate(problem.features):
        reasons += _feature(dataset.features[:, column], feature.name, known.get(feature.name), policy)
    if problem.task != "regression" and not reasons:
        reasons += _labels(dataset, reference, measured, policy)
    return reasons


def _schema(dataset: Dataset, problem: Problem) -> list[str]:
    found = []
    if dataset.features.ndim != 2 or dataset.features.shape[1] != len(problem.features):
        found.append(f"they have the shape {dataset.features.shape}, the model takes {len(problem.features)} features")
    elif dataset.features.dtype != np.float32:
        found.append(f"they are {dataset.features.dtype}, not float32")
    elif np.isinf(dataset.features).any():
        found.append("a feature is infinite")
    if not np.isfinite(dataset.target).all():
        found.append("an outcome is not a number")
    elif problem.task != "regression" and len(dataset):
        highest = int(dataset.target.max())
        if dataset.target.min() < 0 or highest >= len(problem.classes):
            found.append(f"an outcome is class number {highest} of {len(problem.classes)}")
    if len(dataset) > 1 and (np.diff(dataset.complete_ms) < 0).any():
        found.append("they are not in time order")
    return found


def _classes(dataset: Dataset, problem: Problem, reference: ReferenceProfile | None, policy: DataPolicy) -> list[str]:
    if problem.task == "regression" or not len(dataset):
        return []
    counts = np.bincount(dataset.target.astype(np.int64), minlength=len(problem.classes))
    if np.count_nonzero(counts) < 2:
        only = problem.classes[int(np.argmax(counts))]
        return [f"all {len(dataset)} outcomes have one class only, {only!r}: does the feed report the others?"]
    if reference is None or problem.task != "binary" or len(dataset) < MINIMUM_ROWS:
        return []  # of several classes some do vanish for a while: see :func:`_vanished`
    predicted = sum(reference.predicted.values())
    found = []
    for index, (label, count) in enumerate(zip(problem.classes, counts.tolist(), strict=True)):
        expected = reference.predicted.get(str(label), 0) / max(1, predicted)
        if expected < 10 * policy.class_share:
            continue
        newest = _rows_to_miss(expected)
        if count < policy.class_share * len(dataset):
            found.append(
                f"class {label!r} has {count} of {len(dataset)} outcomes, {expected:.0%} were expected:"
                " does the feed report it?"
            )
        elif len(dataset) >= newest and not (dataset.target[-newest:] == index).any():
            found.append(
                f"class {label!r} has none of the newest {newest} outcomes, {expected:.0%} were expected:"
                " does the feed still report it?"
            )
    return found


def _rows_to_miss(expected: float) -> int:
    """In how many rows a class of that share is missing by chance once in a million times."""
    return max(MINIMUM_ROWS, math.ceil(math.log(MISSED_BY_CHANCE) / math.log1p(-min(expected, 0.99))))


def _feature(column: Floats, name: str, known: FeatureProfile | None, policy: DataPolicy) -> list[str]:
    absent = float(np.mean(np.isnan(column)))
    before = known.missing / known.count if known is not None and known.count else 0.0
    if absent > before + policy.missing:
        unknown = " or of an unknown category" if known is not None and known.kind == "categorical" else ""
        return [f"feature {name} is missing{unknown} in {absent:.0%} of the rows, in the reference in {before:.0%}"]
    if known is None or known.kind != "numeric" or len(known.quantiles) < 2:
        return []
    low, high = known.quantiles[0], known.quantiles[-1]
    if high <= low:
        return []  # it never varied: nothing says how far it may
    margin = WIDER * (high - low)
    present = column[~np.isnan(column)].astype(np.float64)
    outside = float(np.mean((present < low - margin) | (present > high + margin))) if len(present) else 0.0
    if outside > policy.out_of_range:
        return [
            f"feature {name} is far outside of its range [{low:g}, {high:g}] in {outside:.0%} of the rows:"
            " has its unit changed?"
        ]
    return []


def _labels(
    dataset: Dataset, reference: ReferenceProfile | None, measured: Baseline | None, policy: DataPolicy
) -> list[str]:
    """Labels that cannot be told where the champion could tell them: joined to other rows, say, or shuffled."""
    if reference is None or measured is None or measured.metric != "accuracy" or not reference.predicted:
        return []
    commonest = max(reference.predicted.values()) / max(1, sum(reference.predicted.values()))
    if _gain_over(commonest, measured.value) < TELLING:
        return []
    newest = max(JUDGED_ROWS, round(policy.newest * len(dataset)))
    if len(dataset) < newest:
        return []
    labels = dataset.target[-newest:].astype(np.int64)
    known = float(np.bincount(labels).max() / len(labels))
    told = float(np.mean(np.argmax(out_of_fold(_in_order(dataset.features[-newest:]), labels), axis=1) == labels))
    if known > ONE_SIDED or _gain_over(known, told) > 0.0:
        return []
    return [
        f"the newest {len(labels)} labels cannot be told from their features: right on {told:.0%} of them,"
        f" always saying the commonest class is right on {known:.0%}. Are outcomes joined to the right predictions?"
    ]


def _gain_over(commonest: float, accuracy: float) -> float:
    return (accuracy - commonest) / (1.0 - commonest) if commonest < 1.0 else 0.0


def suspect_labels(rows: Floats, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which labels are probably wrong: trees that have not seen the row are as sure of another class as they usually
    are of rows that are labelled so, and not of its own.

    Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021). A class that no row
    has is nobody's.
    """
    told = out_of_fold(_in_order(rows), labels)
    own = labels[:, None] == np.arange(told.shape[1])
    usual = np.array([told[here, k].mean() if here.any() else np.inf for k, here in enumerate(own.T)])
    sure = np.where(told >= usual, told, -1.0)
    return np.asarray((sure.max(axis=1) >= 0.0) & (np.argmax(sure, axis=1) != labels), dtype=np.bool_)


def suspected_share(rows: Floats, labels: npt.NDArray[np.int64]) -> float | None:
    """Of the newest 2,000 labels at most, the share that is probably wrong; None of fewer than 300, or of one class.

    A hard concept has such a share too: what it says is by how much it has grown.
    """
    rows, labels = rows[-JUDGED_MOST:], labels[-JUDGED_MOST:]
    if len(rows) < JUDGED_ROWS or len(np.unique(labels)) < 2:
        return None
    return float(np.mean(suspect_labels(rows, labels)))


def _in_order(rows: Floats) -> Floats:
    """Rows with their place in time beside them: where a concept changed at some row, a tree can tell, and the labels
    on either side do not contradict each other.
    """
    return np.column_stack([rows, np.arange(len(rows), dtype=np.float32)])


def out_of_fold(rows: Floats, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """n × classes probabilities, each row's by a small tree that was fitted on the other folds."""
    from sklearn.tree import DecisionTreeClassifier  # here: only a training needs it

    probabilities = np.zeros((len(rows), int(labels.max()) + 1))
    folds = np.arange(len(rows)) % FOLDS
    for fold in range(min(FOLDS, len(rows))):
        held = folds == fold
        tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAF_ROWS, random_state=0)
        tree.fit(rows[~held], labels[~held])
        probabilities[np.ix_(held, tree.classes_)] = tree.predict_proba(rows[held])
    return probabilities
