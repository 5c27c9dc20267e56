"""A shop that breaks its promises on purpose, to see that the verdict notices."""

import json
from enum import StrEnum
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Sabotage(StrEnum):
    """What is wrong with the shop.

    Attributes:
        NONE: Nothing.
        ONE_WORKER: One worker serves the queues of all dependencies, so nothing keeps one that
            hangs from the others.
        SILENT: The front keeps to itself how degraded its answers are.
        FORGETFUL: The front does not say on whose behalf an order is looked at.
    """

    NONE = "none"
    ONE_WORKER = "one-worker"
    SILENT = "silent"
    FORGETFUL = "forgetful"


class SilentFront:
    """An ASGI app whose answers all claim to be in full: `uvicorn demo.silent:front` serves it."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the level out of the answers of *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the app does, but for what the answer says of itself."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message = {}

        async def send_silenced(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = _silenced(message["body"])
            length = (b"content-length", str(len(body)).encode())
            others = [one for one in start["headers"] if one[0] != b"content-length"]
            await send({**start, "headers": [*others, length]})
            await send({**message, "body": body})

        await self._app(scope, receive, send_silenced)


class ForgetfulFront:
    """An ASGI app in which nobody has an order of their own: `uvicorn demo.forgetful:front`."""

    def __init__(self, app: ASGIApp) -> None:
        """Take who asks out of the questions to *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the app does to somebody unknown."""
        if scope["type"] == "http" and scope["query_string"].startswith(b"user_id="):
            scope = {**scope, "query_string": b""}
        await self._app(scope, receive, send)


def _silenced(body: bytes) -> bytes:
    answer: Any = json.loads(body)
    if "_meta" in answer:
        answer["_meta"] = {"level": 0, "partial": False}
    return json.dumps(answer).encode()
