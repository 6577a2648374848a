"""Free loopback ports that stay ours while a server is down between a kill and its restart."""

import random
import socket
from pathlib import Path

LOWEST_PORT = 15_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def first_ephemeral_port() -> int:
    """The lowest port that the kernel hands to outgoing connections by itself."""
    if EPHEMERAL_RANGE.exists():
        return int(EPHEMERAL_RANGE.read_text().split()[0])
    return 32_768


def free_port() -> int:
    """A free port below the ephemeral range.

    The kernel's own choice (a bind to port 0) lies inside that range. A client that retries a killed server there
    can be given the server's port as its own source port and so connect to itself, and the restarted server finds
    its port taken.
    """
    highest = first_ephemeral_port() - 1
    for _ in range(200):
        port = random.randint(LOWEST_PORT, highest) if highest > LOWEST_PORT else _kernel_choice()
        if is_free(port):
            return port
    raise RuntimeError(f"no free port from {LOWEST_PORT} to {highest}: stop what an earlier run left behind")


def _kernel_choice() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
