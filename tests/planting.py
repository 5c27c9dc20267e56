"""Another user of the machine, who puts files where the library will write or read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_nobody(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run *command* as another user; return what it prints."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.check_output(  # noqa: S603 - the tests' own commands
        [*user, *command], text=True, env=env, stderr=subprocess.STDOUT
    )


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Yield a directory like /tmp: all may write, and nobody may remove what others wrote."""
    with TemporaryDirectory(prefix="shared-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)
