"""The limits of the shop's front."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("front_limits.py")


def test_front_keeps_its_limits() -> None:
    """The tests run in a process of their own: every app of a process gets the shop's tasks."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stdout + done.stderr
