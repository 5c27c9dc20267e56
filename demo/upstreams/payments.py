"""The payment provider: takes money once per order, and warns of fraud."""

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.upstreams.control import faulty_service
from demo.upstreams.fault import FaultSwitch
from jobs import catalogue

ALERTS: Final = (
    {"id": "al_1", "severity": "high", "text": "Five cards tried from one address"},
    {"id": "al_2", "severity": "medium", "text": "First order of an account is above 500 EUR"},
    {"id": "al_3", "severity": "low", "text": "Delivery and billing countries differ"},
)


class ChargeRequest(BaseModel):
    """Money to take; as sent to `POST /charges`. *order_id* is the idempotency key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    order_id: str = Field(min_length=1, max_length=64)
    user_id: int = Field(gt=0)
    amount_cents: int = Field(gt=0)


def create_app(switch: FaultSwitch) -> Starlette:
    """Return the service; *switch* breaks it. Charges live as long as it does."""
    charges: dict[str, ChargeRequest] = {}

    async def post_charge(request: Request) -> Response:
        wanted = ChargeRequest.model_validate_json(await request.body())
        known = charges.setdefault(wanted.order_id, wanted)
        if known != wanted:
            detail = f"order {wanted.order_id!r} was charged with another user or amount"
            raise HTTPException(HTTPStatus.CONFLICT, detail)
        repeated = known is not wanted
        status = HTTPStatus.OK if repeated else HTTPStatus.CREATED
        return JSONResponse(_receipt(wanted.order_id) | {"repeated": repeated}, status)

    async def get_charge(request: Request) -> Response:
        order_id = request.path_params["order_id"]
        if order_id not in charges:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no charge for order {order_id!r}")
        return JSONResponse(_receipt(order_id) | charges[order_id].model_dump())

    async def get_alerts(_request: Request) -> Response:
        return JSONResponse(ALERTS)

    return faulty_service(
        switch,
        [
            Route("/charges", post_charge, methods=["POST"]),
            Route("/charges/{order_id}", get_charge),
            Route("/alerts", get_alerts),
        ],
    )


def _receipt(order_id: str) -> dict[str, object]:
    return {"charge_id": catalogue.charge_id(order_id), "status": "captured"}
