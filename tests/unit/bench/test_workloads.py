"""The workloads: their ids and sizes."""

from __future__ import annotations

import uuid

import pytest

from bench.workloads import WORKLOADS, WRONG_EVERY, Workload, expected_errors, prediction_id


def test_prediction_ids_are_distinct_uuids() -> None:
    """They are what a producer would send: version 4, in the canonical form, never the same twice."""
    ids = [prediction_id(number) for number in range(20_000)]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(each)) == each and uuid.UUID(each).version == 4 for each in ids)


@pytest.mark.parametrize("pairs", [1, WRONG_EVERY - 1, WRONG_EVERY, WRONG_EVERY + 1, 1_000])
def test_the_expected_errors_are_those_that_are_written(pairs: int) -> None:
    """Every ninth prediction is wrong, beginning with the first."""
    assert expected_errors(Workload("w", "", pairs)) == sum(number % WRONG_EVERY == 0 for number in range(pairs))


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_a_smaller_workload_is_of_the_same_kind(name: str) -> None:
    """Scaling keeps features, models and whether outcomes begin late; outcomes still lag behind other predictions."""
    whole = WORKLOADS[name]
    small = whole.scaled(0.01)
    assert small.pairs == whole.pairs // 100
    assert 1 < small.shuffle < small.pairs
    assert (small.features, small.models, small.later) == (whole.features, whole.models, whole.later)
