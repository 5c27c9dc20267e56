"""As much of an HTTP/1.1 server (RFC 9112) as the API needs; what it reads is bounded."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, parse_headers
from io import BytesIO
from typing import NamedTuple

from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.listener import Listener, Streams

HEAD_BYTES_MAX = 32_768
BODY_BYTES_MAX = 1_048_576
IDLE_SECONDS = 60.0
"""Longest wait for a request on an open connection."""
READ_SECONDS = 15.0
"""Longest wait for the body of a request, and for a client to take an answer."""
CLOSE_SECONDS = 1.0
"""Longest wait for a client to close its connection after the last answer."""
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.([01])\r\n")
SIZE = re.compile(r"[0-9]{1,16}")


class Request(NamedTuple):
    """A request, read in full; its path may have a query."""

    method: str
    path: str
    headers: HTTPMessage
    body: bytes
    keeps_open: bool


class Response(NamedTuple):
    """An answer; its content is sent as JSON, a string as plain text."""

    status: int
    content: object = ""


class HttpServer:
    """Answers requests with a handler, one after the other on each connection."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._handler = handler
        self._listener = Listener(self._serve, HEAD_BYTES_MAX)
        self.start = self._listener.start
        self.stop = self._listener.stop

    async def _serve(self, streams: Streams) -> None:
        reader, writer = streams
        keeps_open = True
        while keeps_open:
            try:
                request = await read_request(reader)
            except ProxyError as error:
                keeps_open, response = False, failure(error)
            else:
                keeps_open, response = request.keeps_open, await self._handler(request)
            writer.write(encode(response, keeps_open=keeps_open))
            async with asyncio.timeout(READ_SECONDS):
                await writer.drain()
        # A connection that is closed with unread data is reset, which may destroy the answer.
        writer.write_eof()
        async with asyncio.timeout(CLOSE_SECONDS):
            while await reader.read(HEAD_BYTES_MAX):
                pass


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read a request.

    Raises:
        ProxyError: It is malformed or too large.
        asyncio.IncompleteReadError: The client closed the connection.
        TimeoutError: It did not come in time.
    """
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        match = REQUEST_LINE.match(head)
        headers = parse_headers(BytesIO(head[match.end() :])) if match else HTTPMessage()
    except (asyncio.LimitOverrunError, HTTPException):
        msg = f"the head of a request may have 100 headers and {HEAD_BYTES_MAX} bytes"
        raise ProxyError(msg, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    size = headers.get("Content-Length", "0")
    if match is None or headers.defects or not SIZE.fullmatch(size):
        msg = f"malformed request {head[:100]!r}"
        raise ProxyError(msg)
    if "Transfer-Encoding" in headers:
        msg = "send the length of the body as Content-Length"
        raise ProxyError(msg, HTTPStatus.LENGTH_REQUIRED)
    if int(size) > BODY_BYTES_MAX:
        msg = f"the body of a request may have {BODY_BYTES_MAX} bytes, not {size}"
        raise ProxyError(msg, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    async with asyncio.timeout(READ_SECONDS):
        body = await reader.readexactly(int(size))
    method, path, minor = (part.decode() for part in match.groups())
    connection = headers.get("Connection", "keep-alive" if minor == "1" else "close")
    return Request(method, path, headers, body, connection.lower() == "keep-alive")


def encode(response: Response, *, keeps_open: bool) -> bytes:
    """Return the bytes of an answer."""
    status, content = HTTPStatus(response.status), response.content
    is_text = isinstance(content, str)
    body = str(content) if is_text else json.dumps(content)
    lines = [
        f"HTTP/1.1 {status} {status.phrase}",
        f"Connection: {'keep-alive' if keeps_open else 'close'}",
    ]
    if status is not HTTPStatus.NO_CONTENT:
        kind = "text/plain; charset=utf-8" if is_text else "application/json"
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}"]
    return "\r\n".join([*lines, "", body]).encode()


def failure(error: ProxyError, **more: object) -> Response:
    """Return the answer to a request that cannot be fulfilled, with *more* fields."""
    return Response(error.status, {"error": error.message, "status": int(error.status), **more})
