"""A child process: its log, its end, and that it never outlives its parent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack.child import ChildProcess
from streams.errors import Unavailable
from tests.unit.stack.conditions import eventually, is_gone

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    it = ChildProcess("sleeper", tmp_path / "logs" / "sleeper.log", tmp_path / "run" / "sleeper.json")
    yield it
    it.kill()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_its_output_goes_to_its_log_and_the_last_line_is_its_last_words(child: ChildProcess) -> None:
    """An error of one line can quote what the process said last."""
    child.start(python("print('first'); print('the reason')"), os.environ)
    eventually(lambda: child.exit_code() == 0, "it ends")
    assert child.last_words() == "the reason"
    assert child.log.read_text() == "first\nthe reason\n"


def test_last_words_are_those_of_the_present_run(child: ChildProcess) -> None:
    """A silent run is not blamed with what the run before it said."""
    child.start(python("print('old')"), os.environ)
    eventually(lambda: child.exit_code() == 0, "it ends")
    child.start(python("pass"), os.environ)
    eventually(lambda: child.exit_code() == 0, "it ends")
    assert child.last_words() == "it wrote nothing"


def test_it_gets_exactly_the_environment_that_was_given(child: ChildProcess) -> None:
    """No variable of ours leaks into it."""
    child.start(python("import os; print(sorted(os.environ))"), {"ONLY": "this", "PYTHONCOERCECLOCALE": "0"})
    eventually(lambda: child.exit_code() is not None, "it ends")
    assert set(json.loads(child.last_words().replace("'", '"'))) <= {"ONLY", "PYTHONCOERCECLOCALE", "LC_CTYPE"}


def test_a_missing_program_is_one_line(child: ChildProcess) -> None:
    """The error names the program and nothing was started."""
    with pytest.raises(Unavailable, match="no program no-such-program"):
        child.start(["no-such-program"], os.environ)
    assert child.pid is None


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(child: ChildProcess) -> None:
    """Stop returns only when it is gone."""
    child.start(python("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP), os.environ)
    eventually(lambda: child.last_words() == "up", "it runs")
    pid = child.pid
    assert pid is not None
    child.stop(grace_s=0.1)
    assert child.exit_code() == -9
    assert is_gone(pid)


def test_what_it_started_itself_goes_with_it(child: ChildProcess) -> None:
    """A grandchild does not survive, whether its parent is stopped or ends by itself."""
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(p.pid, flush=True)"
    child.start(python(code), os.environ)
    eventually(lambda: child.exit_code() is not None, "it ends")
    grandchild = int(child.output().split()[0])
    eventually(lambda: is_gone(grandchild), "the grandchild ends")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_it_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the parent no chance to clean up: the kernel does."""
    code = f"""
import os, sys, time
from pathlib import Path
from stack.child import ChildProcess
child = ChildProcess("c", Path({str(tmp_path)!r}) / "c.log", Path({str(tmp_path)!r}) / "c.json")
child.start([sys.executable, "-c", {SLEEP!r}], os.environ)
while child.last_words() != "up":
    time.sleep(0.02)
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
    finally:
        parent.kill()
        parent.communicate()
    eventually(lambda: is_gone(pid), "the child dies with its parent")


def test_a_start_ends_the_orphan_of_a_crash(child: ChildProcess, tmp_path: Path) -> None:
    """Where the kernel does not end it, the next start on the same folder does."""
    orphan = subprocess.Popen(python(SLEEP))
    try:
        pid_file = tmp_path / "run" / "sleeper.json"
        pid_file.parent.mkdir()
        pid_file.write_text(json.dumps({"pid": orphan.pid, "created": psutil.Process(orphan.pid).create_time()}))
        child.start(python("pass"), os.environ)
        assert is_gone(orphan.pid)
    finally:
        orphan.kill()
        orphan.wait()


@pytest.mark.parametrize("content", ['{"pid": ', '{"pid": "x"}', "[]"])
def test_a_torn_pid_file_does_not_prevent_a_start(child: ChildProcess, tmp_path: Path, content: str) -> None:
    """A crash in the middle of writing it leaves nothing in the way."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sleeper.json").write_text(content)
    child.start(python(SLEEP), os.environ)
    assert child.pid is not None


def test_a_process_that_only_reused_the_number_is_left_alone(child: ChildProcess, tmp_path: Path) -> None:
    """The pid of a crash may belong to a stranger by now."""
    stranger = subprocess.Popen(python(SLEEP))
    try:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "sleeper.json").write_text(json.dumps({"pid": stranger.pid, "created": 1.0}))
        child.start(python("pass"), os.environ)
        eventually(lambda: child.exit_code() == 0, "it ends")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
