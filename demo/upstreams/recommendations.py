"""What to show to whom: lists of product ids, the best first."""

from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.upstreams.control import faulty_service
from demo.upstreams.fault import FaultSwitch
from jobs import catalogue

LIST_LENGTH: Final = 10


def create_app(switch: FaultSwitch) -> Starlette:
    """Return the service; *switch* breaks it."""
    return faulty_service(
        switch,
        [
            Route("/personalised/{user_id:int}", _get_personalised),
            Route("/segments/{segment}", _get_segment),
            Route("/popular", _get_popular),
        ],
    )


async def _get_personalised(request: Request) -> Response:
    try:
        return JSONResponse(catalogue.personalised(request.path_params["user_id"], LIST_LENGTH))
    except LookupError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error


async def _get_segment(request: Request) -> Response:
    segment = request.path_params["segment"]
    try:
        return _listing(catalogue.favourites(segment))
    except LookupError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"no segment {segment!r}") from error


async def _get_popular(_request: Request) -> Response:
    return _listing(catalogue.by_popularity())


def _listing(products: tuple[catalogue.ProductFacts, ...]) -> Response:
    return JSONResponse([item.id for item in products[:LIST_LENGTH]])
