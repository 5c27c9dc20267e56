"""Health marks, where other users of the machine can write."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.testing.process import inherited_env
from resilience.worker import probe
from tests.planting import NOBODY, as_nobody, needs_root, shared_directory

NONE = "no worker has left a mark"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp."""
    with shared_directory() as directory:
        yield directory


@pytest.fixture
def own(shared: Path) -> Path:
    """A directory of this user's own, in which others may write all the same."""
    made = shared / "own"
    made.mkdir()
    made.chmod(0o1777)
    return made


def mark_of(**changed: object) -> dict[str, Any]:
    """Return the mark of a healthy worker, whose process is the test's."""
    times = ("written_at", "looped_at", "answered_at", "progressed_at", "begun_at")
    return {
        "node": "mail@here",
        "pid": os.getpid(),
        "started": probe.started_at(os.getpid()),
        "limit_seconds": 600.0,
        **dict.fromkeys(times, time.clock_gettime(time.CLOCK_MONOTONIC)),
        "consumes": ["mail"],
        "held": [],
        "stopping": False,
        **changed,
    }


def leave(directory: Path, **changed: object) -> Path:
    """Leave a mark in *directory*, and return its file."""
    path = directory / f"mail@here{probe.SUFFIX}"
    path.write_text(json.dumps(mark_of(**changed)))
    return path


def judged(directory: Path) -> tuple[int, str]:
    """Run the probe as a command; return its exit code and what it prints."""
    done = subprocess.run(  # noqa: S603 - the script itself
        [sys.executable, "-I", probe.__file__],
        env=inherited_env({probe.DIRECTORY_VARIABLE: str(directory)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_own_mark_is_believed(own: Path) -> None:
    """Also where others may write, as in a volume that a container gets."""
    leave(own)

    assert judged(own) == (0, "mail@here: healthy: consumes mail\n")


@needs_root
def test_directory_of_another_user_is_not_believed(shared: Path) -> None:
    """Whoever makes the directory first does not decide whether a worker is healthy."""
    directory = shared / "resilience-0"
    directory.mkdir()
    leave(directory)
    os.chown(directory, NOBODY, NOBODY)

    code, said = judged(directory)

    assert code == 1
    assert f"{directory} belongs to user {NOBODY}, not 0: name another" in said


def test_link_in_place_of_the_directory_is_not_followed(shared: Path, own: Path) -> None:
    """Nobody lends the probe the marks of another directory."""
    leave(own)
    (shared / "link").symlink_to(own)

    code, said = judged(shared / "link")

    assert code == 1
    assert f"{shared / 'link'} is a link or a file: remove it" in said


@needs_root
@pytest.mark.parametrize("kind", ["mark", "link", "pipe"])
def test_what_another_user_leaves_beside_the_marks_is_not_read(
    own: Path, kind: str, tmp_path: Path
) -> None:
    """It neither hides a worker that is gone, nor lets a healthy one look sick, nor blocks."""
    theirs = own / f"theirs{probe.SUFFIX}"
    if kind == "mark":
        shutil.copy(leave(tmp_path), theirs)
        os.chown(theirs, NOBODY, NOBODY)
    elif kind == "link":
        as_nobody("ln", "-s", leave(tmp_path), theirs)
    else:
        as_nobody("mkfifo", theirs)

    assert judged(own) == (1, f"any: UNHEALTHY: {NONE} in {own}\n")
    leave(own)
    assert judged(own) == (0, "mail@here: healthy: consumes mail\n")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_probe_judges_whatever_a_mark_says(tmp_path: Path, examples: int) -> None:
    """No field of any type or size ends the probe with an error."""

    @settings(max_examples=examples)
    @given(changed=st.dictionaries(st.sampled_from(sorted(mark_of())), VALUES))
    def judge(changed: dict[str, object]) -> None:
        leave(tmp_path, **changed)
        assert probe.report(probe.verdicts(tmp_path), as_json=False) in {0, 1}

    judge()


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 60_000, f'{{"pid": {2**70}}}', "9" * 5_000], ids=range(5)
)
def test_mark_that_cannot_be_read_is_unhealthy(tmp_path: Path, text: str) -> None:
    """The verdict says so, and the other marks are judged as ever."""
    (tmp_path / f"odd{probe.SUFFIX}").write_text(text)
    leave(tmp_path)

    well, odd = probe.verdicts(tmp_path)

    assert well["healthy"]
    assert odd["says"].startswith("its mark cannot be read")
