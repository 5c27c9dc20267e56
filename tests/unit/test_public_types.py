"""What a type checker tells users."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_public_names_have_the_types_that_users_rely_on() -> None:
    """What tests/typing asserts holds, and what it marks as wrong is an error."""
    command = [sys.executable, "-m", "mypy", "--explicit-package-bases", "tests/typing"]

    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250
    )

    assert done.returncode == 0, done.stdout + done.stderr
