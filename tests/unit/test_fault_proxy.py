"""The fault proxy in a Python program: which links its toxics affect, and that nothing stops it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest

from resilience.chaos.proxy import FaultProxy, ProxyError
from resilience.testing.ports import LOCALHOST
from resilience.testing.waiting import wait_until
from tests.unit.proxied import (
    SECONDS,
    Ends,
    Proxied,
    answers,
    comes_not,
    proxied,
    receive,
    receive_all,
)

LONG_MS = 3_600_000


@pytest.fixture
def stage() -> Iterator[Proxied]:
    """A server behind a proxy without toxics."""
    with proxied(seed=1) as stage:
        yield stage


def affected_of_20(seed: int, *, jitter: int) -> list[bool]:
    """Return which of 20 connections a toxic with a toxicity of one half affects."""
    with proxied(seed=seed) as stage:
        stage.proxy.add("limit_data", bytes=0, toxicity=0.5)
        stage.proxy.add("latency", jitter=jitter)
        ends = [stage.connect() for _ in range(20)]
        for end in ends:
            end.server.sendall(b"x")
        return [receive(end.client, 1) == b"" for end in ends]


def test_same_seed_affects_the_same_connections_and_about_the_share_of_toxicity() -> None:
    """A failure that a share of connections caused can be repeated, whatever others draw."""
    first = affected_of_20(seed=7, jitter=0)

    assert 4 <= sum(first) <= 16
    assert affected_of_20(seed=7, jitter=5) == first


@pytest.mark.parametrize("kind", ["latency", "timeout", "reset_peer", "limit_data", "stall"])
def test_toxicity_of_zero_affects_nothing_neither_data_nor_the_closing_nor_its_removal(
    stage: Proxied, kind: str
) -> None:
    """A toxic can be declared, and its share be raised later."""
    attributes = {"latency": LONG_MS} if kind == "latency" else {}
    stage.proxy.add(kind, toxicity=0, **attributes)
    ends = stage.connect()
    assert answers(ends)
    stage.proxy.remove(f"{kind}_downstream")
    assert answers(ends)

    ends.server.close()

    assert receive_all(ends.client) == b""  # and no reset


def test_raised_toxicity_affects_a_connection_that_was_spared(stage: Proxied) -> None:
    """An update decides again for existing connections, with the same draw."""
    stage.proxy.add("stall", toxicity=0)
    ends = stage.connect()
    assert answers(ends)

    stage.proxy.update("stall_downstream", toxicity=1.0)
    assert not answers(ends)
    stage.proxy.update("stall_downstream", toxicity=0.0)

    assert receive(ends.client, 1) == b"x"


def test_disabled_proxy_closes_connections_and_refuses_new_ones_until_it_is_enabled(
    stage: Proxied,
) -> None:
    """It comes back on the same port, with its toxics."""
    ends = stage.connect()
    stage.proxy.add("stall")
    port = stage.proxy.port

    stage.proxy.disable()

    assert receive_all(ends.client) == receive_all(ends.server) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOCALHOST, port), SECONDS)
    stage.proxy.enable()
    assert stage.proxy.port == port
    assert not answers(stage.connect())


def test_reset_enables_the_proxy_and_removes_all_toxics(stage: Proxied) -> None:
    """One call, and the network is whole again."""
    stage.proxy.add("stall")
    stage.proxy.add("latency", stream="upstream", latency=LONG_MS)
    stage.proxy.disable()

    stage.proxy.reset()

    ends = stage.connect()
    assert answers(ends)
    ends.client.sendall(b"x")
    assert receive(ends.server, 1) == b"x"


def test_toxics_given_at_the_start_affect_the_first_connection() -> None:
    """There is no moment in which the proxy listens without them."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port = listener.getsockname()[1]
        toxics = [{"type": "limit_data", "attributes": {"bytes": 2}}]
        with (
            FaultProxy(f"{LOCALHOST}:{port}", toxics=toxics) as proxy,
            socket.create_connection((proxy.host, proxy.port), SECONDS) as client,
        ):
            server, _ = listener.accept()
            with server:
                server.sendall(b"data")
                assert receive_all(client) == b"da"


def test_removed_toxic_delivers_what_it_has_passed_on_before_what_it_has_not(
    stage: Proxied,
) -> None:
    """Also while the toxic behind it holds the one, and itself the other."""
    stage.proxy.add("noop")
    stage.proxy.add("stall")
    ends = stage.connect()
    data = Random(1).randbytes(150_000)  # noqa: S311 - no secret
    ends.server.sendall(data)
    assert comes_not(ends.client)

    stage.proxy.remove("noop_downstream")
    stage.proxy.remove("stall_downstream")

    assert receive(ends.client, len(data)) == data


