"""How a demo ends: by Ctrl-C, by SIGTERM, by SIGKILL."""

import signal

import httpx
import pytest

from resilience.testing.waiting import wait_until
from tests.acceptance.running_demo import START_SECONDS, STOP_SECONDS, StartDemo

MANY = 10
"""So many processes run when a shop is being started, and more than that when it is up."""


@pytest.mark.timeout(400)
def test_shop_stays_up_until_it_is_told_to_stop_and_keeps_a_second_one_out(
    start_demo: StartDemo,
) -> None:
    """The addresses that `up` prints answer; who starts another demo is told; SIGTERM ends it."""
    demo = start_demo("up")
    demo.await_output("Flower")
    words = demo.output.split()
    front = next(word for word in words if word.endswith("/recommendations/7"))
    flower = words[words.index("Flower") + 1]
    second = start_demo()

    assert second.process.wait(START_SECONDS) == 2
    assert "another demo runs here" in second.output
    assert httpx.get(front).json()["_meta"]["level"] <= 3
    assert httpx.get(f"{flower}/healthcheck").status_code == 200
    assert demo.end(signal.SIGTERM) == 0
    assert demo.processes() == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("words", [None, pytest.param("warming up", marks=pytest.mark.chaos)])
def test_interrupted_demo_leaves_nothing_behind(start_demo: StartDemo, words: str | None) -> None:
    """Ctrl-C stops all, while the shop is being started as in the middle of the traffic."""
    demo = start_demo()
    if words:
        demo.await_output(words)
    wait_until(lambda: len(demo.processes()) > MANY, START_SECONDS, "the shop is being started")

    assert demo.end(signal.SIGINT) == 130
    assert demo.processes() == []
    assert "All processes have ended." in demo.output


@pytest.mark.timeout(400)
def test_killed_demo_takes_the_shop_along(start_demo: StartDemo) -> None:
    """Nothing outlives a demo, even one that had no chance to say good-bye."""
    demo = start_demo("--quick")
    wait_until(lambda: len(demo.processes()) > MANY, START_SECONDS, "the shop is being started")

    demo.end(signal.SIGKILL)

    wait_until(lambda: not demo.processes(), STOP_SECONDS, "all processes have ended")
    assert demo.processes() == []
