"""Errors as problem documents (RFC 9457)."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from jobs.asking import NotServedError
from jobs.orders import UnknownError

RETRY_AFTER_SECONDS: Final = 5.0
"""When to come back if nobody said."""
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
    """Make *front* answer every error with a problem document."""
    for kind in (NotServedError, UnknownError, RequestValidationError, HTTPException, Exception):
        front.add_exception_handler(kind, _explain)


async def _explain(_request: Request, error: Exception) -> JSONResponse:
    match error:
        case NotServedError():
            return _unavailable(error)
        case UnknownError():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case RequestValidationError():
            wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(wrong))
        case HTTPException():
            return problem(error.status_code, error.detail, headers=error.headers)
        case _:
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a defect of the shop.")


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
