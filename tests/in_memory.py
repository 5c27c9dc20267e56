"""Temporary files of the tests lie in memory, if the machine has enough of it.

A run makes tens of thousands of files and deletes them soon. On a disk each may take a millisecond
of CPU time: ext4 without a journal looks through all that were deleted in the last minutes for one
that it may use again. In memory each takes 0.04 ms.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - the directory in it is the run's own
PREFIX = "rtests-"
"""Before the id of the process that removes the directory. Short, as paths of sockets are."""
NEEDED_BYTES = 6 << 30
"""Of memory for files, and as much besides; a run takes up to 3 GB."""


def use(config: pytest.Config) -> None:
    """Let this run and what it starts have their temporary files in memory, until it ends.

    Not if TMPDIR is set: a runner has that of its run, and who looks at the files of a failed test
    names a directory that stays.
    """
    if "TMPDIR" in os.environ or not _is_fit():  # noqa: TID251 - as for all programs
        return
    _sweep()
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY))
    directory.chmod(0o1777)  # as /tmp: databases run as users of their own
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)  # noqa: TID251 - inherited by processes
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    config.add_cleanup(remove)


def _is_fit() -> bool:
    """Tell whether there is enough memory, and programs can be run from there."""
    if not MEMORY.is_dir():
        return False
    system = os.statvfs(MEMORY)
    free = min(system.f_bavail * system.f_frsize, psutil.virtual_memory().available // 2)
    return free >= NEEDED_BYTES and not system.f_flag & os.ST_NOEXEC


def _sweep() -> None:
    """Remove what runs that were killed have left."""
    for left in MEMORY.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
