"""Settings from a file, the environment and flags: the last one that speaks wins, and every name is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from native.library import OFF, SWITCH
from streams.errors import WrongSetting
from streams.settings import Settings, load


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a driftline.toml."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def toml(folder: Path, text: str) -> Path:
    path = folder / "driftline.toml"
    path.write_text(text)
    return path


def refusal(file: Path | None, environ: dict[str, str] | None = None, flags: dict[str, str] | None = None) -> str:
    with pytest.raises(WrongSetting) as refused:
        load(file, environ or {}, flags)
    assert "\n" not in str(refused.value)
    assert refused.value.hint
    return refused.value.message


def test_without_any_source_everything_is_default() -> None:
    """And nothing claims to have an origin."""
    assert load(None, {}) == (Settings(), {})


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    """Value by value, and each says where it came from."""
    file = toml(tmp_path, '[kafka]\nbootstrap = "file:1"\ntopic_prefix = "file-"\npartitions = 2\n')
    environ = {"DRIFTLINE_KAFKA__BOOTSTRAP": "environment:1", "DRIFTLINE_KAFKA__PARTITIONS": "3", "HOME": "/"}
    settings, origin = load(file, environ, {"kafka.partitions": "8"})
    assert (settings.kafka.bootstrap, settings.kafka.topic_prefix, settings.kafka.partitions) == (
        "environment:1",
        "file-",
        8,
    )
    assert origin == {
        "kafka.bootstrap": "environment",
        "kafka.topic_prefix": str(file),
        "kafka.partitions": "flag",
    }


def test_the_file_of_the_working_folder_is_read_unless_another_is_named(elsewhere: Path, tmp_path: Path) -> None:
    """By --config first, then DRIFTLINE_CONFIG."""
    toml(elsewhere, 'repository = "here"')
    named = toml(tmp_path, 'repository = "named"')
    assert load(None, {})[0].repository == "here"
    assert load(None, {"DRIFTLINE_CONFIG": str(named)})[0].repository == "named"
    assert load(elsewhere / "driftline.toml", {"DRIFTLINE_CONFIG": str(named)})[0].repository == "here"


def test_the_switch_of_the_compiled_loops_is_no_setting() -> None:
    """Whoever switches them off can still start everything."""
    assert load(None, {SWITCH: OFF}) == load(None, {})


def test_the_projects_own_variables_are_no_settings() -> None:
    """Folders of data, jars and servers of the tests."""
    environ = {"DRIFTLINE_DATA": "x", "DRIFTLINE_KAFKA_LIBS": "y", "DRIFTLINE_REDIS_SERVER": "z"}
    assert load(None, environ) == (Settings(), {})


def test_lists_tables_and_nested_names_come_from_every_source(tmp_path: Path) -> None:
    """Written as TOML in the environment and in flags; two underscores or a dot go one level down."""
    file = toml(tmp_path, '[models.loan]\ntask = "binary"\nclasses = [0, 1]\npositive = 1\n')
    environ = {"DRIFTLINE_MONITOR__DETECTORS": '["adwin"]', "DRIFTLINE_MODELS__LOAN__MODE": "approve"}
    settings, origin = load(file, environ, {"models.loan.minimum_accuracy": "0.8", "models.iris.classes": '["a", "b"]'})
    loan = settings.models["loan"]
    assert (loan.task, loan.classes, loan.positive, loan.mode, loan.minimum_accuracy) == (
        "binary",
        [0, 1],
        1,
        "approve",
        0.8,
    )
    assert settings.monitor.detectors == ["adwin"]
    assert settings.models["iris"].classes == ["a", "b"]
    assert origin["models.loan.mode"] == "environment"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrong = 1", "wrong (from {file}) is not a setting"),
        ("[kafka]\nbootstrp = 'x'", "kafka.bootstrp (from {file}) is not a setting"),
        ("[kafak]\nbootstrap = 'x'", "kafak (from {file}) is not a setting"),
        ("[kafka.more]\nbootstrap = 'x'", "kafka.more (from {file}) is not a setting"),
        ("[kafka]\npartitions = 0", "kafka.partitions (from {file}): "),
        # Faust would end the worker: a session may not be longer than its own requests, 90 s.
        ("[kafka]\nsession_timeout_s = 91", "kafka.session_timeout_s (from {file}): "),
        ("[monitor]\ndetectors = ['adwin', 3]", "monitor.detectors.1 (from {file}): "),
        ("[monitor]\ndetectors = ['ddm']", "ddm alarms falsely: name it in monitor.evidence instead"),
        ("[monitor]\ndetectors = ['adwin', 'adwin']", "adwin is named twice"),
        ("[monitor]\nevidence = ['adwim']", "no detector is called 'adwim': choose of e_detector, adwin"),
        ("[monitor]\nfalse_alarms_per_week = 0", "monitor.false_alarms_per_week (from {file}): "),
        ("[models.loan]\ntask = 'ranking'", "models.loan.task (from {file}): "),
        ("kafka = 'x'", "kafka (from {file}): "),
    ],
)
def test_a_wrong_name_or_value_in_the_file_names_the_file(tmp_path: Path, text: str, words: str) -> None:
    """Also for a whole section, and for one element of a list."""
    file = toml(tmp_path, text)
    assert words.format(file=file) in refusal(file)


def test_a_wrong_name_or_value_names_the_environment_or_the_flag() -> None:
    """An operator must know where to look."""
    assert "kafka.bootstrp (from environment)" in refusal(None, {"DRIFTLINE_KAFKA__BOOTSTRP": "x"})
    assert "kafak (from environment)" in refusal(None, {"DRIFTLINE_KAFAK__BOOTSTRAP": "x"})
    assert "worker.checkpoint_s (from environment)" in refusal(None, {"DRIFTLINE_WORKER__CHECKPOINT_S": "soon"})
    assert "kafka.partitions (from flag)" in refusal(
        None, {"DRIFTLINE_KAFKA__PARTITIONS": "4"}, {"kafka.partitions": "-1"}
    )
    assert "nothing (from flag)" in refusal(None, {}, {"nothing": "1"})


@pytest.mark.parametrize(
    "names", [("DRIFTLINE_KAFKA", "DRIFTLINE_KAFKA__BOOTSTRAP"), ("DRIFTLINE_KAFKA__BOOTSTRAP", "DRIFTLINE_KAFKA")]
)
def test_a_section_that_is_given_a_value_is_refused(names: tuple[str, str]) -> None:
    """In whatever order the environment lists the two."""
    assert "kafka (from environment)" in refusal(None, dict.fromkeys(names, "x"))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """Missing, a folder, not TOML, not text."""
    assert "does not exist" in refusal(tmp_path / "missing.toml")
    assert "does not exist" in refusal(tmp_path)
    assert "is not TOML" in refusal(toml(tmp_path, "= 1"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in refusal(binary)


def test_settings_do_not_change_after_the_start() -> None:
    """What a cut recorded by value stays true."""
    settings, _ = load(None, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.partitions = 9  # type: ignore[misc]  # what the test is about


def test_a_secret_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """One that looks like a list is none, and an error about it does not repeat it."""
    settings, _ = load(None, {"DRIFTLINE_KAFKA__PASSWORD": "[s3cret]", "DRIFTLINE_REDIS__PASSWORD": "{s3cret"})
    assert settings.kafka.password.get_secret_value() == "[s3cret]"
    assert settings.redis.password.get_secret_value() == "{s3cret"
    wrong = refusal(toml(tmp_path, "[kafka]\npassword = ['s3cret']"))
    assert "kafka.password" in wrong
    assert "s3cret" not in wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("burn_rates", "[[5, 1, 2.0]]"),
        ("burn_rates", "[[1, 5, 0.5]]"),
        ("flap_episodes", "1"),
        ("clean_minutes", "43201"),
    ],
)
def test_senseless_alert_rules_are_refused_at_the_start(name: str, value: str) -> None:
    """Windows the wrong way round, a rate within the budget, a flapping that is every firing, more than the longest
    window looks back."""
    with pytest.raises(WrongSetting, match=f"monitor.{name}"):
        load(environ={}, flags={f"monitor.{name}": value})


def test_more_rows_needed_than_are_kept_are_refused_at_the_start(tmp_path: Path) -> None:
    """For all models or for one, whose own value goes with the other of all; equal ones are no contradiction."""
    file = toml(tmp_path, "[retrain]\nminimum_rows = 500\nmaximum_rows = 300\n")
    said = refusal(file)
    assert said.startswith(f"retrain (from {file})")
    assert "minimum_rows 500 is more than maximum_rows 300" in said
    file = toml(tmp_path, "[retrain]\nmaximum_rows = 300\n[models.loans.retrain]\nminimum_rows = 301\n")
    said = refusal(file)
    assert said.startswith(f"models (from {file})")
    assert "of loans, minimum_rows 301 is more than maximum_rows 300" in said
    file = toml(tmp_path, "[retrain]\nmaximum_rows = 300\n[models.loans.retrain]\nminimum_rows = 300\n")
    assert load(file, {})[0].retrain_of("loans").minimum_rows == 300


@pytest.mark.parametrize("name", ["retrain.quiet_hours", "models.loans.retrain.quiet_hours"])
def test_quiet_hours_that_end_where_they_begin_are_refused(name: str) -> None:
    """No time or all day: nobody can tell, so the message says what to write for either."""
    for hours in ("00:00-00:00", "22:30-22:30"):
        said = refusal(None, flags={name: hours})
        assert f"{name} (from flag)" in said
        assert f"{hours} begins where it ends" in said
        assert "empty for no quiet hours" in said
        assert "mode to observe, or to recommend" in said
    assert load(None, {}, {name: "00:00-23:59"})[0].retrain_of("loans").quiet_hours == "00:00-23:59"
    assert load(None, {}, {name: ""})[0].retrain_of("loans").quiet_hours == ""
