"""Start the shop in a session of its own, and leave nothing of it behind."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import IO, Final

import psutil
from rich.console import Console

from demo.layout import Layout, readiness
from demo.load import processor_seconds
from demo.starting import TAIL_LINES, Start, StartError
from resilience.cli.program import Program

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = Path("var") / "demo"
"""Where a demo keeps its files, in the directory that it is started in."""
LOG: Final = HOME / "shop.log"
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.25


class RunningShop:
    """The processes of a shop: a supervisor that is the leader of their session.

    Attributes:
        layout: Where everything is.
    """

    def __init__(self, layout: Layout, log: IO[bytes]) -> None:
        """Start all processes; *log* gets their output."""
        self.layout = layout
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-m", "demo.stack", layout.to_json()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )

    def await_ready(self, progress: Callable[[Start, float], None]) -> None:
        """Wait until every program says that it is ready, as long as they make progress.

        Args:
            progress: Called with the start and its seconds so far, several times a second.

        Raises:
            StartError: One of them ended again and again, or makes no progress.
        """
        programs, began = self.layout.programs(), perf_counter()
        start = Start({one.name: readiness(one.name) for one in programs}, now=began)
        while start.missing:
            lines = LOG.read_text(errors="replace").splitlines()
            if self._process.poll() is not None:
                end = "\n".join(lines[-TAIL_LINES:])
                msg = f"the supervisor ended with exit code {self._process.returncode}:\n{end}"
                raise StartError(msg)
            start.look(lines, self._work_by_program(programs), now=perf_counter())
            progress(start, perf_counter() - began)
            Event().wait(POLL_SECONDS)

    def wait(self) -> None:
        """Wait until the shop ends, which it does not do by itself."""
        self._process.wait()

    def measured(self) -> list[psutil.Process]:
        """Return this process and all of the shop."""
        # Not by session: every backend of a PostgreSQL server has one of its own.
        return [psutil.Process(), *psutil.Process().children(recursive=True)]

    def stop(self) -> int:
        """Stop all processes; what has not ended after 20 s is killed.

        Returns:
            How many had to be killed. None is left.
        """
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        left = self._processes()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOP_SECONDS)
        self._process.wait(STOP_SECONDS)
        return len(left)

    def _work_by_program(self, programs: Sequence[Program]) -> dict[str, float]:
        """Return the processor seconds that each program has used, its children's included.

        What the supervisor has used is added to all: its own start is part of theirs.
        """
        names = {tuple(one.command): one.name for one in programs}
        supervisor = psutil.Process(self._process.pid)
        work = dict.fromkeys(names.values(), processor_seconds(supervisor))
        program_of: dict[int, str] = {}
        for process in supervisor.children(recursive=True):  # each behind its parent
            with suppress(psutil.Error):
                name = program_of.get(process.ppid()) or names.get(tuple(process.cmdline()), "")
                program_of[process.pid] = name
                if name:
                    work[name] += processor_seconds(process)
        return work

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and os.getsid(process.pid) == self._process.pid
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False


@contextmanager
def running_shop(layout_of: Callable[[Path], Layout], console: Console) -> Iterator[RunningShop]:
    """Run the shop for the length of the block; nothing is left of what an earlier one sold.

    Args:
        layout_of: Makes the layout, given the directory for its files.
        console: Told about the end.

    Raises:
        StartError: Another demo runs in this directory.
    """
    with _locked_log() as log:
        directory = HOME.absolute() / "data"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        layout = layout_of(directory)
        shop = RunningShop(layout, log)
        try:
            yield shop
        finally:
            with _deaf():
                console.print("Stopping.")
                killed = shop.stop()
                how = f"; {killed} of them had to be killed" if killed else ""
                console.print(f"All processes have ended{how}.")


@contextmanager
def _locked_log() -> Iterator[IO[bytes]]:
    """Open the log; whoever has it open, supervisor included, keeps other demos out."""
    HOME.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another demo runs here and writes to {LOG}; stop that one first"
            raise StartError(msg) from None
        log.truncate(0)
        yield log


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM: a second one must not leave half of the shop running."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
