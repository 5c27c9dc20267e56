"""What the proxy refuses, and with which HTTP status."""

from http import HTTPStatus

from resilience.errors import ConfigurationError
from resilience.events.plain import shortened


class ProxyError(ConfigurationError):
    """The proxy cannot do what it was asked for; the message says why.

    Attributes:
        message: What the body of an HTTP answer calls `error`.
        status: HTTP status of that answer.
        content: The JSON object of that answer.
    """

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST, **more: object) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status
        # The message may repeat what the request said.
        self.content = {"error": shortened(message), "status": int(status), **more}

    def __str__(self) -> str:
        return self.message
