"""What each toxic of the fault proxy does to a connection, seen from its two far ends."""

import socket
from collections.abc import Iterator

import pytest

from resilience.clock import SystemClock
from tests.unit.proxied import Proxied, comes_not, proxied, receive, receive_all

CLOCK = SystemClock()
LONG_MS = 3_600_000
"""So long that what is delayed by it never comes by itself."""


@pytest.fixture
def stage() -> Iterator[Proxied]:
    """A server behind a proxy without toxics."""
    with proxied(seed=1) as stage:
        yield stage


def seconds_for(stage: Proxied, data: bytes) -> float:
    """Return how long *data* takes from the server to the client over a new connection."""
    ends = stage.connect()
    began = CLOCK.monotonic()
    ends.server.sendall(data)
    assert receive(ends.client, len(data)) == data
    return CLOCK.monotonic() - began


def test_proxy_without_toxics_passes_on_data_both_ways_and_both_closings(stage: Proxied) -> None:
    """A client that has sent its last word still gets the answer: half-closed connections work."""
    ends = stage.connect()
    ends.client.sendall(b"question")
    ends.client.shutdown(socket.SHUT_WR)
    assert receive_all(ends.server) == b"question"

    ends.server.sendall(b"answer")
    ends.server.shutdown(socket.SHUT_WR)
    assert receive_all(ends.client) == b"answer"


def test_latency_delays_data_by_no_less_than_it_says(stage: Proxied) -> None:
    """The same data over a connection without the toxic is faster, in the same run."""
    control = seconds_for(stage, b"data")
    stage.proxy.add("latency", latency=200)

    delayed = seconds_for(stage, b"data")

    assert delayed >= 0.2
    assert delayed > control


def test_bandwidth_passes_on_no_more_than_its_rate(stage: Proxied) -> None:
    """A rate is in KB of 1,000 bytes a second; without it the same data is faster."""
    data = bytes(40_000)
    control = seconds_for(stage, data)
    stage.proxy.add("bandwidth", rate=100)
    slow = seconds_for(stage, data)
    stage.proxy.update("bandwidth_downstream", rate=200)
    faster = seconds_for(stage, data)

    assert slow >= 0.4
    assert faster >= 0.2
    assert control < slow


def test_bandwidth_passes_on_the_beginning_before_all_of_it_would_fit(stage: Proxied) -> None:
    """Data drips: a narrow link does not hold a chunk back until the whole chunk may pass."""
    stage.proxy.add("bandwidth", rate=1)
    ends = stage.connect()
    ends.server.sendall(bytes(60_000))  # a minute's worth

    assert receive(ends.client, 100) == bytes(100)
    stage.proxy.remove("bandwidth_downstream")
    assert receive(ends.client, 59_900) == bytes(59_900)


def test_bandwidth_of_zero_holds_everything_until_it_is_removed(stage: Proxied) -> None:
    """As in Toxiproxy, the rate that nobody gave is nothing."""
    stage.proxy.add("bandwidth")
    ends = stage.connect()
    ends.server.sendall(b"data")
    assert comes_not(ends.client)

    stage.proxy.remove("bandwidth_downstream")

    assert receive(ends.client, 4) == b"data"


def test_slow_close_delays_the_closing_and_not_the_data(stage: Proxied) -> None:
    """The data is there while the closing is still held."""
    stage.proxy.add("slow_close", delay=LONG_MS)
    ends = stage.connect()
    ends.server.sendall(b"data")
    ends.server.close()
    assert receive(ends.client, 4) == b"data"
    assert comes_not(ends.client)

    began = CLOCK.monotonic()
    stage.proxy.update("slow_close_downstream", delay=200)

    assert receive_all(ends.client) == b""
    assert CLOCK.monotonic() - began >= 0.2


def test_removed_slow_close_lets_the_closing_through(stage: Proxied) -> None:
    """What only waited for its time comes at once."""
    stage.proxy.add("slow_close", delay=LONG_MS)
    ends = stage.connect()
    ends.server.close()
    assert comes_not(ends.client)

    stage.proxy.remove("slow_close_downstream")

    assert receive_all(ends.client) == b""


def test_timeout_drops_data_and_closes_the_connection_when_its_time_is_up(stage: Proxied) -> None:
    """Data that keeps coming does not prolong it; both ends see the closing."""
    stage.proxy.add("timeout", timeout=300)
    began = CLOCK.monotonic()
    ends = stage.connect()
    ends.server.sendall(b"lost")
    assert comes_not(ends.client)
    ends.server.sendall(b"lost, too")

    assert receive_all(ends.client) == b""
    assert CLOCK.monotonic() - began >= 0.3
    assert receive_all(ends.server) == b""


