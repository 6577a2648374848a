"""Starting and stopping the server's process."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.applications import Starlette

from serving.process import Failures, StoppableServer, listen, serve, url_of
from streams.errors import RestartMe, Unavailable, WrongSetting
from streams.settings import Settings


@pytest.mark.parametrize("http", ["", "8080", ":8080", "host:", "host:port", "127.0.0.1:70000", "127.0.0.1:-1"])
def test_a_wrong_address_is_told(http: str) -> None:
    """What is not HOST:PORT is refused before anything is started."""
    with pytest.raises(WrongSetting, match="is not HOST:PORT"):
        listen(http)


def test_a_port_in_use_is_told() -> None:
    """Whether the other process listened before us, or between our bind and our listen."""
    with listen("127.0.0.1:0") as first:
        address = first.getsockname()
        with socket.socket() as faster:
            faster.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            faster.bind(address)
            faster.listen()
            with pytest.raises(Unavailable, match="in use"):
                listen(f"{address[0]}:{address[1]}")
            with pytest.raises(Unavailable, match="in use"):
                StoppableServer(Starlette(), first).run(sockets=[first])


def test_port_0_is_told_as_the_real_one() -> None:
    """The URL carries the port that the kernel chose."""
    with listen("127.0.0.1:0") as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockname()[1] > 0


def test_a_ready_file_without_folder_is_told(tmp_path: Path) -> None:
    """It is found at the start, not when the server is ready."""
    with pytest.raises(WrongSetting, match="ready-file"):
        serve(Settings(), "127.0.0.1:0", tmp_path / "none" / "ready")


def test_a_failure_stops_the_server_whenever_it_comes() -> None:
    """Before the server is there or later; the first one is the process's end."""
    with listen("127.0.0.1:0") as listener:
        failures, server = Failures(), StoppableServer(Starlette(), listener)
        failures.raise_first()
        failures.add(RestartMe("first"))
        failures.stops(server)
        assert server.should_exit
        failures.add(RestartMe("second"))
        with pytest.raises(RestartMe, match="first"):
            failures.raise_first()
