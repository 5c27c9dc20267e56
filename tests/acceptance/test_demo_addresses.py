"""What `up` prints when its shop is up."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console

from demo.__main__ import show_addresses
from demo.databases.control import PARTS
from demo.layout import HTTP_UPSTREAMS, Layout

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(?:/(\w+))?")


def test_addresses_that_are_printed_are_those_that_programs_are_told_to_listen_at(
    tmp_path: Path,
) -> None:
    """The front's, Flower's, and those at which each service and each server is broken."""
    layout, printed = Layout.pleasant(tmp_path), StringIO()
    commands = {one.name: " ".join(one.command) for one in layout.programs()}
    show_addresses(Console(file=printed, width=120), layout)
    shown: dict[str, set[str]] = {name: set() for name in commands}
    for port, path in ADDRESS.findall(printed.getvalue()):
        (program,) = (name for name, words in commands.items() if port in re.split(r"[ =]", words))
        shown[program].add(path)

    assert {name: paths for name, paths in shown.items() if paths} == {
        **{name: {"fault"} for name in (*HTTP_UPSTREAMS, "mail")},
        "databases": set(PARTS),
        "front": {"recommendations", "orders", "docs"},
        "flower": {""},
    }


def test_shell_that_reads_the_environment_runs_commands_of_this_shop(tmp_path: Path) -> None:
    """The programs of this interpreter come first, and all settings are those of the workers."""
    layout = Layout.pleasant(tmp_path)
    path = tmp_path / "environment"
    path.write_text(layout.exports())

    done = subprocess.run(  # noqa: S603 - our own words
        ["/bin/sh", "-c", f". '{path}' && command -v celery && env"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    celery, *lines = done.stdout.splitlines()
    assert Path(celery).parent == Path(sys.executable).parent
    assert {f"{name}={value}" for name, value in layout.environment.items()} <= {*lines}
