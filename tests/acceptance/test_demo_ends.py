"""How a demo ends: by Ctrl-C, by SIGTERM, by SIGKILL."""

import signal

import httpx
import pytest

from resilience.testing.waiting import wait_until
from tests.acceptance.running_demo import START_SECONDS, STOP_SECONDS, StartDemo


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

    assert wait_until(lambda: not demo.processes(), STOP_SECONDS, "all processes have ended")
