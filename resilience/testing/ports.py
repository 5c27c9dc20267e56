"""Ports for servers that tests start."""

import os
import secrets
import socket
import sys
from collections import deque

LOCALHOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
ATTEMPTS = 100
RESERVED_MAX = 50
"""So many ports that this process got last are given to nobody else, whether in use or not."""

_reserved: deque[tuple[int, int | None]] = deque()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing uses, and that nobody else gets here for a while.

    It lies below the ports that Linux gives to outgoing connections (32768 and up): a client that
    keeps dialling a stopped server on one of those may get that very port, and talk to itself.

    Raises:
        OSError: A hundred random ports were all taken.
    """
    for _ in range(ATTEMPTS):
        port = secrets.choice(PORTS)
        if is_free(port) and _reserve(port):
            return port
    msg = f"no free port among {ATTEMPTS} tried in {PORTS}"
    raise OSError(msg)


def is_free(port: int) -> bool:
    """Tell whether nothing listens on this TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        # A server can bind a port with connections in TIME_WAIT, so the probe must, too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Keep others from getting *port* before its server uses it; return whether it was free.

    On Linux a socket name without a file keeps other processes from it as well. It ends with this
    process, however that ends.
    """
    claim = None
    if sys.platform == "linux":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
            try:
                named.bind(f"\0resilience-port-{port}")
            except OSError:
                return False
            claim = named.detach()
    elif any(port == reserved for reserved, _ in _reserved):
        return False
    _reserved.append((port, claim))
    if len(_reserved) > RESERVED_MAX and (oldest := _reserved.popleft()[1]) is not None:
        os.close(oldest)
    return True
