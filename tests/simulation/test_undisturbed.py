"""The runs that all others are compared with say what the input topics say, worked out record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from streams.codec import alert_decoder
from tests.simulation.traffic import Act, long, short
from tests.simulation.verdict import Finished, finished, oracle
from tests.simulation.world import TOPICS, World


@pytest.fixture(params=["long_run", "wide_run", "short_run"])
def run(request: pytest.FixtureRequest) -> Finished:
    """Each script."""
    found: Finished = request.getfixturevalue(request.param)
    return found


def test_pairs_and_counters_are_those_of_the_topics(run: Finished) -> None:
    """Every fate of every record, by input partition; nothing is missing and nothing contradicts itself."""
    assert run.findings.violations == []
    expected = oracle(run.world)
    for p, told in run.findings.told.items():
        assert told.pairs == expected[p].pairs
        assert told.cells == expected[p].cells
        assert told.moments == expected[p].moments
        assert told.corrections == expected[p].corrections
        assert (told.predictions, told.delays) == (expected[p].predictions, expected[p].delays)
        assert (told.counters, told.pending, told.waiting) == (expected[p].counters, 0, 0)


def test_the_newest_labels_are_those_of_the_topics(run: Finished) -> None:
    """Per prediction the highest outcome offset wins."""
    for p, told in oracle(run.world).items():
        expected = {row[0]: row for row in sorted(told.labelled, key=lambda row: row[1])}
        found = {
            offset: (offset, row.outcome_offset, row.prediction_ms, row.outcome_ms, model, version, row.outcome)
            for (partition, offset), (row, model, version) in run.findings.labelled.items()
            if partition == p
        }
        assert found == expected


def test_dead_letters_are_those_of_the_topics(run: Finished) -> None:
    """Each with its place; what could not be decoded has a reason of its own kind."""
    expected = {
        ((TOPICS.predictions, TOPICS.outcomes)[side], str(p), str(offset))
        for p, told in oracle(run.world).items()
        for side, offset, _ in told.dead
    }
    assert {dead[:3] for dead in run.findings.dead} == expected


def test_windows_are_those_of_the_topics(run: Finished) -> None:
    """The longest one holds every pair with its newest outcome."""
    cells: Counter[tuple[str, str]] = Counter()
    price = [0.0, 0.0]
    for told in oracle(run.world).values():
        for (model, *_, predicted, outcome), n in told.cells.items():
            assert model == "fraud"
            cells[str(predicted), str(outcome)] += n
        for model, *_, predicted, was, now in told.corrections:
            if model == "fraud":
                cells[str(predicted), str(was)] -= 1
                cells[str(predicted), str(now)] += 1
            else:
                price[1] += abs(float(predicted) - float(now)) - abs(float(predicted) - float(was))
        for pairs, sum_abs, *_ in told.moments.values():
            price[0] += pairs
            price[1] += sum_abs
    reports = {each.model: each for found in run.findings.reports.values() for each in found}
    assert dict(reports["fraud"].versions[0].windows["30d"].confusion) == +cells
    window = reports["price"].versions[0].windows["30d"]
    assert [window.n, window.sum_abs] == price


def test_another_number_of_monitors_gives_the_same_alerts(long_run: Finished, wide_run: Finished) -> None:
    """To the byte; each model is watched by one of them."""
    assert wide_run.findings.alerts == long_run.findings.alerts
    assert [[report.model for report in found] for _, found in sorted(wide_run.findings.reports.items())] == [
        ["fraud"],
        ["price"],
    ]


def test_the_long_script_has_every_fate(long_run: Finished) -> None:
    """A script without one would prove nothing about it."""
    counters = [told.counters for told in long_run.findings.told.values()]
    for name in counters[0].__struct_fields__:
        assert sum(getattr(each, name) for each in counters) > 0, name


LONG_ALERTS = [
    "firing ConceptDriftDetected",
    "firing ModelAccuracyDropped",
    "resolved ConceptDriftDetected",
    "resolved ModelAccuracyDropped",
]


@pytest.mark.parametrize(("name", "expected"), [("long_run", LONG_ALERTS), ("short_run", LONG_ALERTS[:2])])
def test_the_scripts_raise_alerts(name: str, expected: list[str], request: pytest.FixtureRequest) -> None:
    """The detector's first, which pages soonest, then a rule's; and they end."""
    run: Finished = request.getfixturevalue(name)
    alerts = [alert_decoder().decode_any(value) for _, _, value in run.findings.alerts]
    assert [f"{alert.status} {alert.labels['alertname']}" for alert in alerts] == expected


@pytest.mark.parametrize("script", [long, short])
def test_a_run_is_deterministic(script: Callable[[], Iterable[Act]]) -> None:
    """Twice the same, to the byte, but for the random tokens of takes and the ids of model events."""
    one, other = finished(World(script())), finished(World(script()))
    assert one.findings == other.findings
    for topic, logs in one.world.broker.topics.items():
        if topic not in (TOPICS.checkpoints, TOPICS.monitor_checkpoints, TOPICS.model_events):
            assert logs == other.world.broker.topics[topic]
