"""Addresses of proxies, as in Toxiproxy: `host:port`, `[ipv6]:port`, or `:port` for all of them."""

import os
import socket
from http import HTTPStatus

from resilience.chaos.proxy.errors import ProxyError

LISTEN = "127.0.0.1:0"
"""Where a proxy listens if nobody says: only this host can reach it."""
PORT_MAX = 65_535
BACKLOG = 1024
ANY_HOST = "0.0.0.0"  # nosec B104 # noqa: S104 - what `:8080` means


def split_address(address: str, what: str) -> tuple[str, int]:
    """Return host and port of *address*; *what* is for the message.

    Raises:
        ProxyError: It is malformed.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    wrong_host = ":" in host and not bracketed
    if not colon or wrong_host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        msg = f"{what} must be host:port with a port of at most {PORT_MAX}, got {address!r:.200}"
        raise ProxyError(msg)
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(address: str) -> tuple[str, int]:
    """Return the IP address, IPv4 if there are both, and the port to listen on.

    Raises:
        ProxyError: It is malformed or unknown.
    """
    host, port = split_address(address, "listen")
    try:
        found = socket.getaddrinfo(host or ANY_HOST, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        msg = f"listen tcp {address!r:.200}: {error}; use an address of this host"
        raise ProxyError(msg, HTTPStatus.INTERNAL_SERVER_ERROR) from error
    found.sort(key=lambda info: info[0] is not socket.AF_INET)
    return str(found[0][4][0]), port


def listen_on(address: str) -> tuple[socket.socket, str]:
    """Return a socket that listens, and its address: the IP address and port that were got.

    Raises:
        ProxyError: It cannot listen there.
    """
    host, port = resolve(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # as in Toxiproxy, IPv4 as well
    try:
        listening = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        msg = f"listen tcp {address}: bind: {why}; choose another port, or 0"
        raise ProxyError(msg, HTTPStatus.INTERNAL_SERVER_ERROR) from error
    return listening, join_address(*listening.getsockname()[:2])
