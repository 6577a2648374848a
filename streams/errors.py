"""What can go wrong for an operator: one line, a way to mend it, and an exit code.

Exit codes follow sysexits(3), so that a supervisor can tell "restart me" from "a person must act":

====  ==========================================================================================
  2   wrong usage or a wrong setting
 66   an input is missing (a file, a model)
 69   a service is not reachable (broker, store, model server) or a port is in use: restart later
 70   a bug of ours: the traceback is in the log
 75   the process gave up on purpose (fenced, stalled): restart at once, nothing is lost
 76   the input is garbage: nothing was committed, a person decides
 77   access is denied: a wrong password, an untrusted certificate, a missing permission: a person decides
 78   the state does not fit the log (partition counts, lost offsets), or neither has it: a person decides
====  ==========================================================================================
"""

from __future__ import annotations


class DriftlineError(Exception):
    """A condition that ends a command.

    ``message`` says what is wrong in one line; ``hint`` says how to mend it.
    """

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} — {self.hint}" if self.hint else self.message


class WrongSetting(DriftlineError):
    """A setting, flag or argument that cannot be used."""

    exit_code = 2


class MissingInput(DriftlineError):
    """A file, model or version that does not exist."""

    exit_code = 66


class Unavailable(DriftlineError):
    """A service that does not answer, or a port that is taken."""

    exit_code = 69


class RestartMe(DriftlineError):
    """The process cannot go on but a fresh one can: fenced, stalled, a delivery that failed."""

    exit_code = 75


class GarbageInput(DriftlineError):
    """Too large a share of the stream cannot be decoded."""

    exit_code = 76


class AccessDenied(DriftlineError):
    """The broker or the store refuses us, or we do not trust it: asking again would not help."""

    exit_code = 77


class StateMismatch(DriftlineError):
    """The stored state and the log contradict each other; going on would lose or repeat effects."""

    exit_code = 78
