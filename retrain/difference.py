"""Two versions side by side: what differs between their manifests."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.manifest import Manifest

LEFT_OUT = frozenset({"profile", "format", "model"})
"""The reference profile is hundreds of numbers; its features are compared by the signature."""


class Difference(msgspec.Struct, frozen=True):
    """One value that differs; None where a version does not have it."""

    name: str
    first: Any
    second: Any


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """What differs, by dotted name, in the manifests' order."""
    ours, theirs = _flat(first), _flat(second)
    names = [*ours, *(name for name in theirs if name not in ours)]
    found = (Difference(name, ours.get(name), theirs.get(name)) for name in names)
    return [difference for difference in found if difference.first != difference.second]


def _flat(manifest: Manifest) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if name not in LEFT_OUT:
            _flatten(name, value, found)
    return found


def _flatten(name: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(f"{name}.{key}", inner, found)
    else:
        found[name] = value
