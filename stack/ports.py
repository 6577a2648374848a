"""Loopback ports for the embedded servers."""

from __future__ import annotations

import socket

from streams.errors import Unavailable


def choose_port(wanted: int, owner: str) -> int:
    """``wanted`` if it is free, any free port if it is 0. Another process can still take it before it is used.

    Raises :class:`Unavailable` if the wanted port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise Unavailable(
                f"port {wanted} for the {owner} cannot be used: {error.strerror}", "choose another, or 0 for a free one"
            ) from None
        port: int = probe.getsockname()[1]
        return port
