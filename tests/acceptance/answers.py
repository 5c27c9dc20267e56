"""What the front's answers say of themselves."""

from collections.abc import Mapping
from typing import Any

import httpx

from resilience import Level


def level_of(answer: httpx.Response) -> Level:
    """Return the level that a successful answer says it has."""
    return Level(meta_of(answer)["level"])


def meta_of(answer: httpx.Response) -> Mapping[str, Any]:
    """Return what a successful answer says of itself."""
    assert answer.is_success, answer.text
    meta: Mapping[str, Any] = answer.json()["_meta"]
    return meta


def assert_problem(answer: httpx.Response, status: int) -> Mapping[str, Any]:
    """Return the problem document that an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: Mapping[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= document.keys()
    return document


def assert_unavailable(answer: httpx.Response, dependency: str) -> Mapping[str, Any]:
    """Return the level-4 answer that blames *dependency* and says when to come back."""
    document = assert_problem(answer, 503)
    assert document["dependency"] == dependency
    assert document["reasons"]
    assert int(answer.headers["Retry-After"]) >= 1
    return document
