"""What workers hold of a Redis broker: taken, and not acknowledged yet."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import redis
from kombu.utils.json import dumps, loads

CRASHES_HEADER: Final = "resilience-crashes"
"""Message header: how many workers have died while they held the message."""
AT_ONCE = 100
LOOK_AT = 1000
MUTE_SECONDS = 3600.0
"""What a worker holds that speaks kombu's own language, and so is never heard of, is given to
others after kombu's own time: a fleet may be mixed while it is changed."""

logger = logging.getLogger("resilience")

_folder = files(__package__)


def script(name: str) -> str:
    """Return the code of a script of this package."""
    return _folder.joinpath(f"{name}.lua").read_text()


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is noted as held, by a worker that may be dead."""

    tag: str
    message: dict[str, Any]
    exchange: str
    routing_key: str
    claim: str = ""


class Unacked:
    """Messages held, in the two keys where kombu notes them as well.

    Attributes:
        keys: A hash of messages by delivery tag, and a sorted set of tags, as on the server.
    """

    def __init__(self, unacked_key: str, index_key: str) -> None:
        """Use these keys, as the server knows them."""
        self.keys = (unacked_key, index_key)
        self._codes = {name: script(name) for name in ("renew", "overdue", "restore")}

    def renew(self, client: "redis.Redis", tags: Sequence[str]) -> tuple[float, list[str]]:
        """Say that the worker that holds these messages lives.

        Returns:
            The server's time in seconds, and the tags of those that it holds no more.
        """
        now, *gone = self._run(client, "renew", [self.keys[1]], tags)
        return now / 1e6, [tag.decode() for tag in gone]

    def overdue(self, client: "redis.Redis", silent_seconds: float) -> list[Held]:
        """Claim messages whose workers were silent for so long; at most `AT_ONCE`."""
        unacked, index = self.keys
        limits = [silent_seconds, AT_ONCE, max(silent_seconds, MUTE_SECONDS), LOOK_AT]
        claim, *rest = self._run(client, "overdue", [index, unacked], limits)
        return list(_held(claim.decode(), rest))

    def find(self, client: "redis.Redis", tag: str) -> Held | None:
        """Return what is noted under *tag*."""
        noted: Any = client.hget(self.keys[0], tag)
        return None if noted is None else next(_held("", [tag.encode(), noted]), None)

    def restore(self, client: "redis.Redis", held: Held, key: str, *, first: bool) -> bool:
        """Put a message back into the list *key*, unless its worker has been heard of since.

        Args:
            client: Of the broker.
            held: As found or claimed.
            key: Of the list, as the server knows it.
            first: Whether it is the next to be taken, or the last.

        Returns:
            Whether it was there to be put back.
        """
        end = "first" if first else "last"
        values = [held.tag, dumps(held.message), end, held.claim]
        return bool(self._run(client, "restore", [*self.keys, key], values))

    def _run(
        self, client: "redis.Redis", name: str, keys: Sequence[str], values: Sequence[Any]
    ) -> Any:  # noqa: ANN401 - as the script
        return client.eval(self._codes[name], len(keys), *keys, *values)


def _held(claim: str, pairs: Sequence[bytes]) -> Iterator[Held]:
    for tag, noted in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            message, exchange, routing_key = loads(noted.decode())
        except (ValueError, TypeError):
            logger.exception("cannot read what is noted as %r: %.200r", tag, noted)
            continue
        yield Held(tag.decode(), message, exchange or "", routing_key or "", claim)
