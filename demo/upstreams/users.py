"""The accounts of the shop: who a user is, and what waits for them."""

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.upstreams.control import faulty_service
from demo.upstreams.fault import FaultSwitch
from jobs import catalogue


def create_app(switch: FaultSwitch) -> Starlette:
    """Return the service; *switch* breaks it."""
    return faulty_service(
        switch,
        [
            Route("/users/{user_id:int}", _get_user),
            Route("/users/{user_id:int}/segment", _get_segment),
            Route("/users/{user_id:int}/notifications", _get_notifications),
        ],
    )


def _requested_user(request: Request) -> catalogue.UserFacts:
    try:
        return catalogue.user(request.path_params["user_id"])
    except LookupError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error


async def _get_user(request: Request) -> Response:
    return JSONResponse(_requested_user(request)._asdict())


async def _get_segment(request: Request) -> Response:
    return JSONResponse({"segment": _requested_user(request).segment})


async def _get_notifications(request: Request) -> Response:
    return JSONResponse(catalogue.notifications(_requested_user(request).id))
