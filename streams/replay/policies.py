"""The configurations that a replay compares: the current one, one a file, and one made of ``--set``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streams.errors import MissingInput, WrongSetting
from streams.replay.compare import Policy
from streams.settings import Settings, nested, overlaid

CURRENT = "current"
MONITOR = ("monitor.", "models.")
JOIN = (
    "worker.horizon_s",
    "worker.dedupe_s",
    "worker.dedupe_rows",
    "worker.max_pending",
    "worker.max_undeclared_models",
)
"""Settings of the join that change what it does."""


def policies(settings: Settings, files: Sequence[Path], changes: Mapping[str, str], *, joins: bool) -> list[Policy]:
    """The current configuration, then each file's and that of ``changes`` (dotted name → value), laid over it.

    ``joins``: the replay runs the join too, so that its settings may differ as well. Raises :class:`WrongSetting` for
    a setting that is none, or that a replay does not use, and :class:`MissingInput` for a file that is not there.
    """
    found = [Policy(CURRENT, settings, {})]
    for file in files:
        found.append(_policy(file.stem, settings, _read(file), str(file), joins=joins))
    if changes:
        name = ", ".join(f"{name}={value}" for name, value in changes.items())
        found.append(_policy(name, settings, nested(changes), "--set", joins=joins))
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise WrongSetting(f"two policies are called {name!r}", "give the files different names")
    return found


def _policy(name: str, settings: Settings, values: Mapping[str, Any], source: str, *, joins: bool) -> Policy:
    changes = dict(_leaves(values))
    for setting in changes:
        if setting.startswith(MONITOR) or (joins and setting in JOIN):
            continue
        if setting in JOIN:
            raise WrongSetting(
                f"{setting} (from {source}) is a setting of the join, which a replay of summaries does not run",
                "add --from inputs",
            )
        raise WrongSetting(
            f"{setting} (from {source}) changes nothing in a replay", "compare settings of monitor.* or models.*"
        )
    return Policy(name, overlaid(settings, values, source), changes)


def _leaves(values: Mapping[str, Any], at: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{file} is not TOML: {error}", "`driftline config show` lists the names") from None
    except OSError as error:
        raise MissingInput(f"{file} cannot be read: {error.strerror}", "check --policy") from None
