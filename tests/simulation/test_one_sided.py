"""A feed of outcomes that turns one-sided in the middle of a minute pages nobody about the model; a collapse does."""

from __future__ import annotations

import msgspec
import pytest

from streams.codec import alert_decoder
from streams.episodes import seconds
from streams.events import Alert
from streams.replay.verify import verify
from streams.settings import MonitorSettings, Settings
from tests.simulation.traffic import START_MS, TURN_S, turning
from tests.simulation.verdict import findings
from tests.simulation.worker import begin, play
from tests.simulation.world import SETTINGS, TOPICS, World
from tests.support.memory.log import MemoryLog

ABOUT_THE_MODEL = ("ConceptDriftDetected", "ModelAccuracyDropped")


def alerts(monkeypatch: pytest.MonkeyPatch, one_sided: bool, **monitor: float) -> list[Alert]:
    """The alerts of a worker; a replay gives them again, and every record is accounted for."""
    settings = with_monitor(**monitor)
    monkeypatch.setattr("tests.simulation.worker.SETTINGS", settings)
    world = World(turning(one_sided))
    workers = [begin(world)]
    play(workers)
    assert findings(world, workers).violations == []
    report = verify(settings, MemoryLog(world.broker))
    assert (report.identical, report.differences) == (True, [])
    decoder = alert_decoder()
    return [
        decoder.decode_any(record.value, record.headers) for log in world.broker.topics[TOPICS.alerts] for record in log
    ]


def with_monitor(**monitor: float) -> Settings:
    """The settings of the simulation with others for the monitor."""
    known = SETTINGS.monitor.model_dump()
    return SETTINGS.model_copy(update={"monitor": MonitorSettings(**{**known, **monitor})})


def names(found: list[Alert]) -> set[str]:
    return {each.labels["alertname"] for each in found}


def test_a_feed_that_turns_one_sided_in_a_minute_pages_nobody_about_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own alert says so; who accepts such a feed is paged, within the minute in which it turned."""
    assert names(alerts(monkeypatch, one_sided=True)) == {"OutcomesOneSided"}
    accepted = alerts(monkeypatch, one_sided=True, outcomes_one_sided=1.0)
    assert "ConceptDriftDetected" in names(accepted)
    assert seconds_of(accepted) // 60 == TURN_S // 60


def test_a_collapse_whose_outcomes_come_for_both_classes_pages_as_soon_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same alerts as where nobody looks at sides, within the minute in which the model broke."""
    found = alerts(monkeypatch, one_sided=False)
    assert set(ABOUT_THE_MODEL) == names(found)
    assert TURN_S <= seconds_of(found) < 60 * (TURN_S // 60 + 1)
    assert msgspec.json.encode(found) == msgspec.json.encode(
        alerts(monkeypatch, one_sided=False, outcomes_one_sided=1.0)
    )


def seconds_of(found: list[Alert]) -> int:
    """When the first alert about the model was detected, in seconds of the traffic."""
    first = next(each for each in found if each.labels["alertname"] in ABOUT_THE_MODEL)
    assert first.drift is not None
    assert first.drift.detected_at is not None
    return seconds(first.drift.detected_at) - START_MS // 1000
