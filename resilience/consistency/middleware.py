"""Lets a web user see what they have written, whichever process answers the next request."""

import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from resilience.consistency.session import ConsistentSession, in_session
from resilience.consistency.signing import TokenSigner
from resilience.consistency.token import EVERYWHERE, TOKEN_SECONDS, Token
from resilience.text import get_logger

NAME: Final = "resilience-position"
CANDIDATES_MAX: Final = 4
"""A client may send many cookies of one name."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[str, str]]

logger = get_logger(__name__)


class _Middleware:
    """What both kinds of middleware do."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - of either kind
        *,
        secret: str | Iterable[str],
        now: Callable[[], float],
        session_key: Callable[[Any], object] | None = None,
        cookie: str | None = NAME,
        header: str | None = None,
        secure: bool = False,
    ) -> None:
        """Serve *app*.

        Args:
            app: What answers.
            secret: Signs tokens, at least 16 characters; of several, the first signs, and all are
                accepted.
            now: Fleet time: `resilience.fleet_time`.
            session_key: Tells users apart: given the scope or environment of a request, it returns
                the id of the user who is logged in, or None if nobody is. A token signed for
                another user is ignored; one signed before anybody logged in is accepted. By default
                each browser has a key of its own.
            cookie: Name of the cookie in which the token travels; None: no cookie.
            header: Name of the header, of requests and responses, in which the token travels, for
                clients that keep no cookies; None: no header.
            secure: Whether browsers shall send the cookie through TLS only.

        Raises:
            ConfigurationError: A secret is too short, or there is none.
        """
        self._app = app
        self._signer = TokenSigner(secret)
        self._now = now
        self._session_key = session_key
        self._cookie = cookie
        self._header = header
        self._attributes = f"; Max-Age={TOKEN_SECONDS:.0f}; Path=/; HttpOnly; SameSite=Lax"
        self._attributes += "; Secure" if secure else ""

    def _begin(self, request: Any, candidates: Iterable[str]) -> tuple[ConsistentSession, Token]:  # noqa: ANN401 - a scope or environment
        """Return the session of a request that came with *candidates*, and what these stand for."""
        whose = None if self._session_key is None else self._session_key(request)
        key = None if whose is None else str(whose)
        owner, received = self._owner(key), Token()
        for text in list(candidates)[:CANDIDATES_MAX]:
            token = self._signer.read(text, now=self._now())
            if token is not None and (self._session_key is None or token.session in {None, owner}):
                received = received.merged(token)
        if self._session_key is None:
            key = received.session or uuid4().hex
        return ConsistentSession(key, token=replace(received, session=None)), received

    def _headers(self, session: ConsistentSession, received: Token, token: Token | None) -> Headers:
        """Return what goes out; *token* is the session's, None if it could not be found out."""
        headers: Headers = []
        if session.marks:
            lag = session.lag_seconds
            shown = "" if lag is None else f"; lag={math.ceil(lag * 100) / 100:.2f}"
            headers.append(("X-Degradation", f"stale{shown}"))
        has_news = token is None or replace(token, session=received.session) != received
        if not has_news:  # Nothing new: the client keeps what it has.
            return headers
        now = self._now()
        lost = Token(unknown={EVERYWHERE: now})
        recent = lost if token is None else token.since(now - TOKEN_SECONDS)
        if not replace(recent, session=None):
            return headers
        text = self._signer.sign(replace(recent, session=self._owner(session.key)), now=now)
        if self._cookie is not None:
            headers.append(("Set-Cookie", f"{self._cookie}={text}{self._attributes}"))
        if self._header is not None:
            headers.append((self._header, text))
        return headers

    def _owner(self, key: str | None) -> str | None:
        """Return what stands for *key* in a token, which its user can read."""
        if self._session_key is None or key is None:
            return key
        return hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32]

    def _candidates(self, header: str | None, cookies: Iterable[str]) -> list[str]:
        candidates = [header] if header else []
        for one in ";".join(cookies).split(";"):
            name, _, text = one.strip().partition("=")
            if name == self._cookie:
                candidates.append(text)
        return candidates


class PositionMiddleware(_Middleware):
    """For ASGI apps: each HTTP request runs in a session, and reads what its user has written.

    Put it around everything: `PositionMiddleware(app, secret=…, now=resilience.fleet_time)`.
    What Starlette's `add_middleware` adds is within its handler of errors, whose answers then carry
    no token.

    The session lasts until the body of the response has been sent, also while it is streamed. The
    token goes out with the headers: what is committed later is not in it. So commit in the view,
    and not after the `yield` of a dependency, which FastAPI runs when the response has been sent.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; those of other protocols pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            named.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        header = named.get((self._header or "").lower(), [None])[0]
        session, received = self._begin(scope, self._candidates(header, named.get("cookie", [])))

        async def send_with_token(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                token = None
                with _guarded():
                    token = await session.token_async()
                added = [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in self._headers(session, received, token)
                ]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        with in_session(session):
            await self._app(scope, receive, send_with_token)


class WsgiPositionMiddleware(_Middleware):
    """The same for WSGI apps: `app.wsgi_app = WsgiPositionMiddleware(app.wsgi_app, …)` in Flask."""

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterator[bytes]:
        """Answer a request."""
        header = environ.get("HTTP_" + (self._header or "").upper().replace("-", "_"))
        session, received = self._begin(
            environ, self._candidates(header, [environ.get("HTTP_COOKIE", "")])
        )

        def start_with_token(status: str, headers: Headers, *error: Any) -> Any:  # noqa: ANN401 - as the server's
            token = None
            with _guarded():
                token = session.token()
            return start_response(status, headers + self._headers(session, received, token), *error)

        with in_session(session):
            return _Body(self._app(environ, start_with_token), session)


class _Body(Iterator[bytes]):
    """A response's body, each part of which is made in *session*; between them, nothing is left."""

    def __init__(self, parts: Iterable[bytes], session: ConsistentSession) -> None:
        self._parts = parts
        self._rest = iter(parts)
        self._session = session

    def __next__(self) -> bytes:
        with in_session(self._session):
            return next(self._rest)

    def close(self) -> None:
        """End it, as servers do."""
        close = getattr(self._parts, "close", None)
        if close is not None:
            with in_session(self._session):
                close()


@contextmanager
def _guarded() -> Iterator[None]:
    """Let a response go out whatever happens while its token is made."""
    try:
        yield
    except Exception:
        logger.exception("The position of a response is not known; the primary answers next")
