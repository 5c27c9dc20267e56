"""What a middleware keeps of a session, and what passes it."""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from resilience.consistency import EVERYWHERE, ConsistentSession, Position, Token, current_session
from resilience.consistency.middleware import PositionMiddleware, WsgiPositionMiddleware
from resilience.consistency.signing import TokenSigner

SECRET, NOW = "s" * 16, 1_800_000_000.0
OLD, NEW = Position.at("7/1", 1, known=NOW - 31), Position.at("7/1", 2, known=NOW - 29)


def session_in() -> ConsistentSession:
    """Return the session that this code runs in."""
    session = current_session()
    assert session is not None
    return session


def serve(app: Any, environ: dict[str, Any] | None = None, **options: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a WSGI app
    """Return the headers of the response of *app* to a request."""
    sent: list[tuple[str, str]] = []

    def inner(_environ: object, start_response: Any) -> list[bytes]:  # noqa: ANN401 - the server's
        app()
        start_response("200 OK", [])
        return []

    served = WsgiPositionMiddleware(inner, secret=SECRET, now=lambda: NOW, **options)
    assert list(served(environ or {}, lambda _status, headers, *_: sent.extend(headers))) == []
    return sent


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


@pytest.mark.parametrize(("place", "counts"), [(1, True), (4, True), (5, False)])
def test_four_cookies_of_the_name_are_looked_at(place: int, *, counts: bool) -> None:
    """A parent domain's may come first; checking any number of them would be work for nothing."""
    token = TokenSigner(SECRET).sign(Token(positions={"db": NEW}), now=NOW)
    cookies = ["resilience-position=x"] * (place - 1) + [f"resilience-position={token}"]
    needed: list[Position] = []

    serve(
        lambda: needed.append(session_in().needed("db")),
        {"HTTP_COOKIE": "; ".join([*cookies, "resilience-position=x"])},
    )

    assert [bool(position) for position in needed] == [counts]


def test_token_does_not_show_who_its_user_is() -> None:
    """It is signed, not encrypted: whoever has the cookie can read what is in it."""
    sent = serve(
        lambda: session_in().note("db", NEW),
        cookie=None,
        header="X",
        session_key=lambda _: "ann@example.com",
    )
    body, _, _ = dict(sent)["X"].rpartition(".")
    _, token = json.loads(urlsafe_b64decode(body))

    assert token["session"]
    assert "ann" not in str(token)


@pytest.mark.parametrize(("secure", "ending"), [(False, "; SameSite=Lax"), (True, "; Secure")])
def test_cookie_travels_through_tls_only_if_the_app_says_so(*, secure: bool, ending: str) -> None:
    """By default it does not say so, as a development server has no TLS."""
    sent = serve(lambda: session_in().note("db", NEW), secure=secure)

    assert dict(sent)["Set-Cookie"].endswith(ending)


def test_response_whose_position_is_not_known_goes_out_and_lets_the_primary_answer_next() -> None:
    """A database that fails in an odd way costs its users neither the answer nor their writes."""

    def broken() -> Position:
        msg = "boom"
        raise RuntimeError(msg)

    sent = serve(lambda: session_in().note_read("db", broken), cookie=None, header="X")

    token = TokenSigner(SECRET).read(dict(sent)["X"], now=NOW)
    assert token is not None
    assert token.unknown == {EVERYWHERE: NOW}


def test_body_is_closed_in_its_session() -> None:
    """As servers close bodies: a framework gives its database connections back there."""
    closed: list[ConsistentSession | None] = []

    class Body(Iterator[bytes]):
        def __next__(self) -> bytes:
            raise StopIteration

        def close(self) -> None:
            closed.append(current_session())

    served = WsgiPositionMiddleware(lambda *_: Body(), secret=SECRET, now=lambda: NOW)
    served({}, lambda *_: None).close()  # type: ignore[attr-defined]

    assert [session is not None for session in closed] == [True]
    assert current_session() is None
