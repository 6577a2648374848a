"""Where a process shows its metrics: a registry with the process's own, and the page that Prometheus reads."""

from __future__ import annotations

import errno
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from streams.errors import Unavailable, WrongSetting


def split_address(address: str, name: str) -> tuple[str, int]:
    """``host:port`` → (host, port). Raises :class:`WrongSetting`."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65_535:
        raise WrongSetting(f"{name} is {address!r}", "write host:port, for example 127.0.0.1:9464")
    return host or "127.0.0.1", int(port)


class MetricsPage:
    """Serves a registry's /metrics in a thread of its own; ``port`` is the one really bound."""

    def __init__(self, address: str, registry: CollectorRegistry, name: str) -> None:
        host, port = split_address(address, name)
        try:
            server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise Unavailable(f"{address} {what}", f"stop what listens there, or set {name}=127.0.0.1:0") from None
        self._server: WSGIServer = server
        self.port = int(server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def process_registry() -> CollectorRegistry:
    """A registry with the process's own metrics: CPU, memory, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
