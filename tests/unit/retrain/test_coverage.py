"""Which predictions have got outcomes: a class that is left out is seen, and what is labelled at random is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrain.coverage import BESIDE, ROWS, STRETCHES, Counting, Coverage, lacking

Predicted = np.ndarray[Any, np.dtype[np.int64]]


def counted(predicted: Predicted, labelled: Any, partitions: int = 1, classes: int = 2) -> Coverage:
    """Of predictions in the order of the log, dealt out to partitions."""
    places = [(i % partitions, i // partitions) for i in range(len(predicted))]
    chosen = [i for i in range(len(predicted)) if labelled[i]]
    counting = Counting([places[i] for i in chosen], classes)
    for said, (partition, offset) in zip(predicted.tolist(), places, strict=True):
        if offset in counting.offsets(partition):
            counting.look(partition, offset, float(said))
    found = counting.coverage([(places[i], float(predicted[i])) for i in chosen])
    if found is None:
        raise AssertionError("nothing was counted")
    return found


def drifting(rows: int, seed: int) -> Predicted:
    """Classes that come in runs, and a mix of them that goes from 10 to 90 %."""
    rng = np.random.default_rng(seed)
    block = np.repeat(rng.random(rows // 5 + 1) < np.linspace(0.1, 0.9, rows // 5 + 1), 5)[:rows]
    return np.where(rng.random(rows) < 0.2, 1 - block, block).astype(np.int64)


@pytest.mark.parametrize("rows", [600, 3_000])
@pytest.mark.parametrize("partitions", [1, 8])
def test_what_is_labelled_at_random_is_no_fault(rows: int, partitions: int) -> None:
    """A tenth of the predictions, or all, whatever the mix does; more of the newest than of the oldest ones."""
    for seed in range(40):
        predicted, chance = drifting(rows, seed), np.random.default_rng(seed + 1_000).random(rows)
        for share in (0.1, 1.0, np.linspace(0.1, 1.0, rows)):
            assert lacking(counted(predicted, chance < share, partitions), 0.5) is None


@pytest.mark.parametrize("labelled", [60, 200, 1_000])
@pytest.mark.parametrize("run", [5, 20, 80])
def test_neighbours_that_are_labelled_together_are_no_fault(run: int, labelled: int) -> None:
    """Twenty at a time, of predictions that come in runs of one class: a few runs are chance."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        predicted = np.repeat(rng.random(10 * labelled // run + 1) < 0.5, run)[: 10 * labelled].astype(np.int64)
        together = np.repeat(rng.random(labelled // 2) < 0.1, 20)
        if together.any():
            assert lacking(counted(predicted, together), 0.5) is None


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("rows", [300, 5_000])
def test_a_class_whose_outcomes_do_not_come_is_seen(rows: int, partitions: int) -> None:
    """Of 0 an eighth is labelled, of 1 nine tenths: also where half of all labels are missing anyway."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        predicted = (rng.random(rows) < 0.5).astype(np.int64)
        found = lacking(counted(predicted, rng.random(rows) < np.where(predicted == 0, 0.12, 0.9), partitions), 0.5)
        assert found is not None
        assert found.index == 0
        assert found.share < found.expected / 2
        assert found.ratio == pytest.approx(0.12 / 0.9, abs=0.25)


def test_one_of_several_classes_is_named() -> None:
    """One in five predictions, and hardly an outcome of it."""
    rng = np.random.default_rng(5)
    predicted = rng.choice(3, 2_000, p=[0.4, 0.4, 0.2]).astype(np.int64)
    found = lacking(counted(predicted, rng.random(2_000) < np.where(predicted == 2, 0.02, 0.5), classes=3), 0.5)
    assert found is not None
    assert (found.index, round(found.expected, 1)) == (2, 0.2)


def test_a_little_less_of_a_class_is_tolerated() -> None:
    """However sure it is: three quarters of the others' share."""
    rng = np.random.default_rng(6)
    predicted = (rng.random(20_000) < 0.5).astype(np.int64)
    coverage = counted(predicted, rng.random(20_000) < np.where(predicted == 0, 0.6, 0.8))
    assert lacking(coverage, 0.5) is None
    assert lacking(coverage, 0.1) is not None


def test_late_outcomes_of_a_class_are_made_up_for_by_those_of_older_predictions() -> None:
    """Newest predictions have outcomes of one class only, oldest of the other: together they come alike."""
    rng = np.random.default_rng(7)
    predicted, age = (rng.random(3_000) < 0.5).astype(np.int64), np.arange(3_000)
    late = np.where(predicted == 0, age < 1_000, age >= 2_000)
    assert lacking(counted(predicted, late), 0.5) is None
    found = lacking(counted(predicted[2_000:], late[2_000:]), 0.5)
    assert found is not None
    assert (found.index, found.ratio) == (0, 0.0)


def test_few_predictions_are_looked_at_however_many_rows_there_are() -> None:
    """Each costs a decoding; the same ones each time."""
    labelled = [(partition, offset) for partition in (0, 1) for offset in range(0, 100_000, 10)]
    first, second = Counting(labelled, 2), Counting(labelled, 2)
    looked_at = sum(len(first.offsets(partition)) for partition in (0, 1))
    assert 0 < looked_at <= STRETCHES * BESIDE * ROWS
    assert first.offsets(1) == second.offsets(1)
    assert max(first.offsets(1)) < 100_000


def test_nothing_is_counted_without_rows_or_classes() -> None:
    assert Counting([], 2).coverage([]) is None
    assert Counting([], 2).offsets(0) == frozenset()
