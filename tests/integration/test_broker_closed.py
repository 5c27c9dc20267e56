"""What a killed worker held comes back when its connection is closed, and nothing of live ones.

The silence limit is longer than any test takes here: what comes back, comes back without it.
"""

import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
from kombu import Connection

from resilience.broker import CRASHES_HEADER, heartbeat
from resilience.broker.peers import Peers
from resilience.clock import SystemClock
from resilience.testing.proxy import TcpProxy
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.store_servers import started, valkey_with
from tests.integration.takers import SECONDS, Taker, holder, ids_of, publish, queue, said_by

__all__ = ["queue"]

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")

SILENT_SECONDS = 600.0
GRACE_SECONDS = 1.5
LONG_SECONDS = 2.5
"""Twice as long as a worker whose connection was closed has to come back."""
HOLDERS = "unacked_holders"

Take = Callable[..., Taker]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that a test may start again."""
    path = tmp_path_factory.mktemp("server")
    options = ["--unixsocket", str(path / "socket"), "--bind", "127.0.0.1", "-::1"]
    with started(server := valkey_with(path, *options)):
        yield server


@pytest.fixture
def server(running: ValkeyProcess) -> ValkeyProcess:
    """The same, empty."""
    running.flush()
    return running


@pytest.fixture
def take(server: ValkeyProcess, queue: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Take]:
    """Makes consumers of the queue, which soon declare others dead, and closes them."""
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", GRACE_SECONDS)
    made: list[Taker] = []

    def make(url: str = server.url) -> Taker:
        made.append(Taker(url, [queue], 1, visibility_timeout=SILENT_SECONDS))
        return made[-1]

    yield make
    for one in made:
        with suppress(redis.ConnectionError):
            one.connection.close()


def number_of(taker: Taker) -> str:
    """Return the worker's number of *taker*."""
    return str(taker.connection.transport.heartbeat.worker)


def connection_of(server: ValkeyProcess, worker: str) -> int | None:
    """Return the id of the connection that *worker* has noted, if the server runs it."""
    run = server.client().info("server")["run_id"]
    found = server.client().zscore(HOLDERS, f"{run}:{worker}")
    return None if found is None else int(found)


def await_noted(server: ValkeyProcess, *takers: Taker) -> None:
    """Wait until all have noted their connections."""
    for taker in takers:
        wait_until(
            lambda taker=taker: connection_of(server, number_of(taker)), SECONDS, "it is noted"
        )


def _drained(taker: Taker) -> bool:
    try:
        taker.drain(0.05)
    except taker.connection.connection_errors:
        return False
    return True


def as_user(server: ValkeyProcess, *rules: str) -> str:
    """Make a user who may use no dangerous commands but those, and return the address for it."""
    rules = ("reset", "on", ">secret", "~*", "&*", "+@all", "-@admin", "-@dangerous", *rules)
    server.client().execute_command("ACL", "SETUSER", "shop", *rules)
    return server.url.replace("//", "//shop:secret@")


def hold(server: ValkeyProcess, take: Take, queue: str, url: str | None = None) -> Taker:
    """Return a consumer that holds the one message there is."""
    publish(server, queue)
    one = take(url or server.url)
    one.await_number(1)
    return one


def test_message_of_a_killed_consumer_comes_to_another_and_that_of_a_frozen_one_does_not(
    server: ValkeyProcess, take: Take, queue: str
) -> None:
    """Though a process that the killed one has forked is still there."""
    other = take()
    other.consumer.cancel()
    with holder(server.url, queue, "fork") as process:
        (expected,) = publish(server, queue)
        assert said_by(process) == expected
        wait_until(lambda: server.client().zcard(HOLDERS) == 2, SECONDS, "both are noted")
        process.send_signal(signal.SIGSTOP)
        other.consumer.consume()
        other.drain(LONG_SECONDS)
        assert not other.messages

        process.kill()
        other.await_number(1)

    assert ids_of(other.messages) == [expected]
    assert other.messages[0].headers[CRASHES_HEADER] == 1
    assert server.client().zcard(HOLDERS) == 1


def test_message_stays_its_consumers_whose_connections_are_closed_again_and_again(
    server: ValkeyProcess, take: Take, queue: str
) -> None:
    """It is back under a new id at once, also with a message taken while it was cut off."""
    one, other = take(), take()
    other.consumer.cancel()
    await_noted(server, one, other)
    client = server.client()
    seen = {connection_of(server, number_of(one))}
    client.client_kill_filter(_id=str(max(seen)))
    publish(server, queue)
    one.await_number(1)
    other.consumer.consume()
    until = SystemClock.monotonic() + 2 * LONG_SECONDS
    while SystemClock.monotonic() < until:
        other.drain(0.02)
        if (back := connection_of(server, number_of(one))) not in seen:
            seen.add(back)
            client.client_kill_filter(_id=str(back))

    other.drain(LONG_SECONDS)

    assert len(seen) > 2 * LONG_SECONDS
    assert not other.messages
    wait_until(
        lambda: client.client_list(client_id=[connection_of(server, number_of(one))]),
        SECONDS,
        "the connection that is noted is open",
    )
    one.messages[0].ack()
    assert not client.hlen("unacked")


def test_message_stays_its_consumers_when_the_server_is_started_again(
    server: ValkeyProcess, take: Take, queue: str
) -> None:
    """What was noted on the old one says nothing, also if it still stands there."""
    one, other = take(), take()
    other.consumer.cancel()
    publish(server, queue)
    one.await_number(1)
    await_noted(server, one, other)
    before = server.client().zrange(HOLDERS, 0, -1)
    server.kill()
    server.start()
    await_noted(server, one, other)
    wait_until(lambda: _drained(other), SECONDS, "it consumes again")
    other.drain(GRACE_SECONDS + LONG_SECONDS)

    assert not other.messages
    assert not {*before} & {*server.client().zrange(HOLDERS, 0, -1)}


