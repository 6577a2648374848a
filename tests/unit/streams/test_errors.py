"""Errors for operators: one line, a way to mend it, an exit code of their own."""

from __future__ import annotations

import pytest

from streams import errors
from streams.errors import DriftlineError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("WrongSetting", 2),
        ("MissingInput", 66),
        ("Unavailable", 69),
        ("RestartMe", 75),
        ("GarbageInput", 76),
        ("AccessDenied", 77),
        ("StateMismatch", 78),
    ],
)
def test_each_kind_has_the_exit_code_that_a_supervisor_knows(name: str, code: int) -> None:
    """They follow sysexits(3), and the table in the module says so."""
    kind = getattr(errors, name)
    assert issubclass(kind, DriftlineError)
    assert kind.exit_code == code
    assert errors.__doc__ is not None
    assert f"\n{code:3}" in errors.__doc__


def test_an_error_says_what_and_how_to_mend_it() -> None:
    """In one line; without a hint there is no dangling dash."""
    assert str(errors.Unavailable("no broker", "start one")) == "no broker — start one"
    assert str(errors.Unavailable("no broker")) == "no broker"
