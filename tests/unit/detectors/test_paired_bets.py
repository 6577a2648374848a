"""The paired test by betting: its level, its power, and what it makes of a model that becomes worse only later."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.paired_bets import BETS, FIRST_SHARE, PairedBets, PairedEvidence, PairedPlan

PLAN = PairedPlan(significance=0.05, rows=1_000)
Errors = np.ndarray[Any, np.dtype[np.float64]]


def judged(watched: Errors, reference: Errors, plan: PairedPlan = PLAN, scale: float = 1.0) -> PairedEvidence:
    """All rows at once."""
    return PairedBets(plan, scale).add(watched, reference)


def flips(rng: np.random.Generator, rows: int, rate: float) -> Errors:
    """0/1 errors at a rate."""
    return np.asarray(rng.random(rows) < rate, dtype=np.float64)


def test_a_model_that_is_no_worse_is_seldom_called_worse() -> None:
    """Looked at after every one of 1,000 rows, two models of the same error rate: at most the significance, of 400."""
    rng = np.random.default_rng(1)
    called = sum(judged(flips(rng, 1_000, 0.2), flips(rng, 1_000, 0.2)).found for _ in range(400))
    assert called / 400 <= PLAN.significance + 2 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(("watched", "reference", "within"), [(0.95, 0.05, 30), (0.3, 0.1, 300), (0.2, 0.15, 1_500)])
def test_a_worse_model_is_found(watched: float, reference: float, within: int) -> None:
    """At most so many rows, in more than half of the streams."""
    rng = np.random.default_rng(3)
    found = sum(judged(flips(rng, within, watched), flips(rng, within, reference)).found for _ in range(40))
    assert found > 20


def test_a_model_that_becomes_worse_later_is_found_soon() -> None:
    """A thousand rows that speak for it do not protect it: the later bets have not seen them."""
    ahead = np.zeros(1_000), np.ones(1_000)
    bets = PairedBets(PairedPlan(0.05, 2_000))
    assert not bets.add(*ahead).found
    evidence = bets.add(np.ones(40), np.zeros(40))
    assert evidence.found
    assert evidence.since_row == 1_000


def test_it_was_worse_since_what_it_had_gained_was_most() -> None:
    """To the row, however the rows are cut; 0 for a model that never gained anything."""
    watched = np.asarray([1.0] * 30 + [0.0] * 60 + [1.0] * 20)
    reference = 1.0 - watched
    bets = PairedBets(PLAN)
    for start in range(0, len(watched), 7):
        evidence = bets.add(watched[start : start + 7], reference[start : start + 7])
    assert evidence.since_row == judged(watched, reference).since_row == 90
    assert judged(np.ones(20), np.zeros(20)).since_row == 0


def test_rows_on_which_both_are_alike_say_nothing() -> None:
    """Both right, or both wrong: no money changes hands."""
    same = np.asarray([0.0, 1.0] * 200)
    evidence = judged(same, same)
    assert evidence.e_value == pytest.approx(1.0)
    assert (evidence.worse, evidence.better) == (0, 0)


def test_a_single_huge_error_proves_nothing() -> None:
    """One outlier of a regression counts as ``scale``."""
    watched, reference = np.zeros(50), np.full(50, 0.1)
    watched[0] = 1e9
    evidence = judged(watched, reference, scale=1.0)
    assert not evidence.found
    assert evidence.highest <= 1.0 + BETS.max()


def test_the_errors_of_numbers_are_compared_by_their_means() -> None:
    """Twice the mean absolute error is found; the evidence names both."""
    rng = np.random.default_rng(4)
    watched, reference = np.abs(rng.normal(0, 2, 400)), np.abs(rng.normal(0, 1, 400))
    evidence = judged(watched, reference, scale=4.0)
    assert evidence.found
    assert evidence.watched_error == pytest.approx(float(watched.mean()))
    assert evidence.reference_error == pytest.approx(float(reference.mean()))


def by_hand(differences: list[float], plan: PairedPlan) -> float:
    """The highest wealth, bet by bet and row by row."""
    starts = list(range(0, plan.rows, plan.start_every))
    shares = [1.0] if len(starts) == 1 else [FIRST_SHARE] + [(1 - FIRST_SHARE) / (len(starts) - 1)] * (len(starts) - 1)
    purses = {(start, bet): share / len(BETS) for start, share in zip(starts, shares, strict=True) for bet in BETS}
    highest = 1.0
    for row, difference in enumerate(differences):
        for start, bet in purses:
            if row >= start:
                purses[start, bet] *= 1 + bet * difference
        highest = max(highest, sum(purses.values()))
    return highest


@given(st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.5, 1.0]), max_size=60), st.integers(1, 30), st.integers(1, 25))
def test_batches_are_bets_row_by_row(differences: list[float], chunk: int, start_every: int) -> None:
    """However rows are batched, the wealth is that of a gambler who bets on one row after the other."""
    plan = PairedPlan(0.05, 60, start_every)
    bets = PairedBets(plan)
    for at in range(0, len(differences), chunk):
        part = np.asarray(differences[at : at + chunk])
        bets.add(np.maximum(part, 0.0), np.maximum(-part, 0.0))
    assert bets.evidence.rows == len(differences)
    assert bets.evidence.highest == pytest.approx(by_hand(differences, plan))


@pytest.mark.parametrize(
    ("watched", "reference"),
    [(np.zeros(2), np.zeros(3)), (np.asarray([np.nan]), np.zeros(1)), (np.zeros((1, 1)), np.zeros((1, 1)))],
)
def test_what_cannot_be_compared_is_refused(watched: Errors, reference: Errors) -> None:
    """Other rows, or a number that is none."""
    with pytest.raises(ValueError, match=r"same rows|not finite"):
        judged(watched, reference)


def test_a_plan_that_means_nothing_is_refused() -> None:
    """Certainty, no rows, and a scale of nothing."""
    for significance, rows in ((0.0, 10), (1.0, 10), (0.05, 0)):
        with pytest.raises(ValueError, match=r"significance|rows"):
            PairedPlan(significance, rows)
    with pytest.raises(ValueError, match="scale"):
        PairedBets(PLAN, 0.0)
