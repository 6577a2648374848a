"""A child process that never outlives us: its own log, its own process group, no orphan after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from streams.errors import Unavailable

GRACE_S = 10.0
STOP_POLL_S = 0.02
LOG_TAIL_BYTES = 4_096
# A launcher of its own, not preexec_fn: Python between fork and exec can deadlock once a client library has threads.
# The parent may die before prctl is called: then its process id is no longer our parent's.
_LAUNCH = """
import os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(125)
os.execv(program, sys.argv[2:])
"""


class ChildProcess:
    """One process with output in ``log`` and its identity in ``pid_file``.

    On Linux the kernel kills it when the *thread* that called :meth:`start` ends: call it from a thread that lives as
    long as the child should. Elsewhere the next :meth:`start` on the same ``pid_file`` kills what a crash left behind.
    It has a session of its own, so Ctrl-C in the terminal reaches only its parent, which stops it in order.
    """

    def __init__(self, name: str, log: Path, pid_file: Path) -> None:
        self.name = name
        self.log = log
        self._pid_file = pid_file
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start_bytes = 0

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> None:
        """Start ``argv`` with exactly the environment ``env``. Returns before it is ready for anything.

        Raises :class:`Unavailable` if the program cannot be found.
        """
        program = shutil.which(argv[0], path=env.get("PATH"))
        if program is None:
            raise Unavailable(f"{self.name} cannot start: there is no program {argv[0]}", "is it installed?")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        self._end_orphan()
        with self.log.open("ab") as log:
            self._log_start_bytes = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), program, *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        identity = {"pid": self._process.pid, "created": psutil.Process(self._process.pid).create_time()}
        self._pid_file.write_text(json.dumps(identity))

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.exit_code() is None else None

    def exit_code(self) -> int | None:
        """How the last run ended (negative: by that signal); None while it runs or before the first start.

        Ends what the process started itself, once it has ended.
        """
        if self._process is None:
            return None
        if self._process.returncode is None and psutil.Process(self._process.pid).status() == psutil.STATUS_ZOMBIE:
            self.kill()  # before the kernel may give its number to another process: that is, before it is reaped
        return self._process.returncode

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, and SIGKILL to its whole group after ``grace_s``. Blocks; nothing happens if it does not run."""
        if self._process is None or self.exit_code() is not None:
            return
        self._process.terminate()
        deadline = time.monotonic() + grace_s
        while self.exit_code() is None and time.monotonic() < deadline:
            time.sleep(STOP_POLL_S)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started at once; nothing happens if it does not run."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission for a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def output(self) -> str:
        """The end of what the present or last run wrote."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start_bytes, end - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The last line that it wrote, for an error of one line."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it wrote nothing"

    def _end_orphan(self) -> None:
        """Kill what an earlier run of ours left behind under this name, if it is still that process."""
        try:
            left = json.loads(self._pid_file.read_text())
            orphan = psutil.Process(int(left["pid"]))
            if orphan.create_time() == float(left["created"]):
                orphan.kill()
                orphan.wait()
        except (FileNotFoundError, psutil.NoSuchProcess):
            return
        except (ValueError, KeyError, TypeError):  # torn by the crash: there is nothing to identify
            self._pid_file.unlink()
