"""Writes driftline.example.toml: every setting with its default and its meaning, from the settings' own fields.

``python ops/example_config.py`` writes the file; a test says when it is out of date.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streams.settings import ModelRetrainSettings, ModelSettings, Settings

FILE = Path(__file__).resolve().parents[1] / "driftline.example.toml"
WIDTH = 110
HEADER = """\
# Every setting with its default. Copy what you change into driftline.toml, which is read from the working directory
# (or from --config, or $DRIFTLINE_CONFIG). The environment wins over the file, flags win over both:
#   DRIFTLINE_WORKER__HORIZON_S=86400          driftline --set worker.horizon_s=86400 worker
# `driftline config show` says where each value came from. Written by ops/example_config.py.
"""
EXAMPLE_MODEL = """\
# What is declared of one model; all of it may be left out. A model that nobody declares is watched with the defaults.
# [models.loan]
"""
EXAMPLE_LOOP = """\
# [models.loan.retrain]  # what it has otherwise than [retrain] says
"""


def render() -> str:
    """The whole file."""
    fields = Settings.model_fields
    parts = [HEADER, "\n".join(_setting("repository", fields["repository"]))]
    for name, field in fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts.append("\n".join(_section(name, section)))
    own = {name: field for name, field in ModelSettings.model_fields.items() if name != "retrain"}
    models = [f"# {line}" for name, field in own.items() for line in _declared(name, field)]
    parts.append(EXAMPLE_MODEL + "\n".join(models))
    loop = [
        f"# {name} = {_toml(fields['retrain'].default.model_dump()[name])}"
        for name in ModelRetrainSettings.model_fields
    ]
    parts.append(EXAMPLE_LOOP + "\n".join(loop))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    """One table, with what it is about."""
    yield f"# {(section.__doc__ or '').strip()}"
    yield f"[{name}]"
    for key, field in section.model_fields.items():
        yield from _setting(key, field)


def _setting(name: str, field: FieldInfo) -> Iterator[str]:
    """One setting below its meaning and its bounds."""
    bounds = _bounds(field)
    about = f"{field.description or ''} ({bounds})".strip() if bounds else field.description or ""
    for line in textwrap.wrap(about, WIDTH):
        yield f"# {line}"
    yield f"{name} = {_toml(field.default)}"


def _declared(name: str, field: FieldInfo) -> Iterator[str]:
    """One key of a model, without a default: what it may be."""
    examples = {
        "task": "binary",
        "classes": [0, 1],
        "positive": 1,
        "minimum_accuracy": 0.9,
        "false_alarms_per_week": 0.25,
        "outcomes_one_sided": 1.0,
        "segments": ["north", "south"],
        "by_hour": "day",
        "cost_per_error": 2.5,
        "critical_cost_per_day": 1000.0,
        "mode": "auto",
    }
    choices = _choices(field.annotation)
    yield f"{name} = {_toml(examples[name])}" + (f"  # {choices}" if choices else "")


def _choices(annotation: Any) -> str:
    """``a | b`` of a Literal, also within Optional."""
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is Literal:
            return " | ".join(str(choice) or '""' for choice in get_args(part))
    return ""


def _bounds(field: FieldInfo) -> str:
    """The bounds that pydantic checks, in words."""
    found = {}
    for each in field.metadata:
        for bound in ("ge", "gt", "le", "lt"):
            if (value := getattr(each, bound, None)) is not None:
                found[bound] = value
    signs = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    words = [f"{words} {found[bound]:g}" for bound, words in signs.items() if bound in found]
    return ", ".join([*words, *filter(None, [_choices(field.annotation)])])


def _toml(value: Any) -> str:
    """A scalar or a list as TOML writes it; JSON does the same for all of them. A secret has no default."""
    return json.dumps("" if isinstance(value, SecretStr) else value)


if __name__ == "__main__":
    FILE.write_text(render())
