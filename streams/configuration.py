"""`driftline config show`: every setting with its value, where it came from and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.errors import WrongSetting
from streams.settings import ENVIRONMENT_PREFIX, SECRETS, Settings

DEFAULT = "default"
MASK = "***"


class Setting(msgspec.Struct, frozen=True):
    """One setting. ``source`` is a file's path, ``environment``, ``flag`` or ``default``."""

    name: str
    value: Any
    source: str
    description: str


def list_settings(settings: Settings, origin: Mapping[str, str]) -> list[Setting]:
    """Every setting in the order of the settings' definition; secrets and passwords in URLs are masked."""
    return list(_walk(settings, origin, ""))


def _walk(section: BaseModel, origin: Mapping[str, str], at: str) -> Iterator[Setting]:
    for field, info in type(section).model_fields.items():
        name, value = f"{at}{field}", getattr(section, field)
        if isinstance(value, BaseModel):
            yield from _walk(value, origin, f"{name}.")
        elif isinstance(value, dict) and value:
            for key, entry in value.items():
                yield from _walk(entry, origin, f"{name}.{key}.")
        else:
            yield Setting(name, masked(value), origin.get(name, DEFAULT), info.description or "")


def refuse_secret_flags(flags: Mapping[str, str]) -> None:
    """Raise :class:`WrongSetting` for a secret among ``flags``: the list of processes shows them to everybody."""
    for name, value in flags.items():
        variable = f"{ENVIRONMENT_PREFIX}{name.replace('.', '__').upper()}"
        if name.rpartition(".")[2] in SECRETS:
            raise WrongSetting(
                f"{name} is a secret, and a flag is seen by everybody on this machine",
                f"set {name}_file, or {variable}",
            )
        if "://" in value and masked(value) != value:
            raise WrongSetting(
                f"{name} has a password, and a flag is seen by everybody on this machine",
                f"set {variable}, or put it into the configuration file",
            )


def masked(value: Any) -> Any:
    """A value without its secret, or without the password that a URL may carry."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if not isinstance(value, str) or "://" not in value:
        return value
    try:
        parts = urlsplit(value)
        password = parts.password
    except ValueError:  # not a URL that can be taken apart: show nothing rather than a secret
        return MASK
    query = "&".join(
        f"{name}={MASK}" if equals and "password" in name.lower() else f"{name}{equals}{text}"
        for name, equals, text in (item.partition("=") for item in parts.query.split("&"))
    )
    netloc = parts.netloc
    if password:
        user, _, host = netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:{MASK}@{host}"
    # Not urlunsplit: it writes unix:///path as unix:/path.
    rest = "".join(f"{mark}{part}" for mark, part in (("?", query), ("#", parts.fragment)) if part)
    return f"{parts.scheme}://{netloc}{parts.path}{rest}"


def render(settings: Sequence[Setting], console: Console) -> None:
    """Print them as a table."""
    table = Table(box=None, header_style="bold")
    for column in ("setting", "value", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for each in settings:
        value = each.value if isinstance(each.value, str) else json.dumps(each.value)
        source = each.source if each.source == DEFAULT else f"[bold]{escape(each.source)}[/]"
        table.add_row(escape(each.name), escape(value), source, escape(each.description))
    console.print(table)
