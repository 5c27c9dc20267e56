"""Outcomes and partial responses cross Celery as JSON, through kombu's registry of types.

On the wire an outcome is kombu's envelope around what `to_json` returns:
`{"__type__": "resilience.Outcome", "__value__": {"data": …, "_meta": {…}}}`.
An answer in the data has an envelope of its own.
"""

from typing import Any

from kombu.exceptions import EncodeError
from kombu.utils.json import dumps as kombu_dumps
from kombu.utils.json import loads, register_type

from resilience.errors import ConfigurationError
from resilience.outcome import Outcome
from resilience.partial import PartialResponse

__all__ = ["dumps", "loads", "must_encode"]

register_type(Outcome, "resilience.Outcome", Outcome.to_wire, Outcome.from_json)
register_type(
    PartialResponse,
    "resilience.PartialResponse",
    PartialResponse.to_wire,
    PartialResponse.from_json,
)


def dumps(value: object) -> str:
    """Return *value* as JSON, as Celery would send it.

    Raises:
        kombu.exceptions.EncodeError: It cannot be sent; the message names it.
    """
    try:
        text: str = kombu_dumps(value)
    except (TypeError, ValueError) as error:
        msg = f"{value!r:.200} cannot be sent as JSON: {error}"
        raise EncodeError(msg) from error
    return text


def must_encode(value: Any, *, where: str) -> str:  # noqa: ANN401 - anything may be tried
    """Return *value* as JSON.

    Raises:
        ConfigurationError: It cannot be sent; the message says *where* it stands.
    """
    try:
        return dumps(value)
    except EncodeError as error:
        msg = f"{where}: {error}"
        raise ConfigurationError(msg) from error
