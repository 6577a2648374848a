"""What `driftline doctor` finds, and how it says to mend it."""

from __future__ import annotations

import http.server
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from streams.doctor import Check, examine, layout, render, version
from streams.errors import StateMismatch
from streams.settings import KafkaSettings, RedisSettings, Settings, WorkerSettings
from tests.support.ports import free_port


def examined(**changes: object) -> dict[str, Check]:
    """A deployment of which nothing runs."""
    values: dict[str, object] = {
        "kafka": KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}", request_timeout_s=0.5),
        "redis": RedisSettings(url=f"rediss://u:secret@127.0.0.1:{free_port()}/0"),
    }
    return {check.name: check for check in examine(Settings(**{**values, **changes}))}  # type: ignore[arg-type]


def test_what_does_not_answer_fails_with_a_hint(tmp_path: Path) -> None:
    """A missing broker and store each fail with one line and a hint, and no password is shown; the rest goes on."""
    found = examined(repository=str(tmp_path))
    for name in ("broker", "topics", "store"):
        assert not found[name].ok
        assert found[name].hint
        assert "\n" not in found[name].detail
        assert "secret" not in found[name].detail
    assert found["model repository"].ok
    assert found["aiokafka"].ok
    assert found["faust-streaming"].ok


def test_a_repository_of_an_unknown_protocol_fails() -> None:
    """A URL that fsspec cannot open is told as unreadable, not as missing."""
    check = examined(repository="nosuchprotocol://bucket")["model repository"]
    assert not check.ok
    assert "nosuchprotocol" in check.detail


def test_a_repository_not_made_yet_is_no_failure(tmp_path: Path) -> None:
    """`driftline train` makes it."""
    check = examined(repository=str(tmp_path / "none"))["model repository"]
    assert check.ok
    assert "driftline train" in check.detail


def test_a_port_in_use_fails() -> None:
    """Somebody else's listener is in the way, and the hint names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check = examined(worker=WorkerSettings(http=f"127.0.0.1:{taken.getsockname()[1]}"))["worker.http"]
    assert not check.ok
    assert "worker.http" in check.hint


class _Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"driftline_join_pending 0\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def metrics() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_running_driftline_on_its_port_is_no_failure() -> None:
    """On a live system the port is taken by the very process that should have it."""
    with metrics() as port:
        check = examined(worker=WorkerSettings(http=f"127.0.0.1:{port}"))["worker.http"]
    assert check.ok
    assert "running driftline" in check.detail


@pytest.mark.parametrize("address", ["9464", "host:port", ":1"])
def test_an_address_that_is_none_fails(address: str) -> None:
    """An address without host and port cannot be listened on."""
    assert not examined(worker=WorkerSettings(http=address))["worker.http"].ok


def test_a_changed_partition_count_names_the_command() -> None:
    """The layout of the store is compared; a topic that it does not know yet is no change."""
    assert layout({"predictions": 4, "new": 1}, {"predictions": 4}) == "as when this deployment began"
    with pytest.raises(StateMismatch, match="predictions had 4, has 8") as caught:
        layout({"predictions": 8}, {"predictions": 4})
    assert "driftline topics accept" in caught.value.hint


def test_another_release_than_the_declared_one_fails() -> None:
    """The worker reaches into these libraries, so exactly the declared release is right."""
    declared = ["aiokafka==0.14.0", "redis>=6", 'x==1; extra == "dev"']
    assert version("aiokafka", "0.14.0", declared) == "0.14.0"
    with pytest.raises(StateMismatch, match=r"0\.13\.0 is installed, 0\.14\.0 is required"):
        version("aiokafka", "0.13.0", declared)


def test_each_check_is_a_line_and_each_failure_has_its_hint() -> None:
    """Marks, details and hints as people see them."""
    text = io.StringIO()
    render([Check("broker", True, "answers"), Check("store", False, "gone [1]", "start it")], Console(file=text))
    assert text.getvalue() == "✓ broker: answers\n✗ store: gone [1]\n  → start it\n"
