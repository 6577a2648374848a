"""When a champion is so bad that one of few rows is better than it."""

from __future__ import annotations

import numpy as np
import pytest

from retrain.collapse import collapsed, is_stopgap, knows_nothing, needs_help
from streams.events import Baseline

ACCURATE = Baseline("accuracy", 0.95, 1_000, 0.007)
HALVES = np.tile([0.0, 1.0], 45)
"""Outcomes of two classes, one as common as the other."""


def wrong(*runs: tuple[int, float]) -> np.ndarray:
    """0/1 errors: so many rows of which such a share is wrong, spread evenly."""
    return np.concatenate([np.diff(np.floor(share * np.arange(rows + 1))) for rows, share in runs])


@pytest.mark.parametrize(
    ("rows", "share", "urgent"),
    [
        (30, 0.8, True),  # hardly ever right
        (29, 1.0, False),
        (89, 0.5, False),
        (90, 0.5, True),  # right as often as whoever always says the same
        (90, 0.4, False),
    ],
)
def test_how_bad_it_is_says_from_how_many_rows_on_it_is_challenged(rows: int, share: float, urgent: bool) -> None:
    assert needs_help(ACCURATE, wrong((rows, share)), np.resize(HALVES, rows)) is urgent


def test_the_newer_half_tells() -> None:
    """A gradual change begins with rows of the old concept, and a bad hour that is over is over."""
    assert knows_nothing(ACCURATE, wrong((45, 0.0), (45, 0.5)), HALVES)
    assert not knows_nothing(ACCURATE, wrong((45, 1.0), (45, 0.1)), HALVES)


def test_what_the_commonest_answer_is_right_about_counts() -> None:
    """Right on half of the rows is nothing where six of ten have one class, and much where each has a third."""
    uneven = np.resize([0.0] * 6 + [1.0] * 4, 100)
    thirds = np.resize([0.0, 1.0, 2.0], 100)
    assert knows_nothing(ACCURATE, wrong((100, 0.5)), uneven)
    assert not knows_nothing(ACCURATE, wrong((100, 0.5)), thirds)


def test_a_bad_hour_is_none_of_its_business() -> None:
    """Where errors come in clusters one that is right about four of five is nearly as bad for a while."""
    assert not knows_nothing(Baseline("accuracy", 0.8, 1_000, 0.013), wrong((90, 0.48)), HALVES)


def test_one_that_never_was_better_has_lost_nothing() -> None:
    """A rare class: nearly right by always saying the other, as it was in its test."""
    rare = np.resize([0.0] * 19 + [1.0], 100)
    assert not knows_nothing(Baseline("accuracy", 0.96, 1_000, 0.006), wrong((100, 0.05)), rare)


def test_numbers_are_held_against_their_median() -> None:
    outcomes = np.resize([0.0, 4.0], 100)
    normal = Baseline("mae", 0.5, 1_000, 0.01)
    assert knows_nothing(normal, np.full(100, 2.0), outcomes)
    assert not knows_nothing(normal, np.full(100, 1.9), outcomes)
    assert not knows_nothing(Baseline("mae", 1.9, 1_000, 0.01), np.full(100, 2.0), outcomes)


def test_without_a_baseline_nobody_knows() -> None:
    errors = np.ones(100)
    assert not collapsed(None, errors)
    assert not knows_nothing(None, errors, HALVES)
    assert not knows_nothing(ACCURATE, np.zeros(0), np.zeros(0))


def test_a_winner_far_from_what_the_champion_once_achieved_is_a_stopgap() -> None:
    """Better than one that has collapsed is easily said. Without a baseline of the same kind nobody says it."""
    normal = Baseline("mae", 1.0, 1_000, 0.1)
    assert is_stopgap(ACCURATE, Baseline("accuracy", 0.5, 60, 0.06))
    assert not is_stopgap(ACCURATE, Baseline("accuracy", 0.7, 60, 0.06))
    assert is_stopgap(normal, Baseline("mae", 1.8, 60, 0.1))
    assert not is_stopgap(normal, Baseline("mae", 1.5, 60, 0.1))
    assert not is_stopgap(None, Baseline("mae", 9.0, 60, 0.1))
    assert not is_stopgap(normal, Baseline("accuracy", 0.1, 60, 0.06))
