"""The HTTP API of Toxiproxy 2.12, and the proxies that it steers.

Source: https://github.com/Shopify/toxiproxy#http-api and its `api.go`.
"""

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from random import Random
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import unquote

from resilience.chaos.proxy.addresses import listen_on
from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.fault_proxy import FaultProxy
from resilience.chaos.proxy.toxic import ProxyOrder, fields_of

VERSION = "2.12.0"
"""Of Toxiproxy, for clients that ask which API they talk to."""
BROWSER = "Mozilla/"
"""Begin of the User-Agent of browsers: a web page must not steer the proxies of its reader."""
BODY_BYTES_MAX = 1_048_576
IDLE_SECONDS = 60.0
"""Longest wait for the next bytes of a client."""
CLOSE_SECONDS = 1.0
"""Longest wait for a client to close its connection after the last answer."""
SIZE = re.compile("[0-9]{1,16}")
PATHS = re.compile("/(version|reset|populate|proxies(/[^/]+(/toxics(/[^/]+)?)?)?)")


class Proxies(dict[str, FaultProxy]):
    """The proxies of a server, by name."""

    def __init__(self, seed: int | None = None) -> None:
        """Have none yet; *seed* is for toxicity, jitter and sizes."""
        self._random = Random(seed)  # noqa: S311 - no secret
        self._lock = threading.Lock()

    def __missing__(self, name: str) -> FaultProxy:
        msg = "proxy not found"
        raise ProxyError(msg, HTTPStatus.NOT_FOUND)

    def create(self, order: ProxyOrder) -> FaultProxy:
        """Return a new proxy, with its toxics.

        Raises:
            ProxyError: The name exists, a toxic or an address is wrong, or it cannot listen there.
        """
        if order.name in self:
            msg = "proxy already exists"
            raise ProxyError(msg, HTTPStatus.CONFLICT)
        proxy = FaultProxy(**order.model_dump(), seed=self._random.getrandbits(64))
        self[order.name] = proxy
        return proxy

    def populate(self, orders: object) -> Iterator[FaultProxy]:
        """Yield a proxy for each of an array: the existing one if its addresses are the same.

        Raises:
            ProxyError: It is no such array, or as in `create`; the proxies yielded before stay.
        """
        if not isinstance(orders, list):
            msg = f"bad request body: a JSON array is needed, got {type(orders).__name__}"
            raise ProxyError(msg)
        for order in [ProxyOrder.parse(one, f" at proxy {i}") for i, one in enumerate(orders, 1)]:
            existing = self.get(order.name)
            if existing and not existing.differs(order.listen, order.upstream):
                yield existing
                continue
            if existing:
                self.delete(order.name)
            yield self.create(order)

    def delete(self, name: str) -> None:
        """Close a proxy and its connections, and forget it.

        Raises:
            ProxyError: There is none of that name.
        """
        self[name].close()
        del self[name]

    def close(self) -> None:
        """Close all proxies and their connections."""
        for proxy in self.values():
            proxy.close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Do what a request asks for; return the status of the answer, and its content.

        Raises:
            ProxyError: The request cannot be fulfilled; the error has a status of its own.
        """
        path = path.partition("?")[0]
        if not PATHS.fullmatch(path):
            return HTTPStatus.NOT_FOUND, "404 page not found\n"
        with self._lock:
            content = self._content(method, [unquote(part) for part in path.split("/")[1:]], body)
        if content is None:
            return HTTPStatus.NO_CONTENT, ""
        created = method == "POST" and path in {"/proxies", "/populate"}
        return HTTPStatus.CREATED if created else HTTPStatus.OK, content

    def _content(  # noqa: C901, PLR0911, PLR0912 - a case for each request of the API
        self, method: str, parts: list[str], body: bytes
    ) -> object:
        match method, *parts:
            case "GET", "version":
                return {"version": VERSION}
            case "POST", "reset":
                for proxy in self.values():
                    proxy.reset()
            case "POST", "populate":
                return self._populate(parse_json(body))
            case "GET", "proxies":
                return {name: proxy.view for name, proxy in self.items()}
            case "POST", "proxies":
                return self.create(ProxyOrder.parse(parse_json(body))).view
            case "GET", "proxies", name:
                return self[name].view
            case "POST" | "PATCH", "proxies", name:
                return _update(self[name], parse_json(body))
            case "DELETE", "proxies", name:
                self.delete(name)
            case "GET", "proxies", name, "toxics":
                return self[name].view["toxics"]
            case "POST", "proxies", name, "toxics":
                return self[name].add_toxic(parse_json(body)).view
            case "GET", "proxies", name, "toxics", toxic:
                return self[name].toxic(toxic).view
            case "POST" | "PATCH", "proxies", name, "toxics", toxic:
                return self[name].update_toxic(toxic, parse_json(body)).view
            case "DELETE", "proxies", name, "toxics", toxic:
                self[name].remove(toxic)
            case _:
                msg = "method not allowed"
                raise ProxyError(msg, HTTPStatus.METHOD_NOT_ALLOWED)
        return None

    def _populate(self, orders: object) -> object:
        views: list[dict[str, Any]] = []
        try:
            views.extend(proxy.view for proxy in self.populate(orders))
        except ProxyError as error:
            raise ProxyError(error.message, error.status, proxies=views or None) from error
        return {"proxies": views or None}


def _update(proxy: FaultProxy, body: object) -> dict[str, Any]:
    """Change addresses of a proxy, or enable or disable it; return what it is then."""
    order = ProxyOrder.parse({**proxy.view, **fields_of(body)})
    if proxy.differs(order.listen, order.upstream):
        proxy.disable()
        proxy.listen, proxy.upstream = order.listen, order.upstream
    (proxy.enable if order.enabled else proxy.disable)()
    return proxy.view


class ApiServer(ThreadingTCPServer):
    """Answers the requests of clients, each connection in a thread of its own.

    Attributes:
        address: `host:port` where it listens.
    """

    daemon_threads = True

    def __init__(self, address: str, proxies: Proxies) -> None:
        """Listen on *address*.

        Raises:
            ProxyError: It cannot listen there.
        """
        listening, self.address = listen_on(address)
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.proxies = proxies

    def handle_error(self, *request: Any) -> None:  # noqa: ANN401 - of the base class
        """Print what went wrong, unless a client has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*request)


