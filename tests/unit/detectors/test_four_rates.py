"""Four rates: what accuracy does not show, one of them does."""

import numpy as np
import pytest

from detectors.four_rates import ACTUAL, PREDICTED, RATES, Codes, FourRates, FourRatesState, counted
from detectors.part_watch import PartState
from detectors.snapshot import SnapshotError, decode, seal, unseal
from detectors.tally import Tally

PER_SECOND = 10
BUDGET = 60.0
"""False alarms a week; at ten outcomes a second one in 100,000 for all rates together."""


def classified(
    rng: np.random.Generator, n: int, recall: float, prevalence: float = 0.05, false_positives: float = 0.01
) -> Codes:
    actual = rng.random(n) < prevalence
    predicted = np.where(actual, rng.random(n) < recall, rng.random(n) < false_positives)
    codes: Codes = (ACTUAL * actual + PREDICTED * predicted).astype(np.uint8)
    return codes


def seconds(rates: FourRates, n: int) -> np.ndarray:
    return 1_000 + (rates.count + np.arange(n)) // PER_SECOND


def made(learning: int = 5_000) -> FourRates:
    return FourRates(list(RATES), BUDGET, learning)


def feed(rates: FourRates, codes: Codes) -> list[tuple[str, int, float, int]]:
    found = rates.update_many(seconds(rates, len(codes)), codes)
    return [(each.stream, each.index, each.detection.statistic, each.change_s) for each in found]


def test_a_fall_of_recall_is_found_though_accuracy_hardly_moves() -> None:
    """Recall .8 → .4 at a prevalence of 5 % takes a few dozen positives, and the change is placed."""
    rng = np.random.default_rng(1)
    rates = made()
    assert feed(rates, classified(rng, 30_000, 0.8)) == []
    changed_s = int(seconds(rates, 1)[0])
    codes = classified(rng, 4_000, 0.4)
    found = rates.update_many(seconds(rates, len(codes)), codes)
    first = next(each for each in found if each.stream == "recall")
    assert codes[first.index] == ACTUAL
    assert (codes[: first.index] & ACTUAL).sum() < 80
    assert first.detection.before == pytest.approx(0.2, abs=0.05)
    assert changed_s - 20 <= first.change_s <= changed_s + 60


def test_each_rate_sees_its_own_outcomes_and_their_errors() -> None:
    """Positives, negatives, predicted positives and predicted negatives, as a window counts them too."""
    rates = made()
    codes = np.array([3] * 5 + [1] * 3 + [2] * 2 + [0] * 10, dtype=np.uint8)
    feed(rates, codes)
    window = Tally(20, {("1", "1"): 5, ("0", "1"): 3, ("1", "0"): 2, ("0", "0"): 10})
    expected = {"recall": (3, 8), "specificity": (2, 12), "precision": (2, 7), "npv": (3, 13)}
    assert {name: counted(name, window, "1") for name in RATES} == expected
    learnt = {name: (part.state.learner.filling.total, part.count) for name, part in rates.parts.items()}
    assert learnt == expected


def test_a_rate_learns_while_the_version_does_and_until_it_has_seen_five_hundred() -> None:
    """Negatives are known when the version is; positives, one in twenty, only after 10,000 outcomes."""
    rates = made(learning=5_000)
    rng = np.random.default_rng(2)
    feed(rates, classified(rng, 4_990, 0.9))
    assert rates.missing == 10
    assert all(part.reference is None for part in rates.parts.values())
    feed(rates, classified(rng, 30, 0.9))
    assert rates.missing == 0
    known = rates.parts["specificity"].reference
    assert known is not None
    assert known.n == 4_500  # in whole windows
    recall = rates.parts["recall"]
    assert recall.reference is None
    assert recall.missing == 500 - recall.count > 0
    feed(rates, classified(rng, 6_000, 0.9))
    assert recall.missing == 0
    assert recall.reference is not None
    assert recall.reference.rate == pytest.approx(0.1, abs=0.05)


def test_thresholds_are_run_lengths_of_a_rates_own_outcomes() -> None:
    """A quarter of the budget each, at the pace at which its outcomes come; another budget is another run length."""
    rates = made()
    feed(rates, classified(np.random.default_rng(3), 40_000, 0.8))
    for part in rates.parts.values():
        assert part.allotted is not None
        assert part.allotted.run_length == pytest.approx(part.outcomes_per_s * 604_800 / (BUDGET / 4))
    recall = rates.parts["recall"]
    assert recall.outcomes_per_s == pytest.approx(0.5, rel=0.2)
    before = recall.allotted
    rates.allow(BUDGET / 10)
    assert before is not None
    assert recall.allotted is not None
    assert recall.allotted.run_length == pytest.approx(10 * before.run_length)


@pytest.mark.parametrize("seed", range(5))
def test_batches_and_restarts_make_no_difference(seed: int) -> None:
    """In pieces of whole seconds, restored in between, the detections and the state are those of the whole."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate((classified(rng, 4_000, 0.9, 0.3), classified(rng, 3_000, 0.5, 0.3)))
    whole = made(1_000)
    expected = feed(whole, codes)
    assert expected
    pieces, found, start = made(1_000), [], 0
    while start < len(codes):
        end = min(len(codes), start + PER_SECOND * int(rng.integers(0, 90)))
        found += [(name, start + index, *rest) for name, index, *rest in feed(pieces, codes[start:end])]
        start = end
        stored = decode(unseal(seal(1, pieces.state), 1)[1], FourRatesState)
        pieces = made(1_000)
        pieces.restore(stored)
    assert found == expected
    assert pieces.state == whole.state


def test_after_a_fresh_start_a_rate_is_judged_by_what_it_was() -> None:
    """The reference stays, the detector's wealth does not."""
    rng = np.random.default_rng(4)
    rates = made()
    feed(rates, classified(rng, 20_000, 0.9))
    known = rates.parts["recall"].reference
    rates.start_afresh()
    assert rates.parts["recall"].detector is None
    assert rates.parts["recall"].reference == known
    assert "recall" in {name for name, *_ in feed(rates, classified(rng, 4_000, 0.4))}


def test_a_damaged_or_newer_part_is_refused() -> None:
    """Bytes that are no detector's, and a rate that this release does not have."""
    learnt = made().state.parts["recall"]
    feed(rates := made(500), classified(np.random.default_rng(5), 30_000, 0.9))
    learnt = rates.state.parts["recall"]
    assert learnt.detector
    learnt.detector = learnt.detector[:-1]
    with pytest.raises(SnapshotError):
        made(500).restore(FourRatesState(30_000, {"recall": learnt}))
    with pytest.raises(SnapshotError, match="'fpr'"):
        made().restore(FourRatesState(1, {"fpr": PartState()}))


def test_senseless_arguments_are_refused() -> None:
    """A rate that does not exist, none at all, columns of different lengths."""
    with pytest.raises(ValueError, match="no rate 'fpr'"):
        FourRates(["fpr"], 1.0, 500)
    with pytest.raises(ValueError, match="no rate is named"):
        FourRates([], 1.0, 500)
    with pytest.raises(ValueError, match="one of each"):
        made().update_many(np.array([1]), np.array([1, 0], dtype=np.uint8))
