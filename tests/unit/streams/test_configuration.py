"""What `driftline config show` lists."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from streams.configuration import Setting, list_settings, masked, refuse_secret_flags, render
from streams.errors import WrongSetting
from streams.settings import load


def listed(file: Path | None = None, **flags: str) -> dict[str, Setting]:
    settings, origin = load(
        file, {"DRIFTLINE_WORKER__HORIZON_S": "60"}, {name.replace("__", "."): value for name, value in flags.items()}
    )
    return {each.name: each for each in list_settings(settings, origin)}


def test_every_setting_says_where_its_value_came_from(tmp_path: Path) -> None:
    """File, environment, flag and default are told apart, also within a model's table."""
    file = tmp_path / "driftline.toml"
    file.write_text('[kafka]\ntopic_prefix = "a."\n[models.loans]\ntask = "binary"\nclasses = [0, 1]\n')
    found = listed(file, kafka__partitions="8")
    assert (found["kafka.topic_prefix"].value, found["kafka.topic_prefix"].source) == ("a.", str(file))
    assert (found["worker.horizon_s"].value, found["worker.horizon_s"].source) == (60.0, "environment")
    assert (found["kafka.partitions"].value, found["kafka.partitions"].source) == (8, "flag")
    assert found["redis.prefix"].source == "default"
    assert found["models.loans.task"].value == "binary"
    assert found["models.loans.classes"].source == str(file)
    assert found["worker.horizon_s"].description.startswith("how long an outcome may take")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:secret@host/0", "rediss://:***@host/0"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("unix:///tmp/r.sock?password=secret", "unix:///tmp/r.sock?password=***"),
        ("redis://u:p%40@[::1]:6379/0", "redis://u:***@[::1]:6379/0"),
        ("redis://[broken:secret@", "***"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("models", "models"),
        (5, 5),
    ],
)
def test_a_password_in_a_url_is_masked(value: object, shown: object) -> None:
    """Whoever reads the listing learns the store's address and not its password."""
    assert masked(value) == shown


def test_the_table_holds_no_password() -> None:
    """The rendering masks too."""
    text = io.StringIO()
    render(list(listed(redis__url="redis://u:secret@h/0").values()), Console(file=text, width=200))
    assert "redis://u:***@h/0" in text.getvalue()
    assert "secret" not in text.getvalue()


def test_a_secret_is_listed_as_set_or_not_set() -> None:
    """In the table and as JSON: whether it is there is seen, what it is not."""
    settings, origin = load(None, {"DRIFTLINE_KAFKA__PASSWORD": "s3cret", "DRIFTLINE_REDIS__KEY_PASSWORD": "s3cret"})
    found = list_settings(settings, origin)
    values = {each.name: each.value for each in found}
    assert (values["kafka.password"], values["redis.key_password"]) == ("***", "***")
    assert (values["kafka.key_password"], values["redis.password"]) == ("", "")
    text = io.StringIO()
    render(found, Console(file=text, width=200))
    assert "s3cret" not in text.getvalue()
    assert b"s3cret" not in msgspec.json.encode(found)


def test_a_secret_is_no_flag() -> None:
    """Everybody on the machine sees the arguments of a process. The error names two other ways, and no secret."""
    for name, value in (
        ("kafka.password", "s3cret"),
        ("redis.key_password", "s3cret"),
        ("redis.url", "rediss://u:s3cret@h/0"),
        ("repository", "s3://key:s3cret@bucket/models"),
    ):
        with pytest.raises(WrongSetting, match=name.replace(".", r"\.")) as refused:
            refuse_secret_flags({"kafka.bootstrap": "h:1", name: value})
        assert "DRIFTLINE_" + name.replace(".", "__").upper() in refused.value.hint
        assert "s3cret" not in str(refused.value)
    refuse_secret_flags({"kafka.password_file": "/run/secrets/kafka", "redis.url": "rediss://h/0", "repository": "m"})
