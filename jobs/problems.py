"""Errors as problem documents (RFC 9457)."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.asking import NotServedError
from jobs.orders import UnknownError
from resilience.events.plain import shortened

RETRY_AFTER_SECONDS: Final = 5.0
"""When to come back if nobody said."""
FAULTS_MAX: Final = 5
"""So many mistakes of a request are named, and each in so many characters; the rest are counted."""
FAULT_LENGTH_MAX: Final = 200
BODY_BYTES_MAX: Final = 65_536
UNAVAILABLE: Final = "/problems/unavailable"


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> JSONResponse:
    """Return a problem document; *more* are members of its own."""
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": kind, "title": title, "status": status, "detail": detail, **more},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def explain_errors(front: FastAPI) -> None:
    """Make *front* answer every error, and a body without end, with a problem document."""
    front.add_middleware(BodyLimit)
    for kind in (NotServedError, UnknownError, RequestValidationError, HTTPException, Exception):
        front.add_exception_handler(kind, _explain)


async def _explain(_request: Request, error: Exception) -> JSONResponse:
    match error:
        case NotServedError():
            return _unavailable(error)
        case UnknownError():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case RequestValidationError():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _faults(error.errors()))
        case HTTPException():
            return problem(error.status_code, error.detail, headers=error.headers)
        case _:
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a defect of the shop.")


def _faults(errors: Sequence[Mapping[str, Any]]) -> str:
    """Say what is wrong, in few words even if a request has thousands of mistakes."""
    named = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors[:FAULTS_MAX]]
    more = [f"and {len(errors) - FAULTS_MAX} more"] if len(errors) > FAULTS_MAX else []
    return "; ".join([*(shortened(one, FAULT_LENGTH_MAX) for one in named), *more])


class BodyLimit:
    """Answers 413 to a request whose body is too long, of which it reads no more than the limit."""

    def __init__(self, app: ASGIApp) -> None:
        """Protect *app*, which answers an `HTTPException` that is raised while it reads."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        length = 0

        async def read() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > BODY_BYTES_MAX:
                detail = f"the body of a request may have {BODY_BYTES_MAX} bytes"
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            return message

        await self._app(scope, read, send)


def _unavailable(error: NotServedError) -> JSONResponse:
    why = "; ".join(f"{part}: {reason}" for part, reason in error.reasons.items())
    wait = RETRY_AFTER_SECONDS if error.retry_after is None else error.retry_after
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"no answer from {error.dependency} ({why})",
        kind=UNAVAILABLE,
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
        dependency=error.dependency,
        reasons=error.reasons,
        **error.facts,
    )
