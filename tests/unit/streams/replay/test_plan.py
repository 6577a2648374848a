"""The steps of a live run."""

from __future__ import annotations

import msgspec
import pytest

from streams.errors import StateMismatch
from streams.monitor_effects import in_force, recorded
from streams.records import MonitorCut, Range
from streams.replay.plan import Step, steps
from streams.settings import ModelSettings, MonitorSettings, Settings

ONE, OTHER = {"monitor": 1}, {"monitor": 2}


def cut(sequence: int, *, events: int = 0, alerts: int = 0, settings: object = msgspec.UNSET) -> MonitorCut:
    """A cut of which only what changes matters."""
    return MonitorCut(0, 1, sequence, Range(0, 0), 100 * sequence, alerts, 0, events, settings)  # type: ignore[arg-type]  # any mapping will do


def test_a_step_ends_where_something_changes() -> None:
    """What a cut says was in force since the cut before: the step ends at that one's watermark."""
    cuts = [cut(1, settings=ONE), cut(2), cut(3, events=2), cut(4, events=2, alerts=1), cut(5, events=2, alerts=1)]
    cuts += [cut(6, events=2, alerts=1, settings=OTHER), cut(7, events=2, alerts=1)]
    assert steps(cuts) == [
        Step(200, 0, ONE, 0),
        Step(300, 2, ONE, 0),
        Step(500, 2, ONE, 1),
        Step(700, 2, OTHER, 1),
    ]


def test_settings_told_again_are_no_change() -> None:
    """They come once an hour."""
    assert steps([cut(1, settings=ONE), cut(2, settings=dict(ONE))]) == [Step(200, 0, ONE, 0)]


def test_cuts_before_the_first_settings_had_those() -> None:
    """Retention has removed the cut that told them."""
    assert steps([cut(1), cut(2, alerts=1), cut(3, alerts=1, settings=ONE)]) == [
        Step(100, 0, ONE, 0),
        Step(300, 0, ONE, 1),
    ]


def test_nothing_tells_nothing() -> None:
    """Of an older release."""
    assert steps([cut(1), cut(2)]) == [Step(200, 0, None, 0)]


def test_settings_come_back_from_a_cut_as_they_were() -> None:
    """Through JSON, models and all; the rest of the settings stays."""
    settings = Settings(
        monitor=MonitorSettings(detectors=["adwin"], baseline_drop=0.07),
        models={"loan": ModelSettings(task="binary", classes=[0, 1], minimum_accuracy=0.8)},
    )
    record = msgspec.json.decode(msgspec.json.encode(recorded(settings)))
    found = in_force(Settings(repository="elsewhere"), record)
    assert (found.monitor, found.models, found.repository) == (settings.monitor, settings.models, "elsewhere")


def test_settings_of_another_release_are_refused_with_what_to_do() -> None:
    """A name that this one does not know."""
    with pytest.raises(StateMismatch, match=r"clairvoyance.*replay with the release"):
        in_force(Settings(), {"monitor": {"clairvoyance": 1}, "models": {}})
