"""driftline.example.toml is what the settings are."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

from streams.settings import ModelSettings, Settings, load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "driftline.example.toml"


def test_the_example_is_current() -> None:
    """A setting that was added or changed is in it: `python ops/example_config.py` writes it."""
    assert EXAMPLE.read_text() == runpy.run_path(str(ROOT / "ops" / "example_config.py"))["render"]()


def test_the_example_is_the_defaults() -> None:
    """Reading it changes nothing."""
    assert load(EXAMPLE, environ={})[0] == Settings()


def test_the_example_names_every_setting() -> None:
    """Not only those that were thought of."""
    written = tomllib.loads(EXAMPLE.read_text())
    defaults = Settings().model_dump(mode="json")
    assert written == {name: value for name, value in defaults.items() if name != "models"}


def test_the_commented_model_is_valid(tmp_path: Path) -> None:
    """Uncommented, the example of a model declares one, and every key of a declaration is shown."""
    text = EXAMPLE.read_text()
    block = text[text.index("# [models.loan]") :]
    file = tmp_path / "driftline.toml"
    file.write_text("\n".join(line.removeprefix("# ") for line in block.splitlines()))
    declared = load(file, environ={})[0].models["loan"]
    assert declared.model_fields_set == set(ModelSettings.model_fields)
