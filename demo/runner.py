"""Start the shop in a session of its own, and leave nothing of it behind."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import IO, Final

import psutil
from rich.console import Console

from demo.layout import Layout, readiness
from jobs.models import open_engine
from jobs.seed import seed

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = Path("var") / "demo"
"""Where a demo keeps its files, in the directory that it is started in."""
LOG: Final = HOME / "shop.log"
START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1
TAIL_LINES: Final = 30
FAILED_START: Final = re.compile(r"backoff: (\S+) starts again")


class StartError(RuntimeError):
    """The shop did not start; the message says why and shows the end of the right log."""


class RunningShop:
    """The processes of a shop: a supervisor that is the leader of their session.

    Attributes:
        layout: Where everything is.
    """

    def __init__(self, layout: Layout, log: IO[bytes]) -> None:
        """Start all processes; *log* gets their output."""
        self.layout = layout
        self._measured = [psutil.Process()]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-m", "demo.stack", layout.to_json()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )

    def await_ready(self, progress: Callable[[int, int], None]) -> None:
        """Wait until every program says that it is ready.

        Args:
            progress: Told how many are ready, and of how many, whenever that is looked at.

        Raises:
            StartError: One of them ended, or was not ready after 90 s.
        """
        waiting = {one.name: readiness(one.name) for one in self.layout.programs()}
        count, until = len(waiting), perf_counter() + START_SECONDS
        while waiting:
            lines = LOG.read_text(errors="replace").splitlines()
            for name, words in list(waiting.items()):
                if any(words in line for line in _of_program(name, lines)):
                    del waiting[name]
            progress(count - len(waiting), count)
            self._check_alive(lines)
            if perf_counter() > until:
                name = next(iter(waiting))
                msg = f"{name} was not ready after {START_SECONDS:g} s{_tail(name, lines)}"
                raise StartError(msg)
            Event().wait(POLL_SECONDS)
        self._measured += self._processes()

    def wait(self) -> None:
        """Wait until the shop ends, which it does not do by itself."""
        self._process.wait()

    def processor_seconds(self) -> float:
        """Return the processor time that demo and shop, as it was when ready, have used so far."""
        return sum(map(_processor_seconds, self._measured))

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

    def _check_alive(self, lines: list[str]) -> None:
        failed = next(filter(None, map(FAILED_START.search, lines)), None)
        if failed is not None:
            name = failed.group(1)
            msg = f"{name} ended while the shop was starting{_tail(name, lines)}"
            raise StartError(msg)
        if self._process.poll() is not None:
            msg = f"nothing runs: exit code {self._process.returncode}{_tail('', lines)}"
            raise StartError(msg)

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and os.getsid(process.pid) == self._process.pid
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False


@contextmanager
def running_shop(
    layout_of: Callable[[Path], Layout], console: Console, *, fresh: bool
) -> Iterator[RunningShop]:
    """Run the shop for the length of the block, with a seeded database.

    Args:
        layout_of: Makes the layout, given the directory for its files.
        console: Told about the end.
        fresh: Whether to forget what an earlier demo left in database and store.

    Raises:
        StartError: Another demo runs in this directory.
    """
    with _locked_log() as log:
        directory = HOME.absolute() / "data"
        if fresh:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        layout = layout_of(directory)
        shop = RunningShop(layout, log)
        try:
            _seed(layout.database_url)
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


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _seed(database_url: str) -> None:
    engine = open_engine(database_url)
    try:
        seed(engine)
    finally:
        engine.dispose()


def _of_program(name: str, lines: list[str]) -> list[str]:
    return [line for line in lines if line.split(" ", 1)[0] == name] if name else lines


def _tail(name: str, lines: list[str]) -> str:
    last = "\n".join(_of_program(name, lines)[-TAIL_LINES:])
    return f"; the end of its log in {LOG}:\n{last}"
