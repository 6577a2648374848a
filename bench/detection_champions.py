"""Drifts that are known: recorded streams with a frozen champion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from xgboost import XGBClassifier

from bench.detection_optimum import optimum
from bench.detection_peers import RUN_LENGTH, e_detector
from bench.detection_processes import Errors, Stream

TRAINING = 2_500
REFERENCE = 5_000
LEAST_LOSS = 0.02
"""Accuracy that a drift must cost before it has to be found."""

ABRUPT = (10_000, 20_000, 30_000)
GRADUAL = (9_000, 19_900, 30_500)
"""Rows at which the concepts change; a gradual change takes 1,000 to 1,500 rows from there."""
GRADUAL_ROWS = 1_500


@dataclass(frozen=True, slots=True)
class Recorded:
    """A stream of the Harvard Dataverse collection and the rows of its drifts."""

    name: str
    drifts: tuple[int, ...]
    rows: int

    @property
    def gradual(self) -> bool:
        return self.drifts == GRADUAL


RECORDED = (
    Recorded("mixed_0101_abrupto", ABRUPT, 40_000),
    Recorded("sine_0123_abrupto", ABRUPT, 40_000),
    Recorded("stagger_0120_abrupto", ABRUPT, 40_000),
    Recorded("rt_2563789698568873_abrupto", ABRUPT, 40_000),
    Recorded("sea_0123_abrupto_noise_0.2", ABRUPT, 40_000),
    Recorded("mixed_0101_gradual", GRADUAL, 41_000),
    Recorded("sine_0123_gradual", GRADUAL, 41_000),
    Recorded("sea_0123_gradual_noise_0.2", GRADUAL, 41_000),
)


def champion_errors(folder: Path, recorded: Recorded) -> Errors:
    """Errors of a champion that was trained on the first 2,500 rows and never again, on all that follow."""
    frame = pd.read_csv(folder / f"harvard_{recorded.name}.csv.gz")
    features, target = frame.iloc[:, :-1].to_numpy(), frame.iloc[:, -1].to_numpy().astype(np.int64)
    model = XGBClassifier(n_estimators=60, max_depth=4, n_jobs=1, random_state=0)
    model.fit(features[:TRAINING], target[:TRAINING])
    errors: Errors = (model.predict(features) != target).astype(np.float64)
    return errors[TRAINING:]


def cusum_delay(errors: Errors, before: float, after: float, threshold: float) -> float:
    """Errors until the optimal CUSUM fires on these very errors, from 0; inf if it does not."""
    gains = np.where(errors > 0.5, math.log(after / before), math.log((1.0 - after) / (1.0 - before)))
    walk = np.cumsum(gains)
    above = walk - np.minimum.accumulate(np.minimum(walk, 0.0)) >= threshold
    return float(np.argmax(above)) + 1.0 if above.any() else math.inf


def recorded_streams(folder: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Each stream: drifts found of those to be found, false alarms, and delays beside the optimum's.

    An alarm counts for the newest drift that lowered accuracy, if it came before the next one of any kind; the others
    are false. `optimum` is the row, a whole one as ours are, by which half of the CUSUMs for the two true rates have
    fired, `optimum_here` the CUSUM's delay on the same rows.
    """
    for recorded in RECORDED:
        errors = champion_errors(folder, recorded)
        drifts = [row - TRAINING for row in recorded.drifts]
        made = Stream(errors[:REFERENCE], errors[REFERENCE:])
        alarms = [index + REFERENCE for index in e_detector()(made)]
        settled = GRADUAL_ROWS if recorded.gradual else 0
        bounds = [-settled, *drifts, len(errors)]
        means = [float(errors[start + settled : end].mean()) for start, end in pairwise(bounds)]
        of, found, explained = 0, 0, 0
        entries: list[dict[str, object]] = []
        for number, start in enumerate(drifts):
            end = bounds[number + 2]
            before, after = (
                min(max(each, 0.5 / REFERENCE), 1.0 - 0.5 / REFERENCE) for each in means[number : number + 2]
            )
            within = [alarm for alarm in alarms if start <= alarm < end]
            if after > before:
                explained += len(within)
            if after - before < LEAST_LOSS:
                continue
            of += 1
            found += bool(within)
            best = optimum(before, after, RUN_LENGTH)
            here = cusum_delay(errors[start:end], before, after, best.threshold)
            entries.append(
                {
                    "row": start + TRAINING,
                    "before": before,
                    "after": after,
                    "delay": within[0] - start + 1 if within else None,
                    "optimum": math.ceil(best.median_delay),
                    "optimum_here": here if math.isfinite(here) else None,
                }
            )
        yield (
            recorded.name,
            {
                "found": found,
                "of": of,
                "false_alarms": len(alarms) - explained,
                "delay": [each["delay"] for each in entries],
                "optimum": [each["optimum"] for each in entries],
                "drifts": entries,
            },
        )
