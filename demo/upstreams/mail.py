"""The mail server: takes messages over SMTP, and shows over HTTP what it took."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Final, TypedDict

from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.upstreams.control import control_service
from demo.upstreams.fault import FaultSwitch
from demo.upstreams.server import HOST

KEPT_MESSAGES: Final = 10_000
# Longer than any test or demo: the server is never the first to give up on a call that hangs.
_IDLE_SECONDS: Final = 86_400.0


class StoredMessage(TypedDict):
    """One message as `GET /messages` shows it; *to* are the recipients of the envelope."""

    message_id: str
    sender: str
    to: list[str]
    subject: str
    body: str


class Mailbox:
    """Handles SMTP: keeps the last 10,000 messages. A fault strikes at MAIL FROM."""

    def __init__(self, switch: FaultSwitch) -> None:
        """Start empty; *switch* breaks it."""
        self._switch = switch
        self._messages: deque[StoredMessage] = deque(maxlen=KEPT_MESSAGES)

    def messages(self, recipient: str | None) -> list[StoredMessage]:
        """Return what was taken for *recipient*, or for anybody, the oldest first."""
        return [one for one in self._messages if recipient is None or recipient in one["to"]]

    async def handle_MAIL(  # noqa: N802 - the name is aiosmtpd's
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender, or refuse for now; the protocol cancels this if the client goes."""
        if not await self._switch.admit():
            return "451 4.3.0 This service is told to fail, try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Keep the message."""
        message = message_from_bytes(
            envelope.original_content or b"", EmailMessage, policy=policy.default
        )
        body = message.get_body(("plain", "html"))
        self._messages.append(
            StoredMessage(
                message_id=str(message.get("Message-ID", "")),
                sender=envelope.mail_from or "",
                to=list(envelope.rcpt_tos),
                subject=str(message.get("Subject", "")),
                body=body.get_content().replace("\r\n", "\n") if body else "",
            )
        )
        return "250 OK"


def create_app(switch: FaultSwitch, *, port: int) -> Starlette:
    """Return the HTTP side, which serves SMTP on *port* while it lives; *switch* breaks it."""
    mailbox = Mailbox(switch)

    def protocol() -> SMTP:
        return SMTP(
            mailbox,
            hostname="mail.shop.example",
            timeout=_IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
        )

    @asynccontextmanager
    async def smtp(_app: Starlette) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(protocol, HOST, port)
        try:
            yield
        finally:
            server.close()

    async def get_messages(request: Request) -> Response:
        return JSONResponse(mailbox.messages(request.query_params.get("to")))

    return control_service(switch, [Route("/messages", get_messages)], smtp)
