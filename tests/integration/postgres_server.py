"""A real PostgreSQL server for tests, from the binaries that Debian's package brings."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess
from resilience.testing.requirement import require

VERSIONS = Path("/usr/lib/postgresql")
ROOT_ID = 0


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run an empty server; yield the SQLAlchemy URL of its database.

    PostgreSQL does not run as root: there it is started as the user that its package makes.
    """
    programs = sorted(VERSIONS.glob("*/bin/postgres"))
    require("postgresql", present=bool(programs))
    # Not in pytest's directory, which only its owner can enter.
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    data, port = home / "data", free_port()
    if os.geteuid() == ROOT_ID:
        shutil.chown(home, "postgres")
    initdb = [str(programs[-1].with_name("initdb")), "--no-sync", "--auth=trust", "-U", "postgres"]
    options = ["-c", "fsync=off", "-k", str(home), "-h", LOCALHOST, "-p", str(port)]
    server = ServerProcess(
        _unprivileged([str(programs[-1]), "-D", str(data), *options]),
        ready="database system is ready to accept connections",
        log_path=home / "postgres.log",
        directory=home,
    )
    try:
        command = _unprivileged([*initdb, "-D", str(data)])
        subprocess.run(command, check=True, capture_output=True, cwd=home)  # noqa: S603 - ours
        server.start()
        yield f"postgresql+psycopg://postgres@{LOCALHOST}:{port}/postgres"
    finally:
        server.kill()
        shutil.rmtree(home)


def _unprivileged(command: Sequence[str]) -> list[str]:
    if os.geteuid() != ROOT_ID:
        return list(command)
    user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return ["setpriv", *user, *command]