class _Handler(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    server: ApiServer
    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS

    def answer(self) -> None:
        """Read a request, and answer it."""
        size = self.headers.get("Content-Length", "0")
        if self.headers.get("User-Agent", "").startswith(BROWSER):
            self.close_connection = True
            self.reply(HTTPStatus.FORBIDDEN, "User agent not allowed\n")
        elif "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED, "send the body with a Content-Length")
        elif self.headers.defects or not SIZE.fullmatch(size):
            self.send_error(HTTPStatus.BAD_REQUEST, "malformed request")
        elif int(size) > BODY_BYTES_MAX:
            most = f"the body of a request may have {BODY_BYTES_MAX} bytes, not {size}"
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, most)
        else:
            body = self.rfile.read(int(size))
            try:
                self.reply(*self.server.proxies.answer(self.command, self.path, body))
            except ProxyError as error:
                self.reply(error.status, error.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - of the base class

    def reply(self, status: int, content: object) -> None:
        """Send an answer."""
        is_text = isinstance(content, str)
        body = (str(content) if is_text else json.dumps(content)).encode()
        self.send_response(status)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != HTTPStatus.NO_CONTENT:
            kind = "text/plain; charset=utf-8" if is_text else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(
        self, code: int, message: str | None = None, _explain: str | None = None
    ) -> None:
        """Answer a request that is none, and close the connection."""
        self.close_connection = True
        self.reply(code, ProxyError(message or HTTPStatus(code).phrase, code).content)

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def finish(self) -> None:
        """Wait for the client to close: a reset because of unread data may destroy the answer."""
        super().finish()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(CLOSE_SECONDS)
            while self.connection.recv(BODY_BYTES_MAX):
                pass


def parse_json(body: bytes) -> object:
    """Return the value of which *body* is the JSON.

    Raises:
        ProxyError: It is no JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"bad request body: {error}"
        raise ProxyError(msg) from error
