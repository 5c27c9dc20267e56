"""A web user finds their row through another process, whose replica does not have it yet."""

import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from resilience.clock import SystemClock
from resilience.consistency.middleware import PositionMiddleware, WsgiPositionMiddleware
from resilience.databases import Databases
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Note, Stage, answered, read, running_stage, write

OPTIONS: dict[str, Any] = {"secret": "s" * 16, "now": SystemClock.now}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A primary and a replica."""
    with running_stage() as stage:
        yield stage


@contextmanager
def running_asgi(databases: Databases) -> Iterator[str]:
    """Serve *databases* by AsyncSessions; yield where."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await databases.aclose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(PositionMiddleware, **OPTIONS)

    @app.post("/notes")
    async def write_note() -> int:
        async with databases.AsyncSession() as session, session.begin():
            note = Note(body="mine")
            session.add(note)
            await session.flush()
            return note.id

    @app.get("/notes/{note}")
    async def read_note(note: int) -> list[str | None]:
        async with databases.AsyncSession() as session:
            return list(await session.run_sync(answered, note))

    @app.get("/threads/notes/{note}")
    def read_in_thread(note: int) -> list[str | None]:
        return list(read(databases, note))

    port = free_port()
    config = uvicorn.Config(app, host=LOCALHOST, port=port, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    with _beside(server.run, lambda: setattr(server, "should_exit", True)):
        wait_until(lambda: server.started, SECONDS, "it serves")
        yield f"http://{LOCALHOST}:{port}"


class _Threads(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = False


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_wsgi(databases: Databases) -> Iterator[str]:
    """Serve *databases* by Sessions, in threads; yield where."""
    app = flask.Flask("web")
    app.post("/notes", endpoint="write")(lambda: str(write(databases, "mine")))
    app.get("/notes/<int:note>")(lambda note: list(read(databases, note)))
    served = WsgiPositionMiddleware(app.wsgi_app, **OPTIONS)
    options: dict[str, Any] = {"server_class": _Threads, "handler_class": _Quiet}
    with (
        make_server(LOCALHOST, 0, served, **options) as server,
        _beside(server.serve_forever, server.shutdown),
    ):
        yield f"http://{LOCALHOST}:{server.server_port}"


@contextmanager
def _beside(run: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(SECONDS)


@pytest.fixture(scope="module")
def web(stage: Stage) -> Iterator[dict[str, str]]:
    """Where each server is; each has databases of its own, as a process has."""
    options = {"wait_seconds": 0.05, "primary_fallback_share": 1.0, "max_lag_seconds": 600.0}
    with (
        running_asgi(stage.databases(**options)) as asgi,
        running_wsgi(stage.databases(**options)) as wsgi,
    ):
        for warm in (f"{asgi}/notes", f"{wsgi}/notes"):
            assert httpx.post(warm, timeout=SECONDS).status_code == 200
        stage.level()
        yield {"asgi": f"{asgi}/notes", "wsgi": f"{wsgi}/notes", "threads": f"{asgi}/threads/notes"}


@pytest.mark.parametrize("reads_at", ["asgi", "wsgi", "threads"])
@pytest.mark.parametrize("writes_at", ["asgi", "wsgi"])
def test_own_row_is_found_through_another_process(
    stage: Stage, web: dict[str, str], writes_at: str, reads_at: str
) -> None:
    """While the replica gets nothing; who has not written it does not see it there yet."""
    with (
        stage.stalled(),
        httpx.Client(timeout=SECONDS) as ann,
        httpx.Client(timeout=SECONDS) as bob,
    ):
        note = int(ann.post(web[writes_at]).text)
        url = f"{web[reads_at]}/{note}"
        assert ann.get(url).json() == ["mine", "primary"]
        assert bob.get(url).json() == [None, "replica"]
        assert ann.get(url).json() == ["mine", "primary"]