@pytest.mark.parametrize("seed", range(3))
def test_no_sequence_of_changes_loses_repeats_or_reorders_data(stage: Proxied, seed: int) -> None:
    """Toxics that only delay may come, change and go at any moment of a transfer."""
    random = Random(seed)  # noqa: S311 - no secret
    data = random.randbytes(300_000)
    ends = stage.connect()
    for stream in ("upstream", "downstream"):
        stage.proxy.add("bandwidth", name=stream, stream=stream, rate=1000)  # lasts 0.3 s
    threads = [
        threading.Thread(target=lambda end=end: (end.sendall(data), end.shutdown(socket.SHUT_WR)))
        for end in ends
    ]
    received: dict[str, bytes] = {}
    for name, end in zip(Ends._fields, ends, strict=True):
        reading = threading.Thread(
            target=lambda name=name, end=end: received.update({name: receive_all(end)})
        )
        threads.append(reading)
    kinds = {
        "latency": lambda: {"latency": random.randint(0, 20), "jitter": random.randint(0, 20)},
        "bandwidth": lambda: {"rate": random.randint(500, 5000)},
        "slicer": lambda: {"average_size": random.randint(500, 5000)},
        "stall": lambda: {"timeout": random.randint(0, 20)},
        "slow_close": lambda: {"delay": random.randint(0, 20)},
    }
    for thread in threads:
        thread.start()
    present: list[tuple[str, str]] = []
    for _ in range(200):
        if present and random.choice((True, False)):
            name, kind = random.choice(present)
            if random.choice((True, False)):
                stage.proxy.update(name, toxicity=random.random(), **kinds[kind]())
            else:
                stage.proxy.remove(name)
                present.remove((name, kind))
            continue
        kind, stream = random.choice(list(kinds)), random.choice(("upstream", "downstream"))
        if (f"{kind}_{stream}", kind) not in present:
            present.append((stage.proxy.add(kind, stream=stream, **kinds[kind]()), kind))
    stage.proxy.reset()
    for thread in threads:
        thread.join(SECONDS)

    assert received == {"client": data, "server": data}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        pytest.param("latncy", {}, "invalid toxic type", id="type"),
        pytest.param("latency", {"latncy": 5}, r"latncy: .*not permitted, got 5", id="attribute"),
        pytest.param("latency", {"latency": -5}, r"latency: .*greater.* 0, got -5", id="negative"),
        pytest.param("latency", {"latency": "5"}, r"latency: .*integer, got '5'", id="text"),
        pytest.param("latency", {"toxicity": 2}, r"toxicity: .*less.* 1, got 2", id="toxicity"),
        pytest.param("latency", {"stream": "sideways"}, "upstream or downstream", id="stream"),
        pytest.param("slicer", {}, r"average_size: .*required", id="no-size"),
        pytest.param(
            "slicer",
            {"average_size": 5, "size_variation": 5},
            r"size_variation must be less than average_size \(5\), got 5",
            id="sizes",
        ),
    ],
)
def test_toxic_that_cannot_be_is_refused_and_named(
    stage: Proxied, kind: str, options: dict[str, object], message: str
) -> None:
    """A mistyped attribute is an error: a fault that does nothing would prove nothing."""
    with pytest.raises(ProxyError, match=message):
        stage.proxy.add(kind, **options)  # type: ignore[arg-type]

    assert answers(stage.connect())


def test_names_of_toxics_are_unique_and_known(stage: Proxied) -> None:
    """Adding one twice, or removing an unknown one, is an error."""
    assert stage.proxy.add("latency", stream="upstream") == "latency_upstream"

    with pytest.raises(ProxyError, match="toxic already exists"):
        stage.proxy.add("latency", stream="upstream")
    with pytest.raises(ProxyError, match="toxic not found"):
        stage.proxy.remove("latency_downstream")
    with pytest.raises(ProxyError, match="toxic not found"):
        stage.proxy.update("latency_downstream", latency=1)


@pytest.mark.parametrize("address", ["6379", "host", "host:port", "host:70000", "::1:6379", ""])
def test_malformed_address_is_refused(address: str) -> None:
    """The message has the form that is needed, and the value."""
    with pytest.raises(ProxyError, match="upstream must be host:port"):
        FaultProxy(address)
    with pytest.raises(ProxyError, match="listen must be host:port"):
        FaultProxy("127.0.0.1:6379", listen=address)


def test_taken_port_is_refused_and_nothing_is_left_running() -> None:
    """The error names the address and the mend."""
    threads = set(threading.enumerate())
    with closing(socket.create_server((LOCALHOST, 0))) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ProxyError, match=f"{LOCALHOST}:{port}: .*choose another port, or 0"):
            FaultProxy("127.0.0.1:6379", listen=f"{LOCALHOST}:{port}")

    wait_until(lambda: set(threading.enumerate()) <= threads, SECONDS, "the thread has ended")
