"""The clients whose calls can be made to fail, each with its own errors.

Imported only when something is to fail: each function imports the client that it is about.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from errno import ECONNREFUSED
from importlib.util import find_spec
from os import strerror
from typing import Any

from resilience.chaos.patches import Place, put_check
from resilience.text import hide_in_text

Hit = Callable[[str, str, Callable[[], Exception]], None]
"""Takes the target, what is called and what makes the error; raises it if the call is to fail."""
REFUSED = f"[Errno {ECONNREFUSED}] {strerror(ECONNREFUSED)}"
CLOSED = "server closed the connection unexpectedly"
CELERY = ("celery.", "kombu.", "resilience.broker.")
"""Beginnings of the names of modules whose calls are Celery's, and not the app's."""


def refused() -> ConnectionRefusedError:
    """Return what a socket raises where nobody listens."""
    return ConnectionRefusedError(ECONNREFUSED, strerror(ECONNREFUSED))


def _httpx(stack: ExitStack, hit: Hit) -> None:
    """Let requests fail on their way to the network, real or mocked.

    The transports of tests, which call an ASGI or WSGI app in this process, do not fail: such a
    request is the test's own.
    """
    import httpx  # noqa: PLC0415 - see above

    def check(_: object, request: httpx.Request) -> None:
        called = hide_in_text(f"{request.method} {request.url}")
        hit("httpx", called, lambda: httpx.ConnectError(REFUSED, request=request))

    put_check(stack, Place(httpx.HTTPTransport, "handle_request"), check)
    put_check(stack, Place(httpx.MockTransport, "handle_request"), check)
    put_check(stack, Place(httpx.AsyncHTTPTransport, "handle_async_request"), check)
    put_check(stack, Place(httpx.MockTransport, "handle_async_request"), check)


def _requests(stack: ExitStack, hit: Hit) -> None:
    import requests  # noqa: PLC0415 - see above

    def check(_: object, request: requests.PreparedRequest, **__: object) -> None:
        called = hide_in_text(f"{request.method} {request.url}")
        hit("requests", called, lambda: requests.ConnectionError(REFUSED, request=request))

    put_check(stack, Place(requests.Session, "send"), check)


def _redis(stack: ExitStack, hit: Hit) -> None:
    """Let commands fail, and pipelines as a whole; with no retry by the client, which takes long.

    The library's store is a target of its own, `store`, recognised by the mark on its connections.
    Commands of Celery's broker and result backend do not fail.
    """
    import redis.asyncio.cluster  # noqa: PLC0415 - see above
    import redis.cluster  # noqa: PLC0415 - see above

    from resilience.store.clients import StoreDriver  # noqa: PLC0415 - see above

    def check(client: Any, *command: object, **__: object) -> None:  # noqa: ANN401 - six classes
        options = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
        target = "redis"
        if isinstance(options.get("driver_info"), StoreDriver):
            target = "store"
        elif _is_of_celery("redis"):
            return
        where = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        text = f"Error {ECONNREFUSED} connecting to {where}. {strerror(ECONNREFUSED)}."
        named = command[0] if command and isinstance(command[0], str) else "pipeline"
        hit(target, named, lambda: redis.ConnectionError(text))

    for module in (redis.client, redis.asyncio.client):
        put_check(stack, Place(module.Redis, "execute_command"), check)
        put_check(stack, Place(module.PubSub, "execute_command"), check)
        put_check(stack, Place(module.Pipeline, "immediate_execute_command"), check)
        put_check(stack, Place(module.Pipeline, "execute"), check)
    for cluster in (redis.cluster, redis.asyncio.cluster):
        put_check(stack, Place(cluster.RedisCluster, "execute_command"), check)
        put_check(stack, Place(cluster.ClusterPipeline, "execute"), check)


def _sqlalchemy(stack: ExitStack, hit: Hit) -> None:
    """Let statements fail, of engines of both kinds.

    The library's ledger is a target of its own, `ledger`, recognised by an option of its engine.
    Statements of Celery's result backend do not fail.
    """
    from sqlalchemy import Connection, Engine, event  # noqa: PLC0415 - see above
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415 - see above

    def check(
        connection: Connection,
        _: object,
        statement: str,
        parameters: Any,  # noqa: ANN401 - as SQLAlchemy has them
        *__: object,
    ) -> None:
        target = "sqlalchemy"
        if connection.engine.get_execution_options().get("resilience_ledger"):
            target = "ledger"
        elif _is_of_celery("sqlalchemy"):
            return
        driver: Any = connection.dialect.loaded_dbapi

        def closed() -> Exception:
            return OperationalError(statement, parameters, driver.OperationalError(CLOSED))

        hit(target, statement, closed)

    event.listen(Engine, "before_cursor_execute", check)
    stack.callback(event.remove, Engine, "before_cursor_execute", check)


def _smtplib(stack: ExitStack, hit: Hit) -> None:
    import smtplib  # noqa: PLC0415 - see above

    def check_connect(
        _: object, host: str = "localhost", port: int = 0, *__: object, **___: object
    ) -> None:
        hit("smtplib", f"connect {host}:{port}", refused)

    def check_sendmail(client: smtplib.SMTP, *_: object, **__: object) -> None:
        def closed() -> Exception:
            client.close()  # as after a real loss: whoever goes on must connect again
            return smtplib.SMTPServerDisconnected("Connection unexpectedly closed")

        hit("smtplib", "sendmail", closed)

    put_check(stack, Place(smtplib.SMTP, "connect"), check_connect)
    put_check(stack, Place(smtplib.SMTP, "sendmail"), check_sendmail)


def _is_of_celery(client: str) -> bool:
    """Tell whether the nearest caller outside of the package *client* is a module of Celery."""
    frame = inspect.currentframe()
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}."
        if not module.startswith((f"{client}.", "resilience.chaos.")):
            return module.startswith(CELERY)
        frame = frame.f_back
    return False  # at the root of a greenlet


CLIENTS: Mapping[str, Callable[[ExitStack, Hit], None]] = {
    "httpx": _httpx,
    "requests": _requests,
    "redis": _redis,
    "sqlalchemy": _sqlalchemy,
    "smtplib": _smtplib,
}
"""Targets by default, each called as its package is; what makes its calls fail."""
OWN: Mapping[str, str] = {"store": "redis", "ledger": "sqlalchemy"}
"""The library's own connections: never by default, and the client that each goes through."""


def is_installed(client: str) -> bool:
    """Tell whether the package of *client* can be imported."""
    return find_spec(client) is not None
