"""Keeps the files of a test run in memory, where there is room for them.

Tests make thousands of files: databases, logs, sockets. On a disk they take twice as much system
time, a sixth of all CPU time of tests with databases. TMPDIR names another place.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it is private
NEEDED_BYTES = 4 * 2**30
"""A whole run takes a tenth. In a container this file system has 64 MB unless someone asks."""
PREFIX = "resilience-"  # the path of a socket has 107 characters at most


def use_memory() -> Path | None:
    """Let this process and those that it starts have their temporary files in memory.

    What an earlier run left there, as one with failed tests does, is removed.

    Returns:
        The directory; None: there is no room, or another place is named.
    """
    if "TMPDIR" in os.environ or not SHARED_MEMORY.is_dir():  # noqa: TID251 - of the tests alone
        return None
    for left in SHARED_MEMORY.glob(f"{PREFIX}*"):
        with suppress(ValueError, OSError):
            if not psutil.pid_exists(int(left.name.removeprefix(PREFIX))):
                shutil.rmtree(left)
    if shutil.disk_usage(SHARED_MEMORY).free < NEEDED_BYTES:
        return None
    made = SHARED_MEMORY / f"{PREFIX}{os.getpid()}"
    made.mkdir(mode=0o711)  # servers run as other users
    os.environ["TMPDIR"] = str(made)  # noqa: TID251 - as above
    tempfile.tempdir = None  # it is read again
    return made
