"""Servers whose data is in a directory of their own."""

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
    """Return what to put before a command that root cannot run itself; *home* is that user's."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(name)
    os.chown(home, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={name}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def running(make: Callable[[Path], Server], name: str, *, present: bool) -> Iterator[Server]:
    """Run a server with no data; skip or fail the test if there is none to run."""
    require(name, present=present)
    # Not in pytest's own directory, which only the user who runs the tests can reach.
    with TemporaryDirectory(prefix=f"resilience-{name.lower()}-") as home:
        server = make(Path(home))
        server.start()
        try:
            yield server
        finally:
            server.stop()
