"""The shops that break a promise on purpose: each that one, and no more."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from demo.layout import Layout
from demo.sabotage import ForgetfulFront, Sabotage, SilentFront
from jobs.dependencies import DEPENDENCIES

QUEUES = {queue for one in DEPENDENCIES for queue in one.queues}


def consumed(layout: Layout) -> dict[str, set[str]]:
    """Return the queues of every worker of *layout*."""
    commands = {one.name: list(one.command) for one in layout.programs()}
    return {
        name: set(words[words.index("-Q") + 1].split(","))
        for name, words in commands.items()
        if "-Q" in words
    }


@pytest.mark.parametrize("sabotage", Sabotage)
def test_every_queue_has_a_worker_and_the_control_has_its_own(
    sabotage: Sabotage, tmp_path: Path
) -> None:
    """No shop leaves a queue alone; none lets a dependency make the control late."""
    workers = consumed(Layout.anywhere(tmp_path, sabotage=sabotage))

    assert workers.pop("worker-default") == {"celery"}
    assert set().union(*workers.values()) == QUEUES
    assert len(workers) == (1 if sabotage is Sabotage.ONE_WORKER else len(DEPENDENCIES))


def test_layout_crosses_a_command_line(tmp_path: Path) -> None:
    """The supervisor reads back what the demo wrote, sabotage included."""
    layout = Layout.anywhere(tmp_path, sabotage=Sabotage.ONE_WORKER)

    assert Layout.from_json(layout.to_json()) == layout


async def ask(app: ASGIApp, path: str = "/") -> httpx.Response:
    """Return the answer of *app* to GET *path*."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as front:
        return await front.get(path)


def test_silent_front_hides_how_degraded_an_answer_is() -> None:
    """Everything else of an answer stays as it was."""

    async def answer(request: Request) -> Response:
        del request
        meta = {"level": 3, "partial": True, "reason": "CircuitOpenError"}
        return JSONResponse({"data": [7], "_meta": meta}, headers={"X-Shop": "ours"})

    app = SilentFront(Starlette(routes=[Route("/", answer)]))
    answered = asyncio.run(ask(app))

    assert answered.json() == {"data": [7], "_meta": {"level": 0, "partial": False}}
    assert answered.headers["X-Shop"] == "ours"


def test_forgetful_front_hides_who_looks_at_an_order() -> None:
    """Other questions are passed on as they were asked."""

    async def answer(request: Request) -> Response:
        return JSONResponse(dict(request.query_params))

    app = ForgetfulFront(Starlette(routes=[Route("/", answer)]))

    assert asyncio.run(ask(app, "/?user_id=7")).json() == {}
    assert asyncio.run(ask(app, "/?q=oak")).json() == {"q": "oak"}
