"""The demo's patience with a shop that starts, on a clock and with output that are made up."""

import pytest

from demo.starting import PATIENCE_SECONDS, Start, StartError

WORDS = {"front": "running on", "worker-users": "ready to consume"}


def test_start_is_over_when_every_program_says_that_it_is_ready() -> None:
    """Only a program's own words count, wherever they stand in its line."""
    start = Start(WORDS, now=0.0)

    start.look(["front | I shall be ready to consume"], {}, now=1.0)
    assert start.ready == 0

    start.look(["worker-users | ready to consume", "front | running on 8000"], {}, now=2.0)
    assert (start.ready, start.missing) == (2, {})


def test_start_may_take_long_while_programs_work() -> None:
    """On a busy machine a program gets a hundredth of a processor, and ten minutes to start."""
    start = Start(WORDS, now=0.0)

    for now in range(0, 600, 10):
        start.look([], dict.fromkeys(WORDS, 0.01 * now), now=now)

    assert start.ready == 0


def test_start_may_take_long_while_programs_write() -> None:
    """A program that waits for a server and says so is getting somewhere."""
    start, lines = Start(WORDS, now=0.0), []

    for now in range(0, 600, 50):
        lines += [f"front | retrying at {now}", f"worker-users | retrying at {now}"]
        start.look(lines, {}, now=now)

    assert start.ready == 0


def test_program_that_does_nothing_ends_the_start_and_what_is_missing_is_shown() -> None:
    """The error names the program, and shows the output of all that are not ready."""
    start = Start({**WORDS, "flower": "Visit me"}, now=0.0)
    lines = ["flower | Visit me at", "front | importing"]
    start.look(lines, {"front": 1.0}, now=0.0)

    with pytest.raises(StartError) as raised:
        start.look(lines, {"front": 1.0}, now=PATIENCE_SECONDS + 1)

    text = str(raised.value)
    assert "front has made no progress for 90 s" in text
    assert "1 of 3 programs were ready" in text
    assert "front | importing" in text
    assert "front, after 1.0 s of processor time:" in text
    assert "worker-users, after 0.0 s of processor time:\nnothing" in text
    assert "Visit me at" not in text


def test_program_that_works_without_end_is_not_waited_for() -> None:
    """A start takes some seconds of work; a program that has had a minute of it spins."""
    start = Start(WORDS, now=0.0)
    for now in range(60):
        start.look([], {"front": float(now), "worker-users": float(now) / 2}, now=now)

    with pytest.raises(StartError, match="front is not ready after 60 s of processor time"):
        start.look([], {"front": 61.0, "worker-users": 30.0}, now=61.0)


def test_program_that_ends_is_given_two_more_chances() -> None:
    """A server that was not up yet is no reason to give up; a port that is taken for good is."""
    start, lines = Start(WORDS, now=0.0), []

    for now in range(2):
        lines.append("supervisor | backoff: front starts again in 1 s")
        start.look(lines, {}, now=now)
    lines += ["front | address in use", "supervisor | backoff: front starts again in 4 s"]

    with pytest.raises(StartError, match=r"front ended 3 times(.|\n)*address in use"):
        start.look(lines, {}, now=3.0)
