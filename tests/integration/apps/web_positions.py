"""Web processes that read from a replica which never gets on, unless a session needs more.

`python -m tests.integration.apps.web_positions asgi|wsgi PORT` serves one. What it writes is a
number in the store, which plays the primary.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from wsgiref.simple_server import make_server

import flask
import uvicorn
from celery import Celery
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.util import await_only

from resilience import Resilience
from resilience.consistency import ConsistentSession, Mark, Position, current_session
from resilience.consistency.middleware import PositionMiddleware, WsgiPositionMiddleware
from resilience.testing.ports import LOCALHOST

SOURCE = "main"
LINE = "7/1"
OPTIONS: dict[str, Any] = {"secret": os.environ["TEST_SECRETS"].split(","), "header": "X-Position"}  # noqa: TID251 - an entry point
resilience = Resilience(Celery("web", set_as_current=False), dependencies=[])


def _user(request: dict[str, Any]) -> str | None:
    if "headers" not in request:
        return request.get("HTTP_X_USER")
    return next((value.decode() for name, value in request["headers"] if name == b"x-user"), None)


KEYED = {"session_key": _user} if "TEST_KEYED" in os.environ else {}  # noqa: TID251 - as above


def session() -> ConsistentSession:
    """Return the session of the request."""
    found = current_session()
    assert found is not None
    return found


def seen(number: int) -> Position:
    """Return the position of that many writes."""
    return Position.at(LINE, number, known=resilience.fleet_time())


def write() -> dict[str, Any]:
    """Write to the primary."""
    store = resilience.store
    number = int(store.run(lambda client: client.incr(store.key("written"))))
    session().note(SOURCE, seen(number))
    return {"written": number}


def read(key: str | None = None) -> dict[str, Any]:
    """Read *key*, or all, from the replica, which has replayed nothing, or from the primary."""
    needed = session().needed(SOURCE, () if key is None else (key,))
    covered = Position.at(LINE, 0).covers(needed)
    lost = session().is_unknown(SOURCE)
    return {"from": "replica" if covered and not lost else "primary", "key": session().key}


class Asked:
    """Finds out a position, and is to be called in one way only."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def __call__(self) -> Position:
        """Find it out."""
        if self.asynchronous:
            await_only(asyncio.sleep(0))  # raises where no greenlet of SQLAlchemy runs
        else:
            assert threading.current_thread() is not threading.main_thread()
        return seen(1)


def broken() -> Position:
    """Fail as a driver may."""
    msg = "no such column"
    raise RuntimeError(msg)


def note_many() -> dict[str, Any]:
    """Write more keys than a cookie has room for."""
    for number in range(100):
        session().note(SOURCE, seen(number), keys=[f"{number}{'x' * 80}"])
    return {}


def mark(lag: float | None) -> dict[str, Any]:
    """Answer with something old."""
    session().mark(Mark(source=SOURCE, reason="the primary is down", lag_seconds=lag))
    return {}


def make_asgi() -> FastAPI:
    """Return the ASGI app."""
    app = FastAPI()
    app.add_middleware(PositionMiddleware, now=resilience.fleet_time, **OPTIONS, **KEYED)
    app.post("/write")(write)  # in a thread
    app.get("/read")(read)
    app.get("/many")(note_many)
    app.get("/stale")(mark)

    @app.get("/nothing")
    async def nothing() -> dict[str, Any]:
        return {}

    @app.get("/asked/{how}")
    async def asked(how: str) -> dict[str, Any]:
        measure = broken if how == "broken" else Asked(asynchronous=how == "async")
        session().note_read(SOURCE, measure)
        return {}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        write()

        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                await asyncio.sleep(0)
                yield f"{session().key}\n"

        return StreamingResponse(parts())

    return app


def make_wsgi() -> Any:  # noqa: ANN401 - a WSGI app
    """Return the WSGI app; it refuses to serve in a thread with somebody's session."""
    app = flask.Flask("web")
    app.post("/write")(write)
    app.get("/many")(note_many)
    app.get("/nothing")(dict)

    @app.get("/read")
    def read_here() -> dict[str, Any]:
        return read(flask.request.args.get("key"))

    @app.get("/stale")
    def stale() -> dict[str, Any]:
        return mark(flask.request.args.get("lag", type=float))

    @app.get("/asked/broken")
    def asked() -> dict[str, Any]:
        session().note_read(SOURCE, broken)
        return {}

    @app.get("/stream")
    def stream() -> flask.Response:
        write()
        return flask.Response(f"{session().key}\n" for _ in range(3))

    inner = WsgiPositionMiddleware(app.wsgi_app, now=resilience.fleet_time, **OPTIONS, **KEYED)

    def outer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:  # noqa: ANN401 - the server's
        assert current_session() is None
        body = inner(environ, start_response)
        assert current_session() is None
        return body

    return outer


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "asgi":
        uvicorn.run(make_asgi(), host=LOCALHOST, port=port, access_log=False)
    else:
        with make_server(LOCALHOST, port, make_wsgi()) as server:
            print("Uvicorn running, so to speak", flush=True)  # noqa: T201 - to be waited for
            server.serve_forever()
