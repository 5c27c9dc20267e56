"""Web answers from outcomes, as docs/migrating.md has them."""

import asyncio
import json
from typing import Any

import django.conf
import httpx
import pytest
from celery import Celery
from django.http import JsonResponse
from fastapi import FastAPI
from flask import Flask

from resilience import Level, Outcome, PartialResponse, ResilientTask
from tests.integration.test_docs import Alone, run_page

PARTIAL = PartialResponse(data={"price": 5}, missing=["stock"], reasons={"stock": "ReadTimeout"})
ANSWERS = [
    pytest.param(Outcome(value={"price": 5}), id="full"),
    pytest.param(Outcome(value=[1], level=Level.STALE, reason="OSError", age=4.5), id="stale"),
    pytest.param(Outcome(value={"inner": Outcome(value=1)}, level=Level.REDUCED), id="nested"),
    pytest.param(Outcome(value=PARTIAL, level=Level.REDUCED), id="partial-inside"),
    pytest.param(PARTIAL, id="partial"),
]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page leaves."""
    if not django.conf.settings.configured:
        django.conf.settings.configure()
    app: Celery[Any] = Alone("page", task_cls=ResilientTask, set_as_current=False)
    return run_page("migrating.md", app=app, JsonResponse=JsonResponse)


def from_fastapi(page: dict[str, Any], answer: object) -> Any:  # noqa: ANN401 - any JSON
    """Return what a client of FastAPI gets."""
    app = FastAPI()
    app.get("/")(lambda: page["fastapi_view"](answer))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.get("/")

    response = asyncio.run(ask())
    assert response.status_code == 200
    return response.json()


def from_flask(page: dict[str, Any], answer: object) -> Any:  # noqa: ANN401 - any JSON
    """Return what a client of Flask gets."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: page["flask_view"](answer))
    response = app.test_client().get("/")
    assert response.status_code == 200
    return response.json


def from_django(page: dict[str, Any], answer: object) -> Any:  # noqa: ANN401 - any JSON
    """Return what a client of Django gets."""
    response = page["django_view"](answer)
    assert response.status_code == 200
    return json.loads(response.content)


@pytest.mark.parametrize("client", [from_fastapi, from_flask, from_django])
@pytest.mark.parametrize("answer", ANSWERS)
def test_answer_is_json_in_one_line(page: dict[str, Any], client: Any, answer: Any) -> None:  # noqa: ANN401
    """Each framework sends the one document, levels as numbers and answers within as the same."""
    document = client(page, answer)

    assert document == json.loads(json.dumps(answer.to_dict())) == answer.to_json()
    assert document["_meta"]["level"] == int(answer.level)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answer_itself_is_no_json(answer: object) -> None:
    """Why the line is needed: encoders do not know these types, as they know no other of ours."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(answer)


def test_page_shows_how_a_plain_task_sees_the_level(page: dict[str, Any]) -> None:
    """A guess makes no offer, and a real price does."""
    task = page["send_offer"]

    for level, offered in ((0, [7, 5]), (1, [7, 5]), (3, None)):
        headers = {"resilience-level": {"level": level}}
        result = task.apply((5,), headers=headers)
        value = result.get()
        value = value.value if isinstance(value, Outcome) else value
        assert (value and list(value)) == offered
