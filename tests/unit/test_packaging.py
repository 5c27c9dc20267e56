"""What reaches a user through `pip install`, and a developer through the lock file."""

import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import resilience
from benchmarks.__main__ import NAMES

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[a-z0-9.+!]+)( ; [^@]+)?")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel as pip would and open it."""
    directory = tmp_path_factory.mktemp("wheel")
    [path] = WheelBuilder(str(ROOT)).build(directory=str(directory))
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """Read the project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def pins() -> list[str]:
    """Read the lines of the lock file that are no comments."""
    return [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]


def is_locked(requirement: Requirement, locked: dict[str, str]) -> bool:
    """Tell whether the version in *locked* is one that *requirement* allows."""
    version = locked.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version)


def test_wheel_holds_the_library_and_nothing_else_of_the_tree(wheel: zipfile.ZipFile) -> None:
    """Installing the library brings no shop, demo, benchmark or test along."""
    roots = {name.split("/")[0] for name in wheel.namelist()}

    assert {root for root in roots if not root.endswith((".dist-info", ".data"))} == {"resilience"}
    assert len(roots) == 3


def test_wheel_brings_the_probe_as_a_script_that_imports_nothing_of_it(
    wheel: zipfile.ZipFile,
) -> None:
    """A container asks it several times a minute: to import Celery each time would cost much."""
    [script] = [name for name in wheel.namelist() if ".data/" in name]

    assert script.endswith("/scripts/resilience-health")
    source = wheel.read(script).decode()
    assert source.startswith("#!python")  # an installer puts the interpreter's path there
    imported = re.findall(r"^(?:import|from) ([a-z_]+)", source, re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


def test_version_is_that_of_the_installed_package(project: dict[str, Any]) -> None:
    """It stands in pyproject.toml only; nothing is read before somebody asks."""
    assert resilience.__version__ == project["version"]
    assert "__version__" not in vars(resilience)
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        _ = resilience.version  # type: ignore[attr-defined]


def test_wheel_holds_every_file_of_the_library(wheel: zipfile.ZipFile) -> None:
    """Scripts, migrations, pages and the typing marker are installed with the modules."""
    files = {path for path in (ROOT / "resilience").rglob("*") if path.is_file()}
    expected = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    packed = {name for name in wheel.namelist() if name.startswith("resilience/")}

    assert "resilience/py.typed" in packed
    assert packed == expected


def test_wheel_adds_the_resilience_command_to_celery(
    wheel: zipfile.ZipFile, project: dict[str, Any]
) -> None:
    """`celery -A app resilience` exists as soon as the library is installed."""
    [metadata] = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    entry_points = ConfigParser()
    entry_points.read_string(wheel.read(f"{metadata}/entry_points.txt").decode())

    assert metadata == f"celery_resilience-{project['version']}.dist-info"
    assert dict(entry_points["celery.commands"]) == {"resilience": "resilience.cli:resilience"}
    assert f"{metadata}/licenses/LICENSE" in wheel.namelist()


def test_wheel_brings_the_pytest_plugin_under_the_name_of_its_module(
    wheel: zipfile.ZipFile,
) -> None:
    """A `conftest.py` that names the module as well does not register it a second time."""
    [name] = [one for one in wheel.namelist() if one.endswith("/entry_points.txt")]
    entry_points = ConfigParser(delimiters="=")
    entry_points.read_string(wheel.read(name).decode())

    module = "resilience.testing.fixtures"
    assert dict(entry_points["pytest11"]) == {module: module}
    assert f"{module.replace('.', '/')}.py" in wheel.namelist()


def test_every_extra_of_users_is_in_the_readme(project: dict[str, Any]) -> None:
    """Nobody has to read pyproject.toml to learn what can be installed."""
    [row] = re.findall(r"^\| extras \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    missing = {one for one in project["optional-dependencies"] if f"`{one}`" not in row}
    assert missing == {"shop", "dev"}


def test_every_benchmark_is_in_the_docs() -> None:
    """Its name, and what it measures."""
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in NAMES if not re.search(rf"^\|[^|]*`{name}`", text, re.MULTILINE)] == []


def test_lock_holds_names_and_versions_only(pins: list[str]) -> None:
    """The lock file installs from whichever package index a machine is set up for."""
    assert [pin for pin in pins if not PIN.fullmatch(pin)] == []
    assert "://" not in LOCK.read_text()


def test_lock_satisfies_every_requirement_of_the_project(
    project: dict[str, Any], pins: list[str]
) -> None:
    """No dependency or extra can be added without its version being locked."""
    locked = {match["name"]: match["version"] for match in map(PIN.match, pins) if match}
    extras = project["optional-dependencies"].values()
    requirements = [
        Requirement(line) for lines in [project["dependencies"], *extras] for line in lines
    ]
    unmet = [
        str(requirement)
        for requirement in requirements
        if requirement.name != project["name"] and not is_locked(requirement, locked)
    ]

    assert unmet == []
    assert project["name"] not in locked
