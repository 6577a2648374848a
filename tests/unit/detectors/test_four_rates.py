"""Four rates: what accuracy does not show, one of them does."""

import numpy as np
import pytest

from detectors.four_rates import RATES, FourRates, Truths
from detectors.reference import Reference
from detectors.snapshot import SnapshotError, seal


def classified(
    rng: np.random.Generator, n: int, recall: float, prevalence: float = 0.05, false_positives: float = 0.01
) -> tuple[Truths, Truths]:
    actual = rng.random(n) < prevalence
    predicted = np.where(actual, rng.random(n) < recall, rng.random(n) < false_positives)
    return predicted, actual


def test_a_fall_of_recall_is_found_though_accuracy_hardly_moves() -> None:
    """Recall .8 → .4 at a prevalence of 5 % takes a few dozen positives, and is said to be that."""
    rng = np.random.default_rng(1)
    rates = FourRates(run_length=100_000, shares={"tpr": 0.05, "ppv": 0.05})
    assert rates.update_many(*classified(rng, 30_000, 0.8)) == []
    predicted, actual = classified(rng, 4_000, 0.4)
    found = rates.update_many(predicted, actual)
    first = next(each for each in found if each.rate == "tpr")
    assert actual[first.index]
    assert not predicted[first.index]
    assert actual[: first.index].sum() < 80
    assert first.detection.before == pytest.approx(0.2, abs=0.05)


def test_each_rate_sees_its_own_outcomes() -> None:
    """Positives, negatives, predicted positives and predicted negatives."""
    rates = FourRates(run_length=1e5)
    rates.update_many(np.array([True, True, False, False, False]), np.array([True, False, True, False, False]))
    assert rates.counts() == {"tpr": 2, "tnr": 3, "ppv": 2, "npv": 3}
    assert rates.count == 5


@pytest.mark.parametrize("seed", range(5))
def test_batches_and_restarts_make_no_difference(seed: int) -> None:
    """In pieces, restored in between, the detections and the state are those of the whole."""
    rng = np.random.default_rng(seed)
    first, second = classified(rng, 4_000, 0.9, 0.3), classified(rng, 3_000, 0.5, 0.3)
    predicted, actual = (np.concatenate((a, b)) for a, b in zip(first, second, strict=True))
    whole = FourRates(run_length=1e4)
    expected = [(each.rate, each.index, each.detection.statistic) for each in whole.update_many(predicted, actual)]
    assert expected
    pieces, found, start = FourRates(run_length=1e4), [], 0
    while start < len(predicted):
        end = start + int(rng.integers(0, 900))
        batch = pieces.update_many(predicted[start:end], actual[start:end])
        found += [(each.rate, start + each.index, each.detection.statistic) for each in batch]
        start = end
        sealed = pieces.snapshot()
        pieces = FourRates(run_length=1e4)
        pieces.restore(sealed)
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()


def test_a_foreign_snapshot_changes_nothing() -> None:
    """Other rates, or a damaged detector among good ones, are refused as a whole."""
    rates = FourRates(run_length=1e5)
    rates.update_many(*classified(np.random.default_rng(2), 100, 0.8))
    before = rates.snapshot()
    good = FourRates(run_length=1e5)._detectors["tpr"].snapshot()
    for detectors in ({"tpr": good}, {**dict.fromkeys(RATES, good), "npv": good[:-1]}):
        with pytest.raises(SnapshotError):
            rates.restore(seal(1, {"count": 5, "detectors": detectors}))
    assert rates.snapshot() == before
    assert rates.count == 100


def test_senseless_arguments_are_refused() -> None:
    """A rate that does not exist, a share of nothing, columns of different lengths."""
    with pytest.raises(ValueError, match="no rate 'fpr'"):
        FourRates(1e5, references={"fpr": Reference.of_rate(500, 0.1)})
    with pytest.raises(ValueError, match="share of tpr"):
        FourRates(1e5, shares={"tpr": 0.0})
    with pytest.raises(ValueError, match="one of each"):
        FourRates(1e5).update_many(np.array([True]), np.array([True, False]))
