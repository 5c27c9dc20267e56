"""The HTTP API of the fault proxy, served in a thread, and a client of it."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from resilience.chaos.proxy.api import Api
from resilience.chaos.proxy.http import HttpServer
from resilience.chaos.proxy.listener import split_address
from resilience.chaos.proxy.proxies import Proxies
from resilience.testing.ports import LOCALHOST

SECONDS = 30.0


@contextmanager
def proxy_api() -> Iterator[int]:
    """Serve the HTTP API in a thread for the length of the block, and yield its port."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        proxies, stopped = Proxies(Random(1)), asyncio.Event()  # noqa: S311 - no secret
        server = HttpServer(Api(proxies).answer)
        port = split_address(await server.start(f"{LOCALHOST}:0"), "listen")[1]
        started.set_result((port, asyncio.get_running_loop(), stopped))
        await stopped.wait()
        await server.stop()
        await proxies.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, stopped = started.result(SECONDS)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(SECONDS)


class Answer(NamedTuple):
    """What the API answered, its body parsed."""

    status: int
    body: Any


class Client:
    """Sends requests to the API, all over one connection."""

    def __init__(self, port: int) -> None:
        """Connect at the first request."""
        self.port = port
        self._connection = http.client.HTTPConnection(LOCALHOST, port, timeout=SECONDS)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request; *body* is sent as JSON, bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        content = response.read()
        is_json = response.getheader("Content-Type") == "application/json"
        return Answer(response.status, json.loads(content) if is_json else content.decode())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
