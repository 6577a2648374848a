"""Commands of the package `retrain`."""

from __future__ import annotations

import typer


def mount(app: typer.Typer) -> None:
    """Add this package's commands to the command line."""
