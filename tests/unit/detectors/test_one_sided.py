"""Whether outcomes come for every predicted class alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cohorts import Count
from detectors.dump import LEAST_OUTCOMES, LEAST_SUSPECT, least_dump, suspect
from detectors.e_detector import EDetector
from detectors.one_sided import Arriving, of_arrivals, of_cohorts, telling
from detectors.one_sided import suspect as one_side_suspect
from detectors.reference import Reference


def counts(**classes: tuple[int, int]) -> dict[str, Count]:
    """(predictions, outcomes) by class."""
    return {label: Count(*of) for label, of in classes.items()}


def test_the_class_whose_labelled_share_is_lower_is_named() -> None:
    """With both shares, by the surest of several."""
    found = of_cohorts(counts(a=(700, 20), b=(300, 295), c=(10, 9)), 0.1)
    assert found is not None
    assert (found.label, found.n, found.mature) == ("a", 700, True)
    assert found.share == pytest.approx(20 / 700)
    assert found.others == pytest.approx(304 / 310)


@pytest.mark.parametrize(
    "classes",
    [
        counts(a=(700, 700), b=(300, 280)),  # less than 10 % fewer
        counts(a=(700, 350), b=(20, 7)),  # may be chance
        counts(a=(700, 700), b=(9, 0)),  # too few to say
        counts(a=(700, 0), b=(300, 0)),  # nothing comes at all: that has its own alert
        counts(a=(700, 3)),
        counts(a=(700, 700), b=(0, 300)),  # outcomes of predictions that nobody counted
        {},
    ],
)
def test_what_chance_explains_or_hardly_matters_is_not_one_sided(classes: dict[str, Count]) -> None:
    """An effect of the size asked for, and four standard errors."""
    assert of_cohorts(classes, 0.1) is None


def test_a_share_is_held_against_the_others_whatever_the_coverage() -> None:
    """One prediction in a hundred is labelled, and none of one class."""
    assert of_cohorts(counts(a=(100_000, 1_000), b=(50_000, 10)), 0.1) is not None
    assert of_cohorts(counts(a=(100_000, 1_000), b=(50_000, 480)), 0.1) is None


@given(st.integers(0, 10**6), st.floats(0.001, 0.999), st.integers(1, 2_000))
def test_outcomes_of_a_random_sample_are_not_one_sided(seed: int, share: float, n: int) -> None:
    """However rare a class is, and however few outcomes there are."""
    drawn = int(np.random.default_rng(seed).binomial(n, share))
    arrived = {"a": Arriving(drawn, n * share), "b": Arriving(n - drawn, n * (1.0 - share))}
    assert of_arrivals(arrived) is None


def test_a_class_that_stops_is_missed_within_few_outcomes() -> None:
    """Of a share of 70 % twenty outcomes tell, of 1 % a thousand and more."""
    found = of_arrivals({"a": Arriving(0, 14.0), "b": Arriving(20, 6.0)})
    assert found is not None
    assert (found.label, found.share, found.n, found.mature) == ("a", 0.0, 20, False)
    assert found.others == pytest.approx(20 / 6)
    assert of_arrivals({"a": Arriving(0, 13.0), "b": Arriving(19, 6.0)}) is None
    assert of_arrivals({"a": Arriving(0, 10.0), "b": Arriving(1_000, 990.0)}) is None
    assert of_arrivals({"a": Arriving(0, 13.0), "b": Arriving(1_300, 1_287.0)}) is not None
    assert of_arrivals({"a": Arriving(400, 700.0), "b": Arriving(600, 300.0)}) is None, "not much less"


def test_a_minute_is_a_dump_beside_what_is_predicted_and_what_came_before() -> None:
    """A fast feed follows its predictions; a backlog that is paced is none."""
    assert least_dump(0.0, 0) == LEAST_OUTCOMES
    assert least_dump(1_000.0, 60_000) == 20_000, "a quarter of the hour's"
    assert least_dump(1_000.0, 600) == 5_000


def test_outcomes_that_come_faster_than_they_should_may_be_the_first_of_a_dump() -> None:
    """Any at all behind an hour without; else in proportion to the seconds of the minute."""
    assert suspect(0.0, 1, 1)
    assert not suspect(4.0, LEAST_SUSPECT - 1, 1)
    assert suspect(4.0, LEAST_SUSPECT, 1)
    assert not suspect(12_000.0, 600, 3)
    assert suspect(12_000.0, 12_000, 3)
    assert not suspect(12_000.0, 12_000, 60)


@pytest.mark.parametrize(
    ("n", "found", "share", "expected"),
    [
        (8, 8, 0.2, True),  # a class of a fifth, alone
        (2, 2, 0.2, False),  # may be chance
        (21, 0, 0.2, True),  # that class missing
        (20, 0, 0.2, False),
        (100, 40, 0.2, True),
        (1_000, 260, 0.2, False),  # surely another mix, and not one-sided
        (100, 20, 0.2, False),
    ],
)
def test_a_mix_that_predictions_do_not_let_expect_is_suspected(
    n: int, found: int, share: float, expected: bool
) -> None:
    """Surely, and by far."""
    assert one_side_suspect(n, found, n * share) is expected


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(21, 0.2, True), (20, 0.2, False), (21, 0.8, True), (500, 0.005, False)]
)
def test_outcomes_tell_of_both_classes_if_there_are_enough_to_miss_one(n: int, share: float, expected: bool) -> None:
    """The rarer class needs more."""
    assert telling(n, n * share) is expected


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("errors", [0.2, 0.5, 1.0])
def test_one_side_is_suspected_before_a_detector_finds_it(share: float, errors: float) -> None:
    """Only outcomes of a class of some share come, whose errors are those that the others do not make."""
    for seed in range(5):
        detector = EDetector(threshold=1e6, reference=Reference.of_rate(5_000, share * errors + (1.0 - share) * 0.01))
        wrong = (np.random.default_rng(seed).random(20_000) < errors).astype(np.float64)
        n = detector.update_many(wrong)[0].index + 1
        assert one_side_suspect(n, n, n * share), f"{n} outcomes"
