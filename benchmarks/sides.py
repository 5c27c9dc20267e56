"""A worker and a client of one app, in processes of their own.

The worker is stopped (SIGSTOP) while it is the other side's turn, so that it costs nothing then.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import IO, cast

import psutil

from benchmarks.client import READY
from resilience.testing.process import ServerProcess, import_path, inherited_env, suspend

LOOK_SECONDS = 0.002
CONSUME_SECONDS = 120.0


class Side:
    """One side of a comparison.

    Attributes:
        env: The environment of worker and client.
        worker: The worker, with its children.
    """

    def __init__(
        self,
        module: str,
        *,
        queues: Sequence[str],
        env: Mapping[str, str],
        home: Path,
        concurrency: int = 2,
    ) -> None:
        """Prepare; `running` starts worker and client.

        Args:
            module: The module of the app; see `benchmarks.client`.
            queues: The queues that the worker consumes.
            env: Environment variables that the app reads.
            home: Directory to make for the log, and for the file in which jobs count themselves.
            concurrency: Number of the worker's children.
        """
        home.mkdir()
        self._done = home / "done"
        self._done.touch()
        own = {"BENCHMARK_DONE": str(self._done), "RESILIENCE_RUNTIME_DIRECTORY": str(home)}
        self._module, self.env = module, {"PYTHONPATH": import_path(), **own, **env}
        options = ["-Q", ",".join(queues), "-c", str(concurrency), "-n", f"{home.name}@localhost"]
        alone = ["--without-gossip", "--without-mingle", "-l", "ERROR"]
        self.worker = ServerProcess(
            [sys.executable, "-m", "celery", "-A", module, "worker", *options, *alone],
            ready=READY,
            log_path=home / "worker.log",
            env=self.env,
        )
        self._client: subprocess.Popen[str] | None = None
        self._before = 0

    @contextmanager
    def running(self) -> Iterator["Side"]:
        """Run worker and client for as long as the block lasts."""
        with self._serving(), self._working():
            yield self

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            self.worker.start()
            yield
        except Exception as error:
            error.add_note(f"log of the worker of {self._module}:\n{self.worker.log_tail()}")
            raise
        finally:
            self.worker.kill()

    @contextmanager
    def _serving(self) -> Iterator[None]:
        self._client = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited_env(self.env),
        )
        with self._client:
            try:
                yield
            finally:
                self._client.kill()

    def ask(self, command: str, *arguments: object) -> float:
        """Let the client run *command*; return its answer, or else the seconds that it took.

        Raises:
            RuntimeError: The client failed.
        """
        client = cast("subprocess.Popen[str]", self._client)
        commands, answers = cast("IO[str]", client.stdin), cast("IO[str]", client.stdout)
        commands.write(json.dumps([command, *arguments]) + "\n")
        commands.flush()
        line = answers.readline()
        if not line:
            msg = f"the client of {self._module} failed"
            raise RuntimeError(msg)
        return float(line)

    def pids(self) -> list[int]:
        """Return the process ids of the worker and its children."""
        return [self.worker.pid, *self.worker.children()]

    def stop(self) -> None:
        """Suspend the worker until `go_on`."""
        for pid in self.pids():
            suspend(pid)

    def go_on(self) -> None:
        """Let the worker continue."""
        os.killpg(self.worker.pid, signal.SIGCONT)

    def consume(self, jobs: int) -> float:
        """Let the stopped worker run that many jobs; return the seconds they took.

        Raises:
            RuntimeError: Not all were done within two minutes, or there were more.
        """
        pause, wanted = threading.Event(), self._before + jobs
        began = perf_counter()
        self.go_on()
        while self._done.stat().st_size < wanted and perf_counter() - began < CONSUME_SECONDS:
            pause.wait(LOOK_SECONDS)
        took = perf_counter() - began
        pause.wait(10 * LOOK_SECONDS)  # for the last acknowledgement, and for a job too many
        self.stop()
        if (done := self._done.stat().st_size - wanted + jobs) != jobs:
            msg = f"{self._module} did {done} of {jobs} jobs"
            raise RuntimeError(msg)
        self._before = wanted
        return took

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the processor time so far of the worker's main process, and of its children."""
        main, *children = (psutil.Process(pid).cpu_times() for pid in self.pids())
        return main.user + main.system, sum(one.user + one.system for one in children)

    def pss_mb(self) -> float:
        """Return the worker's memory; what processes share counts once."""
        return sum(psutil.Process(pid).memory_full_info().pss for pid in self.pids()) / 2**20
