"""The demo as a user starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psutil

from resilience.testing.process import import_path
from resilience.testing.waiting import wait_until

START_SECONDS = 240.0
STOP_SECONDS = 45.0
MARK = "DEMO_TEST_MARK"


class Demo:
    """A running `python -m demo`; every process that it starts inherits a mark."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        """Start it in *directory*, where it keeps its files."""
        self._mark = uuid4().hex
        self._output = directory / f"{self._mark}.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-m", "demo", *arguments],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": import_path(), MARK: self._mark},  # noqa: TID251 - a child needs PATH
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._output.read_text()

    def processes(self) -> list[psutil.Process]:
        """Return what runs of it."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def await_output(self, words: str) -> None:
        """Wait until it has printed *words*."""
        wait_until(
            lambda: words in self.output or self.process.poll() is not None,
            START_SECONDS,
            f"the demo says {words!r}",
        )
        assert words in self.output, self.output

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get(MARK) == self._mark
        except psutil.Error:
            return False


StartDemo = Callable[..., Demo]
