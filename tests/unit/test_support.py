"""The parts of the test servers that need no server."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.ports import answers, first_ephemeral_port, free_port, is_free
from tests.support.server import Server, ServerError, executable

LISTEN = """
import socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
print("listening", flush=True)
time.sleep(600)
"""


class Listener(Server):
    """The smallest server: it listens."""

    name = "listener"
    start_bound_s = 60.0

    def _prepare(self) -> list[str]:
        return [sys.executable, "-c", LISTEN, str(self.port)]

    def _is_ready(self) -> bool:
        return "listening" in self.log_tail() and answers(self.port)


def wait_until_gone(pid: int) -> None:
    for _ in range(1_200):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


def test_a_free_port_is_below_the_ephemeral_range() -> None:
    """No client's outgoing connection can take the port of a server that is down for a moment."""
    ports = {free_port() for _ in range(50)}
    assert max(ports) < first_ephemeral_port()
    assert len(ports) > 40


def test_a_port_in_use_is_not_free() -> None:
    """A port with a listener answers and is not offered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free(port)
        assert answers(port)
    assert not answers(port)


def test_a_server_whose_port_was_taken_moves_before_its_first_start(tmp_path: Path) -> None:
    """Between choice and start another process may take the port: the server takes another one."""
    server = Listener(tmp_path)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        taken = server.port
        with server:
            assert server.port != taken
            assert server.is_running


def test_a_server_with_a_fixed_port_reports_that_it_is_taken(tmp_path: Path) -> None:
    """A port that the caller chose is not replaced: the error shows the server's log."""
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        server = Listener(tmp_path, port=thief.getsockname()[1])
        with pytest.raises(ServerError, match="Address already in use"):
            server.start()
    assert not server.is_running


def test_the_verbs_refuse_a_server_that_does_not_run(tmp_path: Path) -> None:
    """Pausing what does not run is an error, stopping it is none, starting it twice is one."""
    server = Listener(tmp_path)
    with pytest.raises(ServerError, match="does not run"):
        server.pause()
    server.stop()
    server.kill()
    with server, pytest.raises(ServerError, match="runs already"):
        server.start()


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A test run that is killed leaves no server behind."""
    program = (
        "import sys, time; from pathlib import Path; from tests.unit.test_support import Listener\n"
        "server = Listener(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(600)"
    )
    checkout = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=checkout) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        os.kill(pid, 0)
        run.send_signal(signal.SIGKILL)
    wait_until_gone(pid)


def test_a_missing_command_names_the_package_to_install() -> None:
    """Whoever lacks a server reads what to install."""
    with pytest.raises(ServerError, match="apt-get install redis-server"):
        executable("no-such-redis-server", "redis-server")
