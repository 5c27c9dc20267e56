"""Servers that run in a temporary directory of their own, as a user who may run them."""

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from resilience.testing.process import ServerProcess
from resilience.testing.requirement import require

Server = TypeVar("Server", bound=ServerProcess)


def run_as(name: str, home: Path) -> list[str]:
    """Return the beginning of a command that runs as user *name*, who is given *home*.

    It is empty unless the tests run as root: root cannot run these servers itself.
    """
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(name)
    os.chown(home, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={name}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def running(make: Callable[[Path], Server], name: str, *, present: bool) -> Iterator[Server]:
    """Run a server without data; if none is installed, skip the test, or fail it where CI=true."""
    require(name, present=present)
    # Not in pytest's directory, which only the user who runs the tests can enter.
    with TemporaryDirectory(prefix=f"resilience-{name.lower()}-") as home:
        server = make(Path(home))
        server.start()
        try:
            yield server
        finally:
            server.stop()
