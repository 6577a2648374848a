"""The whole stack on one machine, as a process: start, stop, crash, start again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

READY_S = 150
GONE_S = 60


@contextmanager
def up(data: Path) -> Iterator["subprocess.Popen[str]"]:
    """`driftline up` in a process of its own, always stopped."""
    with (data.parent / "up.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftline", "up", "--data", str(data)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GONE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def addresses(process: "subprocess.Popen[str]") -> dict[str, str]:
    """What it prints once everything is ready."""
    found: dict[str, str] = {}
    if process.stdout is None:
        raise AssertionError("no output")
    for line in process.stdout:
        name, _, value = line.strip().partition(" ")
        found[name] = value.strip()
        if name == "Arguments":
            return found
    raise AssertionError(f"it ended with {process.wait(GONE_S)} before it was ready")


def children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Everything that it started."""
    return psutil.Process(process.pid).children(recursive=True)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Poll until none of them runs."""
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert not alive


@pytest.mark.timeout(600)
def test_up_serves_survives_its_own_crash_and_stops_with_everything(tmp_path: Path) -> None:
    """Everything answers; after SIGKILL nothing is left behind; a second start on the same folder works; Ctrl-C ends
    it with exit code 0 and no process remains."""
    data = tmp_path / "data"
    with up(data) as crashed:
        addresses(crashed)
        begun = children(crashed)
        assert len(begun) >= 5
        crashed.kill()
        crashed.wait()
        wait_until_gone(begun)
    with up(data) as process:
        found = addresses(process)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", found["Kafka"])
        with urllib.request.urlopen(f"{found['Inference']}/v2/health/live", timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(found["Metrics"], timeout=10) as answer:
            assert b"driftline_pairs_total" in answer.read()
        status = subprocess.run(
            [sys.executable, "-m", "driftline", *found["Arguments"].split(), "status", "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert json.loads(status.stdout)["models"] == []
        begun = children(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(GONE_S) == 0
        wait_until_gone(begun)
    assert "starts empty" in (tmp_path / "up.log").read_text()


def test_a_second_up_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """One line that names the folder's owner, and a non-zero exit."""
    from stack.folder import FolderLock

    lock = FolderLock(tmp_path / "data" / "broker")
    lock.acquire()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "driftline", "up", "--data", str(tmp_path / "data")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        lock.release()
    assert done.returncode == 69
    assert "in use by process" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_starting_stops_cleanly(tmp_path: Path) -> None:
    """An impatient Ctrl-C before everything is ready leaves nothing behind and no traceback."""
    log = tmp_path / "up.log"
    with up(tmp_path / "data") as process:
        deadline = time.monotonic() + READY_S
        while "starting worker" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begun = children(process)
        process.send_signal(signal.SIGINT)
        process.wait(GONE_S)
        wait_until_gone(begun)
    assert "Traceback" not in log.read_text()
