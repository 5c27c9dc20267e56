"""Aborts the runners of a run in which no test begins or ends for minutes, and lists its tests.

A hanging test is ended by pytest-timeout, or else by faulthandler. Neither helps when its process
was stopped, or has died while a child of it keeps its pipe open: the run would wait for ever. If
nothing happens although the runners were aborted, the whole run is ended.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

SILENT_SECONDS = 420.0
"""Longer than any test may take in a run of several runners."""
DYING_SECONDS = 30.0
"""How long aborted runners have until the run is ended."""


class Watchdog:
    """Watches the runners of one run, from the process that gives them their tests."""

    def __init__(self, silent_seconds: float = SILENT_SECONDS) -> None:
        """Begin to watch; act after *silent_seconds* in which no test began or ended."""
        self._seconds = silent_seconds
        self._under_way: set[str] = set()
        self._heard = threading.Event()
        self._ended = False
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test has begun."""
        self._under_way.add(nodeid)
        self._heard.set()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note that a test has ended."""
        self._under_way.discard(nodeid)
        self._heard.set()

    def pytest_sessionfinish(self) -> None:
        """Watch no longer."""
        self._ended = True
        self._heard.set()

    def _watch(self) -> None:
        while not self._ended and self._heard.wait(self._seconds):
            self._heard.clear()
        if self._ended:
            return
        print("\n".join(self._report()), file=sys.__stderr__, flush=True)
        for runner in psutil.Process().children():
            runner.send_signal(signal.SIGCONT)
            runner.send_signal(signal.SIGABRT)  # faulthandler prints its threads
        # A runner that dies is replaced, and its test has failed: the run goes on.
        if not self._heard.wait(DYING_SECONDS):
            os._exit(3)
        self._watch()

    def _report(self) -> Iterator[str]:
        yield f"\nNo test has begun or ended for {self._seconds:g} s. Under way:"
        yield from sorted(self._under_way)
        for process in psutil.Process().children(recursive=True):
            with process.oneshot():
                try:
                    command = " ".join(process.cmdline())[:120]
                    yield f"{process.ppid()} {process.pid} {process.status()} {command}"
                except psutil.Error as gone:
                    yield str(gone)


def pytest_configure(config: pytest.Config) -> None:
    """Watch if this process gives tests to others."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Watchdog())
