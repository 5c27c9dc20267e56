"""The HTTP API of the fault proxy, served in a thread, and a client of it."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from resilience.chaos.proxy.addresses import split_address
from resilience.chaos.proxy.api import ApiServer, Proxies
from resilience.testing.ports import LOCALHOST

SECONDS = 30.0


@contextmanager
def proxy_api() -> Iterator[int]:
    """Serve the HTTP API in a thread for the length of the block, and yield its port."""
    proxies = Proxies(seed=1)
    with ApiServer(f"{LOCALHOST}:0", proxies) as server:
        # It looks for the end of the block every 10 ms.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield split_address(server.address, "listen")[1]
        finally:
            server.shutdown()
            thread.join(SECONDS)
            proxies.close()


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
