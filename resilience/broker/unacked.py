"""Messages that workers have taken from a Redis broker, and not acknowledged yet."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import redis
from kombu.utils.json import dumps, loads
from redis.exceptions import NoScriptError

from resilience.text import get_logger

CRASHES_HEADER: Final = "resilience-crashes"
"""Message header: how many workers have died while they held the message."""
AT_ONCE = 100
"""Most messages that are claimed in one step."""
LOOK_AT = 1000
"""Most messages that are looked at in one step."""
MUTE_SECONDS = 3600.0
"""Workers with kombu's own transport never renew what they hold. Others get it after kombu's own
visibility timeout: both kinds of worker may share a broker during an upgrade."""

logger = get_logger("resilience")

_folder = files(__package__)


def script(name: str) -> str:
    """Return the code of a script of this package."""
    return _folder.joinpath(f"{name}.lua").read_text()


def sha(code: str) -> str:
    """Return the digest by which a server knows a script that it has run before."""
    return hashlib.sha1(code.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is noted as held. Its worker may be dead.

    Attributes:
        tag: Its delivery tag.
        message: The message, as kombu wrote it.
        exchange: Where it was published to; empty if our transport noted it.
        routing_key: Name of its queue.
        claim: Score of the claim, if it was claimed from a dead worker; else empty.
        noted: What was noted of it. If that cannot be read, the message is empty.
    """

    tag: str
    message: dict[str, Any]
    exchange: str
    routing_key: str
    claim: str = ""
    noted: bytes = b""


class Unacked:
    """Messages held, in the same two keys where kombu notes them.

    Attributes:
        keys: Full names of a hash of messages by delivery tag, and of a sorted set of tags.
        holders: Full name of a sorted set of workers, by the id of their heartbeat's connection.
    """

    def __init__(self, unacked_key: str, index_key: str) -> None:
        """Use these keys, given by their full names on the server."""
        self.keys = (unacked_key, index_key)
        self.holders = f"{unacked_key}_holders"
        codes = {name: script(name) for name in ("renew", "overdue", "restore", "meet")}
        self._scripts = {name: (code, sha(code)) for name, code in codes.items()}

    def renew(self, client: "redis.Redis", tags: Sequence[str]) -> tuple[float, list[str]]:
        """Renew messages, as the worker that holds them is alive.

        Returns:
            The server's time in seconds, and the tags that are no longer noted.
        """
        now, *gone = self._run(client, "renew", [self.keys[1]], tags)
        return now / 1e6, [tag.decode() for tag in gone]

    def meet(
        self, client: "redis.Redis", worker: str, connection: int, most: int
    ) -> list[tuple[str, int]]:
        """Note a worker's connection; return up to *most* workers to watch, with theirs."""
        found = self._run(client, "meet", [self.holders], [worker, connection, most])
        return [(name.decode(), int(number)) for name, number in _pairs(found)]

    def forget(self, client: "redis.Redis", workers: Sequence[str]) -> None:
        """Remove the notes of these workers' connections."""
        if workers:
            client.zrem(self.holders, *workers)

    def overdue(
        self,
        client: "redis.Redis",
        silent_seconds: float,
        gone: Sequence[tuple[str, int]] = (),
        gone_seconds: float = 0.0,
    ) -> tuple[float, bool, list[Held]]:
        """Claim messages of dead workers; at most `AT_ONCE`.

        Args:
            client: A client of the broker.
            silent_seconds: A message that was not renewed for this long belongs to a dead worker.
            gone: Workers whose connection was closed, each with the connection's id. They are
                dead, too, unless they have noted a new connection.
            gone_seconds: Messages of those workers are claimed if they were not renewed for this
                long.

        Returns:
            The server's time in seconds, whether any worker holds a message, and what was claimed.
        """
        unacked, index = self.keys
        limits = [silent_seconds, AT_ONCE, max(silent_seconds, MUTE_SECONDS), LOOK_AT, gone_seconds]
        values = [*limits, *(value for peer in gone for value in peer)]
        keys = [index, unacked, *([self.holders] if gone else [])]
        claim, held, *rest = self._run(client, "overdue", keys, values)
        return float(claim), bool(held), list(_held(claim.decode(), rest))

    def find(self, client: "redis.Redis", tag: str) -> Held | None:
        """Return what is noted under *tag*."""
        noted: Any = client.hget(self.keys[0], tag)
        held = None if noted is None else next(_held("", [tag.encode(), noted]))
        return held if held and held.message else None

    def restore(self, client: "redis.Redis", held: Held, key: str, *, first: bool) -> bool:
        """Put a message back into the list *key*, unless its worker has renewed it since the claim.

        Args:
            client: A client of the broker.
            held: The message, as found or claimed.
            key: Full name of the list on the server.
            first: Whether workers take it next, or last.

        Returns:
            Whether it was put back.
        """
        end = "first" if first else "last"
        values = [held.tag, dumps(held.message), end, held.claim]
        return bool(self._run(client, "restore", [*self.keys, key], values))

    def _run(
        self, client: "redis.Redis", name: str, keys: Sequence[str], values: Sequence[Any]
    ) -> Any:  # noqa: ANN401 - as the script
        code, digest = self._scripts[name]
        try:
            return client.evalsha(digest, len(keys), *keys, *values)
        except NoScriptError:  # the server has never run it, or was restarted since
            return client.eval(code, len(keys), *keys, *values)


def _pairs(values: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(values[::2], values[1::2], strict=True)


def _held(claim: str, pairs: Sequence[bytes]) -> Iterator[Held]:
    for tag, noted in _pairs(pairs):
        try:
            message, exchange, routing_key = loads(noted.decode())
        except Exception:  # noqa: BLE001 - whatever is noted: those after it must not wait
            message, exchange, routing_key = {}, "", ""
        tag_text = tag.decode(errors="surrogateescape")
        yield Held(tag_text, message, exchange or "", routing_key or "", claim, noted)
