"""Output of several programs on one terminal."""

import os
from pathlib import Path

import pytest
from supervisor import loggers  # type: ignore[import-untyped]

from resilience.cli.terminal import Terminal, TerminalHandler

LINE_MAX_BYTES = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that stands for the screen."""
    return tmp_path / "screen"


@pytest.fixture
def terminal(path: Path) -> Terminal:
    """A terminal whose column of names is eight wide."""
    return Terminal(os.open(path, os.O_CREAT | os.O_WRONLY), name_width=8)


def test_every_line_bears_the_name_of_its_program(terminal: Terminal, path: Path) -> None:
    """The lines of one write are all told apart, and the names are aligned."""
    terminal.feed("users", b"one\ntwo\n")
    terminal.feed("payments", b"three\n")

    assert path.read_text() == "users    | one\nusers    | two\npayments | three\n"


def test_lines_come_out_whole_when_programs_write_in_turns(terminal: Terminal, path: Path) -> None:
    """A line that arrives in pieces is not cut by what another program writes in between."""
    terminal.feed("users", b"he")
    terminal.feed("payments", b"paid\n")
    terminal.feed("users", b"llo\n")

    assert path.read_text() == "payments | paid\nusers    | hello\n"


def test_unfinished_line_is_written_when_its_program_ends(terminal: Terminal, path: Path) -> None:
    """The last words of a program are shown even without a line feed, and only once."""
    terminal.feed("users", b"last words")
    terminal.finish("users")
    terminal.finish("users")

    assert path.read_text() == "users    | last words\n"


def test_bytes_that_are_no_text_pass_unchanged(terminal: Terminal, path: Path) -> None:
    """What a program writes is not decoded, so nothing it writes can fail."""
    terminal.feed("users", b"\xff\x00\n")

    assert path.read_bytes() == b"users    | \xff\x00\n"


def test_endless_line_is_cut(terminal: Terminal, path: Path) -> None:
    """A program that never ends its line is shown, and takes no more than 64 KiB of memory."""
    terminal.feed("users", b"." * (LINE_MAX_BYTES + 1))

    assert path.read_bytes() == b"users    | " + b"." * (LINE_MAX_BYTES + 1) + b"\n"


def test_closed_pipe_is_lost_and_never_an_error() -> None:
    """Writing to a pipe that nobody reads says `lost`; what comes after is dropped in silence."""
    reading, writing = os.pipe()
    terminal = Terminal(writing, name_width=5)
    os.close(reading)

    assert not terminal.lost
    terminal.feed("users", b"one\n")
    terminal.feed("users", b"two\n")

    assert terminal.lost
    os.close(writing)


def test_messages_of_supervisor_look_like_a_program(terminal: Terminal, path: Path) -> None:
    """The supervisor's own messages bear its name, without a second time stamp."""
    logger = loggers.Logger(loggers.LevelsByName.INFO, [TerminalHandler(terminal, "self")])

    logger.info("started %(name)s", name="users")

    assert path.read_text() == "self     | started users\n"