def test_timeout_of_zero_drops_data_until_it_is_removed_which_closes_the_connection(
    stage: Proxied,
) -> None:
    """As in Toxiproxy: a stream with a hole in it must not go on."""
    stage.proxy.add("timeout")
    ends = stage.connect()
    ends.server.sendall(b"lost")
    assert comes_not(ends.client)

    stage.proxy.remove("timeout_downstream")

    assert receive_all(ends.client) == b""
    assert receive_all(ends.server) == b""
    assert seconds_for(stage, b"new connections work") >= 0


def test_reset_peer_resets_both_ends_after_its_timeout(stage: Proxied) -> None:
    """Both get an error, as from a host that was switched off, and not before its time."""
    ends = stage.connect()
    stage.proxy.add("reset_peer", timeout=200)  # also for a connection that exists already
    began = CLOCK.monotonic()
    ends.server.sendall(b"data")

    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)
    assert CLOCK.monotonic() - began >= 0.2
    with pytest.raises(ConnectionResetError):
        ends.server.recv(1)


def test_reset_peer_waits_for_the_first_data(stage: Proxied) -> None:
    """As in Toxiproxy, an idle connection stays."""
    stage.proxy.add("reset_peer")
    ends = stage.connect()
    ends.client.sendall(b"upstream is not affected")
    assert receive(ends.server, 24) == b"upstream is not affected"
    assert comes_not(ends.client)

    ends.server.close()

    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)


def test_slicer_delivers_all_data_in_order_and_no_faster_than_its_delay_allows(
    stage: Proxied,
) -> None:
    """1,000 bytes in pieces of 90 to 110 are at least ten, with a delay between each two."""
    data = bytes(range(250)) * 4
    control = seconds_for(stage, data)
    stage.proxy.add("slicer", average_size=100, size_variation=10, delay=20_000)

    sliced = seconds_for(stage, data)

    assert sliced >= 8 * 0.02
    assert sliced > control


def test_limit_data_closes_after_exactly_its_bytes_on_each_connection(stage: Proxied) -> None:
    """What comes before the limit is delivered, over however many pieces it came."""
    stage.proxy.add("limit_data", bytes=10)
    for _ in range(2):
        ends = stage.connect()
        ends.server.sendall(b"01234")
        assert receive(ends.client, 5) == b"01234"
        ends.server.sendall(b"56789abc")
        assert receive_all(ends.client) == b"56789"


def test_raised_limit_counts_what_was_passed_on_before(stage: Proxied) -> None:
    """An update changes the limit of a connection, not its past."""
    stage.proxy.add("limit_data", bytes=10)
    ends = stage.connect()
    for piece in (b"01", b"234"):
        ends.server.sendall(piece)
        assert receive(ends.client, len(piece)) == piece

    stage.proxy.update("limit_data_downstream", bytes=7)

    ends.server.sendall(b"56789abc")
    assert receive_all(ends.client) == b"56"


def test_stall_holds_data_and_the_closing_and_delivers_both_in_order_when_removed(
    stage: Proxied,
) -> None:
    """Unlike a timeout, it heals: nothing is lost."""
    stage.proxy.add("stall")
    ends = stage.connect()
    ends.server.sendall(b"first, ")
    ends.server.sendall(b"second")
    ends.server.close()
    assert comes_not(ends.client)

    stage.proxy.remove("stall_downstream")

    assert receive_all(ends.client) == b"first, second"


def test_stall_with_a_timeout_delivers_by_itself_and_holds_no_more(stage: Proxied) -> None:
    """Once its time is up, the connection is as good as without it."""
    stage.proxy.add("stall", timeout=300)
    began = CLOCK.monotonic()
    ends = stage.connect()
    ends.server.sendall(b"late")

    assert receive(ends.client, 4) == b"late"
    assert CLOCK.monotonic() - began >= 0.3
    stage.proxy.add("stall", name="other", stream="upstream", timeout=LONG_MS)
    ends.server.sendall(b"soon")
    assert receive(ends.client, 4) == b"soon"


def test_toxics_of_one_direction_leave_the_other_alone(stage: Proxied) -> None:
    """An answer passes while a question is held, and the other way round."""
    stage.proxy.add("stall", stream="upstream")
    ends = stage.connect()
    ends.client.sendall(b"question")
    ends.server.sendall(b"answer")

    assert receive(ends.client, 6) == b"answer"
    assert comes_not(ends.server)


def test_two_latencies_add_up(stage: Proxied) -> None:
    """Toxics of one direction work one after the other."""
    stage.proxy.add("latency", latency=100, name="one")
    stage.proxy.add("latency", latency=100, name="two")

    assert seconds_for(stage, b"data") >= 0.2


def test_added_latency_delays_what_comes_from_then_on_over_an_existing_connection(
    stage: Proxied,
) -> None:
    """Nobody needs to connect again to feel it, or to be rid of it."""
    ends = stage.connect()
    stage.proxy.add("latency", latency=LONG_MS)
    ends.server.sendall(b"data")
    assert comes_not(ends.client)

    stage.proxy.update("latency_downstream", latency=0)

    assert receive(ends.client, 4) == b"data"