def test_message_stays_its_consumers_whose_server_answers_too_late(
    server: ValkeyProcess, take: Take, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that is noted stays open until another one is, or the consumer is dead."""
    publish(server, queue)
    one = take()
    one.await_number(1)
    other = take()
    await_noted(server, one, other)
    peers, worker = one.connection.transport.heartbeat._peers, number_of(one)  # noqa: SLF001 - there is no other way to it
    before = connection_of(server, worker)

    def time_out(_: redis.Redis) -> None:
        peers.leave()  # as redis-py does
        raise redis.TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(peers, "connect", time_out)
        other.drain(GRACE_SECONDS + LONG_SECONDS)
    assert not other.messages

    wait_until(lambda: connection_of(server, worker) != before, SECONDS, "another one is noted")
    wait_until(lambda: not server.client().client_list(client_id=[before]), SECONDS, "it is closed")


def test_heartbeat_that_gives_up_connections_takes_no_more_places_in_their_pool(
    server: ValkeyProcess,
) -> None:
    """A channel has ten connections: ten answers that came too late must not use them up."""
    pool = redis.ConnectionPool.from_url(server.url, max_connections=2)
    client, peers = redis.Redis(connection_pool=pool), Peers(SystemClock())

    for _ in range(3):
        peers.connect(client)
        peers.leave()

    assert client.ping()
    pool.disconnect()


def test_worker_that_lives_elsewhere_is_not_dead_for_what_a_replica_has_of_it(
    server: ValkeyProcess, take: Take, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover its old note is still there when others are back already."""
    publish(server, queue)
    one = take()
    one.await_number(1)
    await_noted(server, one)
    beat = one.connection.transport.heartbeat
    monkeypatch.setattr(beat, "beat", lambda: heartbeat.BEAT_SECONDS)  # as one that is not back yet
    client = server.client()
    (name,) = client.zrange(HOLDERS, 0, -1)
    client.zrem(HOLDERS, name)
    client.zadd(HOLDERS, {b"f" * 40 + name[40:]: 1})
    client.client_kill_filter(_id=str(beat._peers._own.connection))  # noqa: SLF001 - there is no other way to it

    other = take()
    other.drain(GRACE_SECONDS + LONG_SECONDS)

    assert not other.messages
    assert client.zcard(HOLDERS) == 1


def test_consumer_notes_its_connection_where_nothing_is_in_between(
    server: ValkeyProcess, take: Take
) -> None:
    """Through a socket, over IPv6, and as the user that the documentation makes."""
    path = server.client().config_get("unixsocket")["unixsocket"]
    urls = [f"redis+socket://{path}", as_user(server, "+client|list", "+info")]
    if has_ipv6(server):
        urls.append(f"redis://[::1]:{server.port}/0")
    for url in urls:
        await_noted(server, take(url))


def has_ipv6(server: ValkeyProcess) -> bool:
    """Tell whether the server can be reached over IPv6."""
    with suppress(OSError), socket.create_connection(("::1", server.port)):
        return True
    return False


def test_consumer_behind_a_proxy_notes_no_connection(
    server: ValkeyProcess, take: Take, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server sees closed is the proxy's; its silence alone says that a worker is dead."""
    caplog.set_level(logging.INFO, "resilience")
    proxy = TcpProxy(server.port)
    one = hold(server, take, queue, server.url.replace(f":{server.port}/", f":{proxy.port}/"))
    wait_until(lambda: "proxy" in caplog.text, SECONDS, "the log says so")

    assert one.messages
    assert not server.client().exists(HOLDERS)
    proxy.close()


def test_consumer_that_may_not_list_connections_is_heard_of_all_the_same(
    server: ValkeyProcess, take: Take, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once what it lacks."""
    client = server.client()
    one = hold(server, take, queue, as_user(server))
    (tag,) = client.hkeys("unacked")
    score = client.zscore("unacked_index", tag)

    wait_until(lambda: client.zscore("unacked_index", tag) > score, SECONDS, "it is renewed")
    one.messages[0].ack()

    assert not client.exists(HOLDERS, "unacked")
    assert caplog.text.count("does not show which connections are open") == 1


def test_consumer_may_use_no_key_but_kombus(
    server: ValkeyProcess, take: Take, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As with the keys that the documentation of an older version named."""
    client = server.client()
    url = as_user(server, "+client|list", "+info", "resetkeys")
    keys = [f"~{name}" for name in ("unacked", "unacked_index", f"{queue}*", "_kombu*")]
    client.execute_command("ACL", "SETUSER", "shop", *keys)
    one = hold(server, take, queue, url)
    (tag,) = client.hkeys("unacked")
    score = client.zscore("unacked_index", tag)

    wait_until(lambda: client.zscore("unacked_index", tag) > score, SECONDS, "it is renewed")
    one.drain(GRACE_SECONDS)  # it looks for what dead ones held

    assert "does not reach" not in caplog.text
    one.messages[0].ack()


def test_plain_worker_gives_back_what_is_noted(
    server: ValkeyProcess, take: Take, queue: str
) -> None:
    """A fleet may be mixed: what names its worker is no exchange to kombu."""
    one = hold(server, take, queue)
    (tag,) = server.client().hkeys("unacked")
    assert json.loads(server.client().hget("unacked", tag))[1:] == [0, queue]
    one.consumer.cancel()
    with Connection(server.url) as connection:
        connection.default_channel.qos.restore_by_tag(tag.decode())

    assert server.client().llen(queue) == 1
    assert not server.client().exists("unacked", "unacked_index")
