"""Which configurations are compared, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import MissingInput, WrongSetting
from streams.replay.policies import policies
from streams.settings import ModelSettings, MonitorSettings, Settings

BASE = Settings(
    monitor=MonitorSettings(clean_minutes=7), models={"loan": ModelSettings(minimum_accuracy=0.8, mode="observe")}
)


def test_each_is_laid_over_the_current_one(tmp_path: Path) -> None:
    """A policy a file by its name, and one of all that was set; what they do not say stays."""
    file = tmp_path / "strict.toml"
    file.write_text('[monitor]\ndetectors = ["adwin"]\n[models.loan]\nminimum_accuracy = 0.95\n')
    current, strict, given = policies(
        BASE, [file], {"monitor.baseline_drop": "0.2", "monitor.detectors": "[]"}, joins=False
    )
    assert (current.name, current.settings, current.changes) == ("current", BASE, {})
    assert strict.name == "strict"
    assert strict.changes == {"monitor.detectors": ["adwin"], "models.loan.minimum_accuracy": 0.95}
    assert strict.settings.monitor == MonitorSettings(clean_minutes=7, detectors=["adwin"])
    assert strict.settings.models == {"loan": ModelSettings(minimum_accuracy=0.95, mode="observe")}
    assert given.name == "monitor.baseline_drop=0.2, monitor.detectors=[]"
    assert given.settings.monitor == MonitorSettings(clean_minutes=7, baseline_drop=0.2, detectors=[])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kafka.bootstrap", "changes nothing in a replay"),
        ("worker.checkpoint_s", "changes nothing in a replay"),
        ("worker.horizon_s", "--from inputs"),
        ("monitor.clairvoyance", "not a setting"),
        ("monitor.clean_minutes", "--set"),
    ],
)
def test_a_setting_without_effect_is_refused(name: str, message: str) -> None:
    """So that nobody compares a policy with itself."""
    with pytest.raises(WrongSetting, match=message):
        policies(BASE, (), {name: "-1"}, joins=False)


def test_the_joins_settings_count_when_it_runs() -> None:
    """From the inputs or a table."""
    _, found = policies(BASE, (), {"worker.horizon_s": "5"}, joins=True)
    assert found.settings.worker.horizon_s == 5


def test_files_are_told_apart_and_must_be_there(tmp_path: Path) -> None:
    """Two of one name would be one column."""
    file = tmp_path / "a.toml"
    file.write_text("[monitor]\nclean_minutes = 2\n")
    with pytest.raises(WrongSetting, match="two policies are called 'a'"):
        policies(BASE, [file, file], {}, joins=False)
    with pytest.raises(MissingInput, match=r"b\.toml"):
        policies(BASE, [tmp_path / "b.toml"], {}, joins=False)
    file.write_text("[monitor")
    with pytest.raises(WrongSetting, match="not TOML"):
        policies(BASE, [file], {}, joins=False)
