"""A token as a text that a browser may keep for a while, and cannot change."""

import hmac
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from resilience.consistency.token import EVERYWHERE, TOKEN_SECONDS, Token
from resilience.errors import ConfigurationError

TEXT_MAX: Final = 4000
"""A browser keeps cookies of 4,096 bytes, with their names and attributes."""
SECRET_MIN: Final = 16
AHEAD_SECONDS: Final = 5.0
"""So much may the time of a process be behind that of the one which has signed."""
PURPOSE: Final = b"resilience-position 1 "
"""The secret may be used for other things, too."""
SIZES: Final = (math.inf, 64, 32, 16, 8, 4, 2, 0)


class TokenSigner:
    """Signs tokens with HMAC-SHA256, and reads those that it or another process has signed."""

    def __init__(self, secret: str | Iterable[str]) -> None:
        """Sign with *secret*; of several, with the first. Those after it are accepted, too.

        Raises:
            ConfigurationError: There is none, or one is shorter than 16 characters.
        """
        secrets = [secret] if isinstance(secret, str) else list(secret)
        if not secrets or not all(len(one) >= SECRET_MIN for one in secrets):
            got = f"got {len(secrets)}"
            if secrets:
                got += f", the shortest has {min(map(len, secrets))}"
            msg = f"secret: give one or more, each of at least {SECRET_MIN} characters; {got}"
            raise ConfigurationError(msg)
        self._secrets = [one.encode() for one in secrets]

    def sign(self, token: Token, *, now: float) -> str:
        """Return *token*, signed at fleet time *now*, in at most 4,000 ASCII characters.

        If it is larger, what became known last is in it. The position of the other sources is then
        unknown, so that nobody takes what was left out for seen.
        """
        for most in SIZES:
            text = self._text(token.to_json(most), now)
            if len(text) <= TEXT_MAX:
                return text
        return self._text(Token(unknown={EVERYWHERE: now}).to_json(), now)

    def read(self, text: str, *, now: float) -> Token | None:
        """Return the token that was signed within the last 30 s; None: *text* is no such token."""
        body, _, signature = text.rpartition(".")
        given = signature.encode(errors="replace")
        raw = body.encode(errors="replace")
        if len(text) > TEXT_MAX or not any(
            hmac.compare_digest(given, _signature(secret, raw)) for secret in self._secrets
        ):
            return None
        try:
            signed, document = json.loads(urlsafe_b64decode(raw))
            recent = -AHEAD_SECONDS <= now - signed <= TOKEN_SECONDS
            return Token.from_json(document) if recent else None
        except (TypeError, ValueError):  # another release has signed it
            return None

    def _text(self, token: Mapping[str, Any], now: float) -> str:
        document = json.dumps([round(now, 3), token], separators=(",", ":"))
        body = urlsafe_b64encode(document.encode())
        return f"{body.decode()}.{_signature(self._secrets[0], body).decode()}"


def _signature(secret: bytes, body: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(secret, PURPOSE + body, "sha256")).rstrip(b"=")
