"""The proxy that stands for a network, between two sockets."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from resilience.clock import SystemClock
from resilience.testing.ports import LOCALHOST
from resilience.testing.proxy import TcpProxy

SECONDS = 120.0
HELD_SECONDS = 0.1

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that accepts by hand."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        listener.settimeout(SECONDS)
        yield listener


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[TcpProxy]:
    """A proxy in front of the server."""
    with closing(TcpProxy(listener.getsockname()[1])) as proxy:
        yield proxy


@pytest.fixture
def ends(listener: socket.socket, proxy: TcpProxy) -> Iterator[Ends]:
    """A client and the server's side of its connection, which has passed something on."""
    with socket.create_connection((LOCALHOST, proxy.port)) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(SECONDS)
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
            yield client, server


def test_stalled_proxy_delivers_what_was_sent_and_the_close_when_it_resumes(
    proxy: TcpProxy, ends: Ends
) -> None:
    """Nothing is lost, and the order is kept: the close comes last."""
    client, server = ends
    proxy.stall()
    client.sendall(b"late")
    client.close()

    server.settimeout(HELD_SECONDS)
    with pytest.raises(TimeoutError):
        server.recv(4)
    proxy.resume()

    server.settimeout(SECONDS)
    assert server.recv(4, socket.MSG_WAITALL) == b"late"
    assert server.recv(1) == b""


def test_stalled_proxy_holds_back_a_close_when_nothing_was_sent(
    proxy: TcpProxy, ends: Ends
) -> None:
    """A peer that dies behind a stalled link is not missed before the link resumes."""
    client, server = ends
    proxy.stall()
    client.close()

    server.settimeout(HELD_SECONDS)
    with pytest.raises(TimeoutError):
        server.recv(1)
    proxy.resume()

    server.settimeout(SECONDS)
    assert server.recv(1) == b""


def test_slow_proxy_delivers_late_and_in_order_what_was_sent_and_the_close(
    proxy: TcpProxy, ends: Ends
) -> None:
    """Nothing arrives before its time; how much later than that is the machine's business."""
    client, server = ends
    clock = SystemClock()
    proxy.slow(HELD_SECONDS)
    sent = clock.monotonic()
    client.sendall(b"first,")
    client.sendall(b"second")
    client.close()

    received = server.recv(12)
    assert clock.monotonic() - sent >= HELD_SECONDS
    while said := server.recv(12):
        received += said
    assert received == b"first,second"
    assert clock.monotonic() - sent >= 2 * HELD_SECONDS


def test_slow_proxy_delivers_at_once_what_it_holds_when_it_resumes(
    proxy: TcpProxy, ends: Ends
) -> None:
    """What is on its way when a link recovers does not wait for its old time."""
    client, server = ends
    proxy.slow(10 * SECONDS)
    client.sendall(b"late")
    server.settimeout(HELD_SECONDS)
    with pytest.raises(TimeoutError):
        server.recv(4)
    proxy.resume()

    server.settimeout(SECONDS)
    assert server.recv(4, socket.MSG_WAITALL) == b"late"
