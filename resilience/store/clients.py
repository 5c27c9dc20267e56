"""Clients of the store, made as its URL says."""

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from resilience.errors import ConfigurationError
from resilience.store import guide
from resilience.store.guide import Address, AsyncGuide, Guide, Map, SentinelMap, SlotMap
from resilience.text import hide_in_text

CONNECTIONS_MAX = 10_000
"""Whoever waits for a fan-out holds a connection; one hundred, redis-py's limit, are too few."""
SENTINEL_PORT = 26379
PORT = 6379

Make = Callable[[], redis.Redis]
MakeAsync = Callable[[], redis.asyncio.Redis]


class StoreDriver(redis.DriverInfo):
    """Marks the connections of the store, which are to be told from those of the app."""


class Clients:
    """Makes clients of one store: none of them retries, or waits longer than it was told.

    Forms of the URL, where `valkey` may stand for `redis` and `rediss` means TLS:

    - `redis://[user:password@]host:6379/0`, `unix://[user:password@]/path?db=0`
    - `sentinel://[user:password@]host:26379,host2:26379/<name of the primary>[/0]`, and
      `redis+sentinel://` or `rediss+sentinel://`; user and password are the store's, those of the
      Sentinels are `sentinel_username` and `sentinel_password` in the query
    - `redis+cluster://[user:password@]host:6379,host2:6379`, some nodes of a cluster

    The query takes redis-py's options of a connection, such as `ssl_ca_certs`; they win over
    what the arguments say.
    """

    def __init__(self, url: str, *, key: str, timeout_seconds: float) -> None:
        """Prepare; nothing is connected.

        Args:
            url: Where the store is.
            key: Any key of the namespace; which node of a cluster holds it, holds all.
            timeout_seconds: Longest wait to connect and for an answer.

        Raises:
            ConfigurationError: *url* is of none of these forms.
        """
        self.make: Make
        """Return a client for threads."""
        self.make_async: MakeAsync
        """Return a client for the running event loop."""
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "protocol": 2,
            # Else every connection reads from disk which version this is: as long as ten commands.
            "driver_info": StoreDriver(lib_version=redis.__version__),
        }
        scheme, separator, rest = url.partition("://")
        scheme = scheme.replace("valkey", "redis", 1)
        scheme = "redis+sentinel" if scheme == "sentinel" else scheme
        base, _, kind = scheme.partition("+")
        try:
            if kind in {"sentinel", "cluster"} and base in {"redis", "rediss"}:
                self._guided(urlsplit(f"{base}://{rest}"), kind, key)
            else:
                self._direct(scheme + separator + rest)
            _check_options(self.make())
        except (ValueError, TypeError, redis.RedisError) as error:
            # What urlsplit takes for a port may be the end of a password.
            msg = f"store URL {hide_in_text(url)!r}: {str(error).partition(' as ')[0]}"
            raise ConfigurationError(msg) from error

    def _direct(self, url: str) -> None:
        options = {**self._options, "max_connections": CONNECTIONS_MAX}
        self.make = lambda: redis.Redis.from_url(url, retry=_once(), **options)
        self.make_async = lambda: redis.asyncio.Redis.from_url(url, retry=_once_async(), **options)

    def _guided(self, url: SplitResult, kind: str, key: str) -> None:
        if kind == "sentinel":
            name, database = _primary(url.path)
            where: Map = SentinelMap(name)
            servers, options = _servers(url, database, SENTINEL_PORT)
            asking = {
                "username": options.pop("sentinel_username", None),
                "password": options.pop("sentinel_password", None),
            }
        else:
            if url.path.strip("/") not in {"", "0"}:
                msg = "a cluster has no database but 0"
                raise ValueError(msg)
            where = SlotMap(key)
            servers, options = _servers(url, "0", PORT)
            asking = {}
        tls = url.scheme == "rediss"
        store = {**self._options, **options}
        seed = {**store, "db": 0, **asking}

        def make() -> redis.Redis:
            pool = SentinelConnectionPool(
                service_name=key,
                sentinel_manager=Guide(servers, where, tls=tls, options={**seed, "retry": _once()}),
                connection_class=guide.GuidedSSLConnection if tls else guide.GuidedConnection,
                retry=_once(),
                **{"max_connections": CONNECTIONS_MAX, **store},
            )  # type: ignore[no-untyped-call]
            return redis.Redis.from_pool(pool)

        def make_async() -> redis.asyncio.Redis:
            asked = {**seed, "retry": _once_async()}
            pool = AsyncSentinelConnectionPool(
                service_name=key,
                sentinel_manager=AsyncGuide(servers, where, tls=tls, options=asked),
                connection_class=(
                    guide.AsyncGuidedSSLConnection if tls else guide.AsyncGuidedConnection
                ),
                retry=_once_async(),
                **{"max_connections": CONNECTIONS_MAX, **store},
            )  # type: ignore[no-untyped-call]
            return redis.asyncio.Redis.from_pool(pool)

        self.make, self.make_async = make, make_async


def _once() -> Retry:
    return Retry(NoBackoff(), 0)


def _once_async() -> AsyncRetry:
    return AsyncRetry(NoBackoff(), 0)


def _primary(path: str) -> tuple[str, str]:
    name, _, database = path.strip("/").partition("/")
    if not name or not (database or "0").isdecimal():
        msg = "after the Sentinels come the name of the primary and, if not 0, a database number"
        raise ValueError(msg)
    return unquote(name), database or "0"


def _servers(url: SplitResult, database: str, port: int) -> tuple[list[Address], dict[str, Any]]:
    """Return the addresses in *url* and, as redis-py reads them, all its other options."""
    user, at, hosts = url.netloc.rpartition("@")
    servers, options = [], {}
    for host in hosts.split(","):
        one = f"{url.scheme}://{user}{at}{host}/{database}?{url.query}"
        options = parse_url(one)  # type: ignore[no-untyped-call]
        if "host" not in options:
            msg = "a host is missing"
            raise ValueError(msg)
        servers.append((options.pop("host"), options.pop("port", port)))
    options.pop("connection_class", None)
    return servers, options


def _check_options(client: redis.Redis) -> None:
    """Make a connection, but do not connect it: it knows which options there are."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
