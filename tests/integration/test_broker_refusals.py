"""A Redis broker that is there, and refuses: no message is lost, and the consumer goes on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
import redis
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from resilience.broker import SafeConnection
from resilience.broker.eviction import warn_of_eviction
from resilience.testing.ports import LOCALHOST
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.store_servers import behind_tls, started, valkey_with
from tests.integration.takers import (
    SECONDS,
    SILENT_SECONDS,
    Taker,
    ids_of,
    publish,
    queue,
)

__all__ = ["queue"]

Refusing = Callable[[ValkeyProcess], AbstractContextManager[None]]

LITTLE = "1000000"
"""Bytes: less than an empty server needs."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server whose configuration a test may change."""
    socket = ["--unixsocket", str(tmp_path / "socket")]
    one = valkey_with(tmp_path, *socket, "--enable-protected-configs", "yes")
    with started(one):
        yield one


@pytest.fixture
def take(server: ValkeyProcess, queue: str) -> Iterator[Callable[..., Taker]]:
    """Makes consumers of the queue, and closes them."""
    made: list[Taker] = []

    def make(url: str = server.url, prefetch: int = 1) -> Taker:
        made.append(Taker(url, [queue], prefetch))
        return made[-1]

    yield make
    for one in made:
        with suppress(ResponseError, redis.ConnectionError):
            one.connection.close()


def as_user(server: ValkeyProcess, *rules: str) -> str:
    """Make a user who may do everything but for *rules*, and return the address for it."""
    server.client().execute_command(
        "ACL", "SETUSER", "shop", "on", ">secret", "~*", "&*", "+@all", *rules
    )  # type: ignore[no-untyped-call]
    return server.url.replace("//", "//shop:secret@")


def set_memory(server: ValkeyProcess, size: str) -> None:
    """Let the server have so many bytes; 0: all."""
    server.client().config_set("maxmemory", size)


@contextmanager
def read_only(server: ValkeyProcess) -> Iterator[None]:
    """Let the server be a replica."""
    server.client().replicaof(LOCALHOST, "1")
    yield
    server.client().replicaof("NO", "ONE")


@contextmanager
def without_replicas(server: ValkeyProcess) -> Iterator[None]:
    """Let the server take nothing unless a replica has it, too, and let there be none."""
    server.client().config_set("min-replicas-to-write", 1)
    yield
    server.client().config_set("min-replicas-to-write", 0)


@contextmanager
def without_disk(server: ValkeyProcess) -> Iterator[None]:
    """Let the server have no place to save to; then it takes nothing."""
    client, home = server.client(), server.client().config_get("dir")["dir"]
    with TemporaryDirectory() as gone:
        client.config_set("dir", gone)
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(
        lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err",
        SECONDS,
        "it could not save",
    )
    yield
    client.config_set("save", "")
    client.config_set("dir", home)


refusing = pytest.mark.parametrize("refusing", [read_only, without_replicas, without_disk])


