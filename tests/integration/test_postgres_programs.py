"""The programs of PostgreSQL, run by a user who may do less than root."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from resilience.testing.postgres_programs import LIBRARIES, PostgresPrograms, find_package
from resilience.testing.requirement import require


@pytest.fixture
def package() -> Path:
    """The directory of the wheel's package."""
    package = find_package()
    require("PostgreSQL", present=package is not None)
    assert package is not None
    return package


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that any user can be given; the one of pytest is closed to all but its owner."""
    with TemporaryDirectory() as home:
        yield Path(home)


def test_programs_run_where_they_are_installed_when_their_user_can_enter(
    package: Path, home: Path
) -> None:
    """Nothing is copied without need."""
    open_to_all = all(folder.stat().st_mode & 0o001 for folder in [package, *package.parents])
    if os.geteuid() == 0 and not open_to_all:
        pytest.skip("the wheel lies in a directory that is closed to other users")

    programs = PostgresPrograms(home, package)

    assert programs.folder.is_relative_to(package)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lets another user run the programs")
def test_programs_are_copied_when_their_user_cannot_enter_where_they_are(
    package: Path, home: Path, tmp_path: Path
) -> None:
    """As where root has the virtual environment in its home directory."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / package.name).symlink_to(package)
    (closed / LIBRARIES).symlink_to(package.parent / LIBRARIES)

    programs = PostgresPrograms(home, closed / package.name)
    programs.run("initdb", "--auth=trust", "--no-sync", f"--pgdata={home / 'data'}")

    assert programs.folder.is_relative_to(home)
    assert (home / "data" / "PG_VERSION").read_text() == "18\n"


def test_failed_program_is_reported_with_what_it_wrote(package: Path, home: Path) -> None:
    """An exit code alone explains nothing."""
    with pytest.raises(RuntimeError, match=r"pg_ctl ended with code 4: .*none"):
        PostgresPrograms(home, package).run("pg_ctl", "status", f"--pgdata={home / 'none'}")
