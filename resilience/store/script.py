"""Runs the library's Lua scripts at little cost, for calls that wait for the answer."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

Part = str | float


class Script:
    """One Lua script. It is sent by its digest, or as text to a server that does not know it yet.

    This is for scripts that a call waits for: `register_script` of redis-py costs as much processor
    time again as the exchange itself.
    """

    def __init__(self, name: str) -> None:
        """Read `resilience/store/<name>.lua`."""
        self._code = files("resilience.store").joinpath(f"{name}.lua").read_text()
        self._digest = hashlib.sha1(self._code.encode(), usedforsecurity=False).hexdigest()

    def ask(self, client: redis.Redis, keys: Sequence[str], values: Sequence[Part] = ()) -> Any:  # noqa: ANN401 - by script
        """Return the script's answer.

        Raises:
            redis.RedisError: The server refused, or the connection broke.
        """
        try:
            return _exchange(client, "EVALSHA", self._digest, len(keys), *keys, *values)
        except NoScriptError:
            return _exchange(client, "EVAL", self._code, len(keys), *keys, *values)

    async def ask_async(
        self, client: redis.asyncio.Redis, keys: Sequence[str], values: Sequence[Part] = ()
    ) -> Any:  # noqa: ANN401 - by script
        """Do the same as `ask` without blocking the event loop."""
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *values)
        except NoScriptError:
            return await client.eval(self._code, len(keys), *keys, *values)


def _exchange(client: redis.Redis, *command: Part) -> Any:  # noqa: ANN401 - by command
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([_packed(command)])  # type: ignore[no-untyped-call]
        return connection.read_response()
    except redis.ResponseError:
        raise
    except BaseException:
        # The answer may still arrive; the next command on this connection would read it.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


def _packed(command: Sequence[Part]) -> bytes:
    """Encode *command* as RESP: the number of parts, then each part behind its length."""
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
