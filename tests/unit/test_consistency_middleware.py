"""What a middleware keeps of a session, and what passes it."""

import asyncio
from typing import Any

from resilience.consistency import ConsistentSession, Position, Token, current_session
from resilience.consistency.middleware import PositionMiddleware, WsgiPositionMiddleware
from resilience.consistency.signing import TokenSigner

SECRET, NOW = "s" * 16, 1_800_000_000.0
OLD, NEW = Position.at("7/1", 1, known=NOW - 31), Position.at("7/1", 2, known=NOW - 29)


def token_after(**positions: Position) -> Token | None:
    """Return the token that goes out after a request has noted *positions*."""
    sent: list[tuple[str, str]] = []

    def app(_environ: object, start_response: Any) -> list[bytes]:  # noqa: ANN401 - the server's
        session = current_session()
        assert session is not None
        for source, position in positions.items():
            session.note(source, position)
        start_response("200 OK", [])
        return []

    options: dict[str, Any] = {"secret": SECRET, "now": lambda: NOW, "cookie": None, "header": "X"}
    served = WsgiPositionMiddleware(app, **options)
    assert list(served({}, lambda _status, headers, *_: sent.extend(headers))) == []
    return TokenSigner(SECRET).read(dict(sent)["X"], now=NOW) if sent else None


def test_what_was_seen_longer_ago_than_a_token_lives_is_left_out() -> None:
    """However often the token is renewed meanwhile."""
    token = token_after(old=OLD, new=NEW)
    assert token is not None
    assert token.positions == {"new": NEW}
    assert token_after(old=OLD) is None


def test_what_is_no_http_passes() -> None:
    """A socket lasts for hours, and has no headers to send a token with."""
    seen: list[ConsistentSession | None] = []

    async def app(*_: object) -> None:
        seen.append(current_session())

    served = PositionMiddleware(app, secret=SECRET, now=lambda: NOW)
    asyncio.run(served({"type": "websocket"}, None, None))  # type: ignore[arg-type]
    assert seen == [None]
