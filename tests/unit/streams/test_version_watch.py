"""One version's errors: what it learns, what it keeps, and what an older release left."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.baseline import Baseline, Metric
from detectors.registry import make_detector
from detectors.snapshot import SnapshotError, decode, seal, unseal
from streams.marks import Mark
from streams.order import Errors
from streams.settings import MonitorSettings
from streams.version_watch import VersionWatch

START_S = 1_700_000_000
SETTINGS = MonitorSettings(baseline_outcomes=2_000)
REGISTERED = Baseline(5_000, "accuracy", 0.9, 0.0042)


def errors(values: np.ndarray, from_s: int = START_S, per_s: int = 10) -> Errors:
    """So many outcomes a second."""
    n = len(values)
    at = np.arange(n)
    return Errors(from_s + at // per_s, np.zeros(n, dtype=np.int64), at, values.astype(np.float64))


def bernoulli(rate: float, n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < rate).astype(np.float64)


def later(n: int) -> int:
    return START_S + n // 10


def test_a_learnt_baseline_is_the_reference_with_how_errors_cluster() -> None:
    """Errors that come in runs have a dispersion far above 1, which a rate alone would not tell."""
    rng = np.random.default_rng(3)
    clustered = np.repeat(rng.random(200) < 0.1, 10).astype(np.float64)
    watch = VersionWatch("accuracy", SETTINGS)
    assert watch.reference is None
    watch.feed(errors(clustered))
    assert watch.missing == 0
    assert watch.reference is not None
    assert watch.reference.spread.dispersion > 3.0
    alike = VersionWatch("accuracy", SETTINGS)
    alike.feed(errors(bernoulli(0.1, 2_000)))
    assert alike.reference is not None
    assert alike.reference.spread.dispersion < 2.0


def test_a_learnt_regression_is_watched_in_its_own_unit() -> None:
    """The scale comes from the baseline, and so does what is acceptable: about the mean absolute error."""
    rng = np.random.default_rng(5)
    watch = VersionWatch("mae", SETTINGS)
    assert watch.feed(errors(rng.laplace(0.0, 40.0, 6_000))) == []
    assert watch.pagers is not None
    level = watch.pagers.level
    assert level is not None
    assert 38.0 < level < 48.0
    found = watch.feed(errors(rng.laplace(0.0, 80.0, 1_000), later(6_000)))
    assert found[0].detector == "e_detector"
    assert found[0].metric == "mae"


def test_a_champion_that_returns_keeps_what_was_learnt() -> None:
    """The detectors start afresh against the old reference: what is bad now is found at once."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.05, 3_000)))
    before = watch.reference
    watch.start_afresh()
    assert watch.pagers is None
    assert watch.reference == before
    found = watch.feed(errors(bernoulli(0.5, 300), later(3_000)))
    assert found[0].detector == "e_detector"
    assert found[0].outcomes_since_change < 100


def test_another_registered_baseline_is_another_reference() -> None:
    """Said late or anew, it is what counts from then on; said again it changes nothing."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.3, 3_000)))
    learnt = watch.pagers
    watch.register(None)
    assert watch.pagers is learnt
    watch.register(REGISTERED)
    assert watch.reference is not None
    assert watch.reference.rate == pytest.approx(0.1, abs=1e-3)
    assert [each.detector for each in watch.feed(errors(bernoulli(0.3, 500), later(3_000)))] == ["e_detector"]
    known = watch.pagers
    watch.register(REGISTERED)
    assert watch.pagers is known


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_batches_and_restarts_make_no_difference(metric: Metric) -> None:
    """Whole seconds in any batches, stored and restored in between, give the same evidence and the same state."""
    rng = np.random.default_rng(7)
    values = np.concatenate((bernoulli(0.1, 5_000), bernoulli(0.4, 1_000)))
    values = values if metric == "accuracy" else rng.laplace(0.0, 1.0 + 5.0 * values)
    settings = SETTINGS.model_copy(update={"detectors": ["e_detector", "page_hinkley"], "evidence": ["adwin"]})
    stream = errors(values)
    whole = VersionWatch(metric, settings)
    expected = whole.feed(stream)
    assert {"e_detector"} < {each.detector for each in expected}
    pieces = VersionWatch(metric, settings)
    found = []
    start = 0
    while start < len(stream):
        end = min(len(stream), start + 10 * int(rng.integers(1, 60)))
        found += pieces.feed(stream.slice(start, end))
        start = end
        if rng.random() < 0.2:
            pieces = VersionWatch.restored(pieces.snapshot(), settings)
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()


def test_a_state_of_the_release_before_is_taken_over() -> None:
    """Its detectors go on beside, its baseline is the reference, and its marks give the rate of outcomes."""
    adwin = make_detector("adwin")
    adwin.update_many(bernoulli(0.1, 1_000))
    old = {
        "metric": "accuracy",
        "count": 9_000,
        "learner": seal(1, {"metric": "accuracy", "required": 8_000, "n": 8_000, "total": 800.0, "squares": 800.0}),
        "scale": None,
        "detectors": {adwin.structure: adwin.snapshot()},
        "detections": {"adwin": 3},
        "marks": [Mark(1, START_S, {0: 7}), Mark(9_000, START_S + 899, {0: 9_000})],
        "registered": None,
    }
    watch = VersionWatch.restored(seal(1, old), SETTINGS)
    assert watch.baseline is not None
    assert watch.baseline.value == 0.9
    assert watch.outcomes_per_s == pytest.approx(10.0, rel=0.01)
    assert watch.detections == {"adwin": 3}
    assert adwin.snapshot() in decode(unseal(watch.snapshot(), 2)[1], dict)["detectors"].values()
    found = watch.feed(errors(bernoulli(0.6, 400), START_S + 900))
    assert found[0].detector == "e_detector"
    assert watch.count == 9_400


def test_a_state_of_a_newer_release_is_refused() -> None:
    """Nobody can know what it says."""
    with pytest.raises(SnapshotError, match="upgrade"):
        VersionWatch.restored(seal(3, {}), SETTINGS)
