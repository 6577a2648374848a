"""The reference profile of a version: how its training rows were distributed, and what it answered to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrain.training import Doubles, Floats
from serving.manifest import QUANTILE_LEVELS, Feature, FeatureProfile, ReferenceProfile
from streams.events import Label


def reference_profile(
    rows: Floats, features: Sequence[Feature], classes: Sequence[Label], answers: Doubles, positive: int | None
) -> ReferenceProfile:
    """Profile ``rows`` and the model's ``answers`` to them.

    ``answers`` are n × classes probabilities, or n values of a regression, which has no ``classes``.
    ``positive`` is the index of a binary model's positive class: its scores are of that class, those of several
    classes of the predicted one.
    """
    profiles = [_feature(rows[:, i], feature) for i, feature in enumerate(features)]
    if not classes:
        return ReferenceProfile(len(rows), QUANTILE_LEVELS, profiles, _quantiles(answers))
    chosen = np.argmax(answers, axis=1)
    scores = answers[:, positive] if positive is not None else np.max(answers, axis=1)
    predicted = {str(label): int(np.sum(chosen == i)) for i, label in enumerate(classes)}
    return ReferenceProfile(len(rows), QUANTILE_LEVELS, profiles, _quantiles(scores), predicted)


def _feature(column: Floats, feature: Feature) -> FeatureProfile:
    present = column[~np.isnan(column)].astype(np.float64)
    missing = len(column) - len(present)
    if feature.kind == "categorical":
        codes, counts = np.unique(present.astype(np.int64), return_counts=True)
        named = {
            feature.categories[code] if 0 <= code < len(feature.categories) else str(code): int(count)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }
        return FeatureProfile(feature.name, "categorical", len(column), missing, categories=named)
    if len(present) == 0:
        return FeatureProfile(feature.name, "numeric", len(column), missing)
    return FeatureProfile(
        feature.name,
        "numeric",
        len(column),
        missing,
        mean=float(np.mean(present)),
        std=float(np.std(present)),
        quantiles=_quantiles(present),
    )


def _quantiles(values: Doubles) -> list[float]:
    return [float(q) for q in np.quantile(values, QUANTILE_LEVELS)] if len(values) else []
