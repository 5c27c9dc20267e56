"""The limits of the shop's front."""

import subprocess
import sys
from pathlib import Path

from resilience.testing.process import inherited_env

TESTS = Path(__file__).with_name("front_limits.py")


def test_front_keeps_its_limits() -> None:
    """The tests run in a process of their own: every app of a process gets the shop's tasks."""
    words = ["-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", str(TESTS)]
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "pytest", *words],
        env=inherited_env({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
