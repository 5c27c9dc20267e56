"""Ports for servers that tests start."""

import secrets
import socket

LOCALHOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
ATTEMPTS = 100


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing uses.

    It lies below the ports that Linux gives to outgoing connections (32768 and up): a client that
    keeps dialling a stopped server on one of those may get that very port, and talk to itself.

    Raises:
        OSError: A hundred random ports were all taken.
    """
    for _ in range(ATTEMPTS):
        port = secrets.choice(PORTS)
        if is_free(port):
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
