"""Proxies and toxics as users ask for them: parsed from JSON, and validated."""

from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from resilience.chaos.proxy.addresses import LISTEN
from resilience.chaos.proxy.effects import EFFECTS, Effect
from resilience.chaos.proxy.errors import ProxyError

M = TypeVar("M", bound=BaseModel)
Name = Annotated[str, Field(max_length=200)]
Address = Annotated[str, Field(max_length=300)]


class Direction(StrEnum):
    """The stream that a toxic affects."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


class Body(BaseModel):
    """A JSON object; other fields are ignored, as clients send back all that they were shown."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Toxic(Body):
    """One fault of the streams in one direction.

    Attributes:
        attributes: What the type takes, see `effects`.
        name: Unique within a proxy.
        type: A key of `EFFECTS`.
        stream: From the client to the server (upstream) or back.
        toxicity: Share of the links that it affects, in [0, 1].
    """

    attributes: SerializeAsAny[Effect]
    name: Name
    type: str
    stream: Direction
    toxicity: Annotated[float, Field(ge=0, le=1)] = 1.0

    @classmethod
    def parse(cls, body: object) -> Self:
        """Return the toxic that a JSON object asks for.

        Raises:
            ProxyError: The type or stream is unknown, or a value is of the wrong type or range.
        """
        fields = fields_of(body)
        kind, stream = str(fields.get("type")), str(fields.get("stream", "downstream")).lower()
        if stream not in set(Direction):
            msg = "stream was invalid, can be either upstream or downstream"
            raise ProxyError(msg)
        if kind not in EFFECTS:
            msg = "invalid toxic type"
            raise ProxyError(msg)
        fields["stream"] = Direction(stream)
        fields["name"] = fields.get("name") or f"{kind}_{stream}"
        fields["attributes"] = checked(EFFECTS[kind], fields.get("attributes", {}))
        return checked(cls, fields)

    @property
    def view(self) -> dict[str, Any]:
        """The JSON object that clients see."""
        return self.model_dump(mode="json")

    def updated(self, body: object) -> Self:
        """Return this toxic with the toxicity and those attributes that a JSON object has.

        Raises:
            ProxyError: A value is of the wrong type or range, or an attribute is unknown.
        """
        asked = fields_of(body)
        attributes = self.attributes.model_dump() | fields_of(asked.get("attributes", {}))
        toxicity = asked.get("toxicity", self.toxicity)
        return self.parse({**self.view, "toxicity": toxicity, "attributes": attributes})


class ProxyOrder(Body):
    """What a client asks for when it creates or updates a proxy.

    Attributes:
        toxics: Affect a new proxy from its first connection on; Toxiproxy has no such field.
    """

    name: Name = ""
    listen: Address = LISTEN
    upstream: Address = ""
    enabled: bool = True
    toxics: list[Any] = Field(default_factory=list)

    @classmethod
    def parse(cls, body: object, where: str = "") -> Self:
        """Return what a JSON object asks for; *where* is for the message.

        Raises:
            ProxyError: A field is missing, or of the wrong type.
        """
        fields = fields_of(body)
        order = checked(cls, fields | {"listen": fields.get("listen") or LISTEN})
        for name in ("name", "upstream"):
            if not getattr(order, name):
                msg = f"missing required field: {name}{where}"
                raise ProxyError(msg)
        return order


def checked(model: type[M], body: object) -> M:
    """Return *body*, a JSON object, as a *model*.

    Raises:
        ProxyError: It is no object, or a value is wrong.
    """
    try:
        return model.model_validate(fields_of(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "attributes"
        msg = f"bad request body: {place}: {first['msg']}, got {first['input']!r:.100}"
        raise ProxyError(msg) from error


def fields_of(body: object) -> dict[str, Any]:
    """Return the fields of a JSON object; as in Toxiproxy, null means that a field is not given.

    Raises:
        ProxyError: It is no object.
    """
    if not isinstance(body, dict):
        msg = f"bad request body: a JSON object is needed, got {type(body).__name__}"
        raise ProxyError(msg)
    return {name: value for name, value in body.items() if value is not None}
