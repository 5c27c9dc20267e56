"""The demo as a user starts it: its verdict, its end, and what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from resilience.testing.process import import_path
from resilience.testing.waiting import wait_until

START_SECONDS = 240.0
STOP_SECONDS = 45.0
RUN_SECONDS = 400.0
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


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Start demos in one directory; what is left of them after the test is killed."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for demo in started:
        for process in demo.processes():
            process.kill()
        demo.process.wait(STOP_SECONDS)


@pytest.mark.timeout(500)
def test_demo_keeps_its_promises_and_leaves_nothing_behind(start_demo: StartDemo) -> None:
    """The outage by script ends by itself with a table and a verdict; no promise is broken.

    Exit code 0, or 3 if other programs kept the machine so busy that a promise was not judged.
    """
    demo = start_demo("--quick")

    code = demo.process.wait(RUN_SECONDS)
    assert code in (0, 3), demo.output
    assert demo.processes() == []
    assert ("not judged: other programs used" in demo.output) is (code == 3)
    assert ("degraded gracefully" in demo.output) is (code == 0)
    for words in ("recommendations", "p50/p99", "processes have ended"):
        assert words in demo.output
    for promise in ("no user missed an own order", "every stale answer was marked"):
        assert f"kept   {promise}" in demo.output
    assert "(control)" in demo.output


@pytest.mark.timeout(400)
def test_interrupted_demo_leaves_nothing_behind_and_keeps_a_second_one_out(
    start_demo: StartDemo,
) -> None:
    """Ctrl-C in the middle of the traffic stops all; until then a second demo says who is there."""
    demo = start_demo()
    demo.await_output("warming up")
    second = start_demo("up")

    assert second.process.wait(START_SECONDS) == 2
    assert "another demo runs here" in second.output
    assert len(demo.processes()) > 10
    assert demo.end(signal.SIGINT) == 130
    assert demo.processes() == []
    assert "All processes have ended." in demo.output


@pytest.mark.timeout(400)
def test_shop_stays_up_until_it_is_told_to_stop(start_demo: StartDemo) -> None:
    """The addresses that `up` prints answer; SIGTERM, like Ctrl-C, is a normal end."""
    demo = start_demo("up")
    demo.await_output("Flower")
    words = demo.output.split()
    front = next(word for word in words if word.endswith("/recommendations/7"))
    flower = words[words.index("Flower") + 1]

    assert httpx.get(front).json()["_meta"]["level"] <= 3
    assert httpx.get(f"{flower}/healthcheck").status_code == 200
    assert demo.end(signal.SIGTERM) == 0
    assert demo.processes() == []


@pytest.mark.timeout(400)
def test_killed_demo_takes_the_shop_along(start_demo: StartDemo) -> None:
    """Nothing outlives a demo, even one that had no chance to say good-bye."""
    demo = start_demo("--quick")
    wait_until(lambda: len(demo.processes()) > 10, START_SECONDS, "the shop is being started")

    demo.end(signal.SIGKILL)

    wait_until(lambda: not demo.processes(), STOP_SECONDS, "all processes have ended")
