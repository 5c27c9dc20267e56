"""What all upstream services have in common over HTTP.

`PUT /fault {"mode": "slow", "latency_seconds": 1.5}`, `GET /fault` and `DELETE /fault` steer
the fault, `GET /stats` counts what it did, and `GET /health` says that the process is up. No
fault touches these. Errors are problem documents (RFC 9457).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from http import HTTPStatus
from typing import Final, Protocol

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.upstreams.fault import Fault, FaultMode, FaultSwitch

RETRY_AFTER_SECONDS: Final = 5

_CONTROL_PATHS: Final = frozenset({"/fault", "/health", "/stats"})


class Lifespan(Protocol):
    """What else lives as long as a service does."""

    def __call__(self, app: Starlette, /) -> AbstractAsyncContextManager[None]:
        """Return what to enter at the start and to leave at the end."""


class FaultMiddleware:
    """Does to every call but the control surface what the switch says."""

    def __init__(self, app: ASGIApp, switch: FaultSwitch) -> None:
        """Put *switch* before *app*."""
        self._app = app
        self._switch = switch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the app, with 503, or not until the switch lets go."""

        async def gone() -> None:
            # Consumes the body too: no matter, a call that hangs never reaches the app.
            while (await receive())["type"] != "http.disconnect":
                pass

        answer: ASGIApp = self._app
        is_call = scope["type"] == "http" and scope["path"] not in _CONTROL_PATHS
        if is_call and not await self._switch.admit(gone):
            answer = self._failure()
        # A client that gave up while the fault held its call: nobody is left to be answered.
        with suppress(ClientDisconnect):
            await answer(scope, receive, send)

    def _failure(self) -> Response:
        """Return a 503; a call that hung until the service was repaired need not wait for more."""
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        fails = self._switch.fault.mode is not FaultMode.OK
        detail = "This service is told to fail."
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers if fails else None)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem document with the standard title of *status*."""
    return JSONResponse(
        {"status": status, "title": HTTPStatus(status).phrase, "detail": detail},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def faulty_service(switch: FaultSwitch, routes: Sequence[Route]) -> Starlette:
    """Return an HTTP service whose *routes* are subject to the fault."""
    return Starlette(
        routes=[*routes, *_control_routes(switch)],
        middleware=[Middleware(FaultMiddleware, switch=switch)],
        exception_handlers=_EXPLANATIONS,
    )


def control_service(switch: FaultSwitch, routes: Sequence[Route], lifespan: Lifespan) -> Starlette:
    """Return the HTTP side of a service that is called over another protocol."""
    return Starlette(
        routes=[*routes, *_control_routes(switch)],
        lifespan=lifespan,
        exception_handlers=_EXPLANATIONS,
    )


def _control_routes(switch: FaultSwitch) -> list[Route]:
    async def get_fault(_request: Request) -> Response:
        return JSONResponse(switch.fault.model_dump(mode="json"))

    async def put_fault(request: Request) -> Response:
        switch.put(Fault.model_validate_json(await request.body()))
        return await get_fault(request)

    async def lift_fault(request: Request) -> Response:
        switch.lift()
        return await get_fault(request)

    async def get_stats(_request: Request) -> Response:
        return JSONResponse(switch.stats)

    async def get_health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return [
        Route("/fault", get_fault),
        Route("/fault", put_fault, methods=["PUT"]),
        Route("/fault", lift_fault, methods=["DELETE"]),
        Route("/stats", get_stats),
        Route("/health", get_health),
    ]


async def _explain(_request: Request, error: Exception) -> Response:
    match error:
        case ValidationError():
            found = (
                f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()
            )
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(found))
        case HTTPException():
            return problem(error.status_code, error.detail, error.headers)
        case _:
            raise error


_EXPLANATIONS: Final = {HTTPException: _explain, ValidationError: _explain}