def test_jobs_are_taken_and_acknowledged_without_memory(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """A worker empties the queues of a broker that is full: that is what ends it."""
    published = publish(server, queue, 3)
    one = take()
    set_memory(server, LITTLE)
    with pytest.raises(ResponseError, match="maxmemory"):
        publish(server, queue)

    for number in (1, 2, 3):
        one.await_number(number)[-1].ack()

    assert ids_of(one.messages) == published
    assert not server.client().exists("unacked", "unacked_index")


def test_held_job_stays_its_workers_without_memory(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """Its worker is heard of, though the broker takes nothing new; nobody else gets the job."""
    publish(server, queue)
    one = take()
    one.await_number(1)
    set_memory(server, LITTLE)
    other = take()

    other.drain(3 * SILENT_SECONDS)

    assert not other.messages
    assert server.client().hlen("unacked") == 1


def test_job_of_a_dead_worker_comes_back_without_memory(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """What it held goes to the others."""
    published = publish(server, queue)
    dead = take()
    dead.await_number(1)
    dead.consumer.channel.held_tags = list  # as one that is not heard of any more
    set_memory(server, LITTLE)

    assert ids_of(take().await_number(1)) == published


@refusing
def test_acknowledgement_that_was_refused_is_made_up(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str, refusing: Refusing
) -> None:
    """A job that ended meanwhile gives its place free, and does not run again."""
    publish(server, queue, 2)
    one = take()
    (first,) = one.await_number(1)
    with refusing(server):
        first.ack()
        assert server.client().hlen("unacked") == 1

    one.await_number(2)[-1].ack()

    wait_until(lambda: not server.client().hlen("unacked"), SECONDS, "both are acknowledged")


@refusing
def test_server_that_takes_nothing_is_no_broker(
    server: ValkeyProcess, queue: str, refusing: Refusing
) -> None:
    """Who connects or publishes is told so, as of one that is away, and may wait for another."""
    once = {"max_retries": 1, "interval_start": 0}
    with SafeConnection(server.url) as early, early.Producer() as producer:
        assert early.default_channel
        with refusing(server), SafeConnection(server.url) as late:
            with pytest.raises(OperationalError):
                late.ensure_connection(max_retries=1)
            with pytest.raises(OperationalError):
                producer.publish({}, routing_key=queue, retry=True, retry_policy=once)
    assert not server.client().llen(queue)


@pytest.mark.parametrize("rule", ["-hset", "-zadd"])
def test_message_stays_when_its_taker_may_not_note_it(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str, rule: str
) -> None:
    """The error says what a worker's user must be allowed."""
    one = take(as_user(server))
    as_user(server, rule)
    publish(server, queue)

    with pytest.raises(ResponseError) as caught:
        one.await_number(1)

    assert "HSET, HGET" in caught.value.__notes__[0]
    assert server.client().llen(queue) == 1


def test_message_stays_when_its_note_has_no_place(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """The key is somebody else's."""
    one = take()
    server.client().set("unacked", "mine")
    publish(server, queue)

    with pytest.raises(redis.ConnectionError, match="WRONGTYPE"):
        one.await_number(1)

    assert server.client().llen(queue) == 1


def test_held_message_stays_when_it_cannot_be_given_back(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """Its note stays, for whoever can: as soon as it may, its worker does."""
    publish(server, queue)
    one = take(as_user(server))
    (message,) = one.await_number(1)
    as_user(server, "-rpush", "-lpush")

    message.requeue()
    assert server.client().hlen("unacked") == server.client().zcard("unacked_index") == 1
    as_user(server, "+rpush", "+lpush")

    wait_until(lambda: server.client().llen(queue), SECONDS, "it is back")
    assert not server.client().hlen("unacked")


@pytest.mark.parametrize("rule", ["-client|tracking", "-client"])
def test_jobs_come_when_the_broker_may_not_tell_of_them(
    server: ValkeyProcess,
    take: Callable[..., Taker],
    queue: str,
    rule: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Within a second, and the log says why."""
    with caplog.at_level(logging.WARNING, "resilience"):
        one = take(as_user(server, rule))
        one.drain()
        published = publish(server, queue)
        assert ids_of(one.await_number(1)) == published
    assert "cannot tell of new jobs" in caplog.text


def test_user_without_dangerous_commands_is_enough(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """What the documentation grants."""
    published = publish(server, queue)
    one = take(as_user(server, "-@admin", "-@dangerous"))
    (message,) = one.await_number(1)
    message.ack()
    wait_until(lambda: not server.client().hlen("unacked"), SECONDS, "it is acknowledged")
    assert message.headers["id"] == published[0]


def test_worker_says_that_its_broker_may_drop_queues(
    server: ValkeyProcess, take: Callable[..., Taker], caplog: pytest.LogCaptureFixture
) -> None:
    """When it connects."""
    server.client().config_set("maxmemory-policy", "allkeys-lru")

    take()

    told = "maxmemory-policy is allkeys-lru"
    assert wait_until(lambda: told in caplog.text, SECONDS, "it is said")


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_broker_that_drops_no_queue_is_not_spoken_of(
    server: ValkeyProcess, queue: str, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it evicts what expires: queues do not, and are refused instead."""
    client = server.client()
    client.config_set("maxmemory-policy", policy)
    publish(server, queue)

    warn_of_eviction(client)
    set_memory(server, LITTLE)

    assert not caplog.messages
    with pytest.raises(ResponseError, match="maxmemory"):
        publish(server, queue)
    assert client.llen(queue) == 1


def test_jobs_come_through_a_socket_and_through_tls(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str, tmp_path: Path
) -> None:
    """A consumer takes and acknowledges as through TCP."""
    with behind_tls(server.port, tmp_path) as url:
        for where in (f"redis+socket://{tmp_path}/socket", f"{url}&ssl_cert_reqs=required"):
            one = take(where, 0)
            published = publish(server, queue, 3)
            for message in one.await_number(3):
                message.ack()
            assert ids_of(one.messages) == published
            one.connection.close()
    assert not server.client().hlen("unacked")


def test_prefix_of_all_keys_is_one_of_the_notes_too(server: ValkeyProcess) -> None:
    """Two fleets share a server, and neither sees what the other holds."""
    options = {"global_keyprefix": "shop:", "visibility_timeout": SILENT_SECONDS}
    name = uuid4().hex
    one = Taker(server.url, [name], **options)
    with one.connection.Producer(one.connection.channel()) as producer:
        producer.publish({}, routing_key=name)
    (message,) = one.await_number(1)
    assert server.client().hlen("shop:unacked") == server.client().zcard("shop:unacked_index") == 1
    message.ack()
    others = {b"unacked_holders"}  # the consumers of other tests may still be heard of
    assert {*server.client().keys("*unacked*")} - others <= {b"shop:unacked_holders"}
    one.connection.close()
