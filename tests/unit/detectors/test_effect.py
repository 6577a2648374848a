"""What a worse model costs, and how severe that is."""

from __future__ import annotations

import pytest

from detectors.effect import Effect, Prices


def test_extra_errors_are_those_above_what_is_usual() -> None:
    """200 wrong of 1,000 where 30 are usual: 170 more, and at ten outcomes a minute 2,448 a day."""
    effect = Effect.measured("accuracy", 0.03, 0.2, 200.0, 1000, 10.0)
    assert effect.extra == pytest.approx(170)
    assert effect.extra_a_day == pytest.approx(0.17 * 14_400)
    assert effect.evidence(Prices()).keys() == {"lost", "extra_errors", "extra_a_day"}
    assert effect.evidence(Prices(per_error=2.5))["cost_so_far"] == pytest.approx(425)


def test_a_better_model_costs_nothing() -> None:
    """Never less than nothing."""
    effect = Effect.measured("accuracy", 0.1, 0.05, 50.0, 1000, 10.0)
    assert (effect.lost, effect.extra, effect.extra_a_day) == (0.0, 0.0, 0.0)


def test_what_nobody_knows_the_rate_of_is_judged_by_points() -> None:
    """In the first minute of a version: what it costs a day is not known, and nothing is not what it costs."""
    found = [
        Effect.measured("accuracy", 0.05, after, 20.0, 100, 0.0).severity(Prices(1.0, 10.0)) for after in (0.1, 0.2)
    ]
    assert found == ["warning", "critical"]


@pytest.mark.parametrize(
    ("metric", "healthy", "recent", "prices", "severity"),
    [
        ("accuracy", 0.05, 0.149, Prices(), "warning"),
        ("accuracy", 0.05, 0.15, Prices(), "critical"),
        ("mae", 2.0, 2.9, Prices(per_error=5.0), "warning"),
        ("mae", 2.0, 3.0, Prices(), "critical"),
        ("accuracy", 0.05, 0.15, Prices(1.0, 2000.0), "warning"),  # 1,440 a day
        ("accuracy", 0.05, 0.06, Prices(20.0, 2000.0), "critical"),
    ],
)
def test_severity_is_by_cost_a_day_where_that_is_stated_else_by_points(
    metric: str, healthy: float, recent: float, prices: Prices, severity: str
) -> None:
    """A point lost by an expensive model wakes people, ten by a cheap one do not."""
    assert Effect.measured(metric, healthy, recent, 100.0, 1000, 10.0).severity(prices) == severity
