"""How a demo ends: by Ctrl-C, by SIGTERM, by SIGKILL."""

import signal
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

from demo.__main__ import NOT_STARTED
from demo.__main__ import demo as command
from demo.runner import LOG
from resilience.testing.waiting import wait_until
from tests.acceptance.running_demo import START_SECONDS, STOP_SECONDS, Demo, StartDemo

LIGHT = ("--sabotage", "one-worker")
"""A shop with one worker for all dependencies ends as any other, and costs half to start."""
LAST = "flower"
"""The program that a shop starts last. By then no other is ready."""
WHILE = [
    pytest.param(None, id="starting", marks=pytest.mark.long),
    pytest.param("warming up", id="warming-up", marks=pytest.mark.long),
]
"""What a demo says when it is to end: nothing yet, as its programs are starting, or its traffic."""


def await_words(demo: Demo, words: str | None) -> None:
    """Wait until a demo is so far that it says *words*; None: that its programs start."""
    if words:
        demo.await_output(words)
    wait_until(lambda: has_started_all(demo), START_SECONDS, "the shop is being started")


def has_started_all(demo: Demo) -> bool:
    """Tell whether a demo has started every program of its shop."""
    with suppress(psutil.Error):  # one has ended meanwhile
        return any(LAST in process.cmdline() for process in demo.processes())
    return False


@pytest.mark.long
def test_shop_stays_up_until_it_is_told_to_stop(start_demo: StartDemo) -> None:
    """The addresses that `up` prints answer; SIGTERM ends it."""
    demo = start_demo("up")
    demo.await_output("Flower")
    words = demo.output.split()
    front = next(word for word in words if word.endswith("/recommendations/7"))
    flower = words[words.index("Flower") + 1]

    assert httpx.get(front).json()["_meta"]["level"] <= 3
    assert httpx.get(f"{flower}/healthcheck").status_code == 200
    assert demo.end(signal.SIGTERM) == 0
    assert demo.processes() == []


@pytest.mark.parametrize("words", WHILE)
def test_demo_keeps_a_second_one_out_and_leaves_nothing_behind_when_it_is_interrupted(
    start_demo: StartDemo, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C stops all, while the shop is being started as in the middle of the traffic."""
    demo = start_demo(*LIGHT)
    await_words(demo, words)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    second = CliRunner().invoke(command, ["up"])
    signal.signal(signal.SIGTERM, before)

    assert second.exit_code == NOT_STARTED
    assert f"another demo runs here and writes to {LOG}" in second.output
    assert demo.end(signal.SIGINT) == 130
    assert demo.processes() == []
    assert "All processes have ended." in demo.output


@pytest.mark.long
@pytest.mark.parametrize("words", WHILE)
def test_killed_demo_takes_the_shop_along(start_demo: StartDemo, words: str | None) -> None:
    """Nothing outlives a demo, even one that had no chance to say good-bye."""
    demo = start_demo("--quick", *LIGHT)
    await_words(demo, words)

    demo.end(signal.SIGKILL)

    wait_until(lambda: not demo.processes(), STOP_SECONDS, "all processes have ended")
    assert demo.processes() == []
