"""The shop's front, asked by clients that send too much."""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
from celery import Celery

from jobs.dependencies import DEPENDENCIES
from jobs.features import FEATURES
from jobs.problems import BODY_BYTES_MAX
from jobs.web import create_front
from resilience import Resilience
from tests.acceptance.answers import assert_problem

ANSWER_BYTES_MAX = 4_000
HEAD = {"Content-Type": "application/json"}


def answer_to(content: bytes | AsyncIterator[bytes]) -> httpx.Response:
    """Return what the front answers to an order."""

    async def ask() -> httpx.Response:
        app: Celery[object] = Celery("shop", broker="memory://", set_as_current=False)
        adopted = Resilience(app, dependencies=DEPENDENCIES, features=FEATURES)
        front = httpx.ASGITransport(create_front(adopted))
        async with httpx.AsyncClient(transport=front, base_url="http://shop") as http:
            return await http.post("/orders", content=content, headers=HEAD)

    return asyncio.run(ask())


class Endless:
    """A body of 20 MB; notes how much of it was read."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces."""
        for _ in range(2_000):
            self.read += 10_000
            yield b"[" * 10_000


@pytest.mark.parametrize("declared", [True, False])
def test_long_body_is_refused_and_not_read(*, declared: bool) -> None:
    """Whether the client says how long it is or not."""
    body = Endless()

    assert_problem(answer_to(b"[" * 20_000_000 if declared else aiter(body)), 413)

    assert body.read <= BODY_BYTES_MAX + 10_000


ORDER = {"user_id": 7, "product_id": 9, "quantity": 2}
MISTAKES = {
    "thousands-of-keys": json.dumps(ORDER | {f"k{i}": i for i in range(4_000)}).encode(),
    "long-key": json.dumps(ORDER | {"k" * 60_000: 1}).encode(),
    "long-text": json.dumps(ORDER | {"quantity": "9" * 60_000}).encode(),
    "long-number": b'{"user_id": ' + b"9" * 60_000 + b"}",
    "deep": b'{"user_id": ' + b"[" * 60_000,
    "text": b'"' + b"\xf0\x9f\x98\x80" * 10_000 + b'"',
    "no-text": b"\xff" * 60_000,
}
"""Bodies that are as wrong as they can be, and short enough to be read."""


@pytest.mark.parametrize("body", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_of_a_client_are_named_in_few_words(body: bytes) -> None:
    """However many there are: what a client sends does not come back to it."""
    answer = answer_to(body)

    assert answer.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}
    assert_problem(answer, answer.status_code)
    assert len(answer.content) < ANSWER_BYTES_MAX


def test_mistakes_that_are_not_named_are_counted() -> None:
    """The first five are named."""
    body = json.dumps({f"k{i}": i for i in range(17)}).encode()

    said = assert_problem(answer_to(body), 422)["detail"]

    assert said.startswith("body.user_id: Field required; ")
    assert said.endswith("; and 15 more")
