"""Nothing that a client, a server or a program does stops the fault proxy, or makes it grow."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from resilience.chaos.proxy import FaultProxy
from resilience.testing.ports import LOCALHOST, free_port
from tests.unit.proxied import SECONDS, Proxied, answers, proxied, receive, receive_all

MEGABYTE = 1_000_000


@pytest.fixture
def stage() -> Iterator[Proxied]:
    """A server behind a proxy without toxics."""
    with proxied() as stage:
        yield stage


def test_upstream_that_refuses_costs_its_client_the_connection_and_no_other() -> None:
    """The proxy goes on, and forwards once the server is there."""
    port = free_port()
    with FaultProxy(f"{LOCALHOST}:{port}") as proxy:
        with socket.create_connection((LOCALHOST, proxy.port), SECONDS) as client:
            assert receive_all(client) == b""
        with (
            socket.create_server((LOCALHOST, port)) as listener,
            socket.create_connection((LOCALHOST, proxy.port), SECONDS) as client,
        ):
            server, _ = listener.accept()
            with server:
                server.sendall(b"data")
                assert receive(client, 4) == b"data"


@pytest.mark.parametrize("toxic", [None, "stall", "latency"])
def test_peer_that_dies_takes_only_its_own_connection_along(
    stage: Proxied, toxic: str | None
) -> None:
    """Also in the middle of a transfer, and while data for it is held."""
    other = stage.connect()
    if toxic:
        stage.proxy.add(toxic, **({"latency": 100} if toxic == "latency" else {}))
    for victim in (0, 1):
        ends = stage.connect()
        ends[1 - victim].sendall(bytes(100_000))
        ends[victim].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ends[victim].close()
    if toxic:
        stage.proxy.remove(f"{toxic}_downstream")

    assert answers(other)
    assert answers(stage.connect())


def test_receiver_that_does_not_read_makes_the_sender_wait(stage: Proxied) -> None:
    """The proxy holds little: what 100 MB would fill is the network's buffers only."""
    stage.proxy.add("stall")
    ends = stage.connect()
    ends.server.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError):
        while sent < 100 * MEGABYTE:
            sent += ends.server.send(bytes(65_536))

    assert sent < 30 * MEGABYTE


@pytest.mark.parametrize("toxic", [None, "latency"])
def test_memory_does_not_grow_with_what_passes(stage: Proxied, toxic: str | None) -> None:
    """100 MB pass in the memory that one MB takes."""
    if toxic:
        stage.proxy.add(toxic, latency=1)
    ends = stage.connect()
    piece = bytes(MEGABYTE)

    def send() -> None:
        for _ in range(100):
            ends.server.sendall(piece)

    first = threading.Thread(target=lambda: ends.server.sendall(piece))
    first.start()  # so that all buffers have been made
    assert receive(ends.client, MEGABYTE) == piece
    first.join(SECONDS)
    before = psutil.Process().memory_info().rss
    sending = threading.Thread(target=send)
    sending.start()
    peak = before
    for _ in range(100):
        assert receive(ends.client, MEGABYTE) == piece
        peak = max(peak, psutil.Process().memory_info().rss)
    sending.join(SECONDS)

    assert peak - before < 50 * MEGABYTE


def test_two_hundred_connections_work_side_by_side(stage: Proxied) -> None:
    """Each gets its own data, with a toxic added while they are open."""
    ends = [stage.connect() for _ in range(200)]
    stage.proxy.add("latency", latency=50)
    for number, end in enumerate(ends):
        end.server.sendall(number.to_bytes(2))

    assert [receive(end.client, 2) for end in ends] == [n.to_bytes(2) for n in range(200)]


def test_closed_proxy_leaves_no_thread_no_socket_and_no_connection() -> None:
    """Also with links that are open and stalled; both ends see the closing."""
    this, threads = psutil.Process(), set(threading.enumerate())
    before = this.num_fds()
    with ExitStack() as stack, socket.create_server((LOCALHOST, 0)) as listener:
        proxy = FaultProxy(f"{LOCALHOST}:{listener.getsockname()[1]}")
        proxy.add("stall")
        clients = []
        for _ in range(20):
            address = (LOCALHOST, proxy.port)
            clients.append(stack.enter_context(socket.create_connection(address, SECONDS)))
            server, _ = listener.accept()
            stack.enter_context(server).sendall(bytes(100_000))

        proxy.close()

        assert set(threading.enumerate()) <= threads
        assert {receive_all(client) for client in clients} == {b""}
        proxy.close()  # may be repeated
    assert this.num_fds() <= before
    with pytest.raises(RuntimeError, match="closed"):
        proxy.add("latency")


def test_threads_may_change_toxics_at_the_same_time(stage: Proxied) -> None:
    """No change is lost, and none damages another."""
    ends = stage.connect()

    def change(number: int) -> None:
        for _ in range(20):
            name = stage.proxy.add("latency", name=f"toxic-{number}", latency=1)
            stage.proxy.update(name, latency=2)
            stage.proxy.remove(name)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    stage.proxy.add("stall", name="toxic-0")
    stage.proxy.remove("toxic-0")
    assert answers(ends)
