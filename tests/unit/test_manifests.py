"""What a process manager reads from a manifest is what the manifest was made of."""

import configparser
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from resilience.cli.manifests import Worker, compose, kubernetes, procfile, systemd

COMMAND = [
    *("celery", "-b", "redis://:p%40$s$$@h/0", "--result-backend", "100%", "$HOME", "${HOME}"),
    *("$(HOME)", "$$HOME", "%i", "a 'b' \"c\" $d", "back\\slash", "resilience", "worker", "mail"),
]
"""Words that mean something else to at least one of the process managers, unless escaped."""


def worker(*, environment: Sequence[str] = ()) -> Worker:
    """Return a worker with that command."""
    return Worker(
        name="mail", command=COMMAND, stop_seconds=40, app="shop", environment=environment
    )


def replaced(word: str, variable: str) -> str:
    """Return *word* as a process manager reads it: `$$` is `$`, and no variable has a value.

    Args:
        word: As it is written.
        variable: What names a variable behind a `$`, as a regular expression.
    """
    return re.sub(rf"\$(\$|{variable})", lambda found: "$" if found[1] == "$" else "", word)


def specified(word: str) -> str:
    """Return *word* as systemd reads it in the unit of the instance `mail`."""
    return re.sub("%(.)", lambda found: {"%": "%", "i": "mail"}.get(found[1], ""), word)


def unit_of(text: str) -> configparser.ConfigParser:
    """Return a systemd unit."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text)
    return unit


def by_procfile() -> list[str]:
    """Return what a shell runs for a line of a Procfile."""
    name, _, command = procfile([worker()]).partition(": ")
    assert name == "mail"
    return shlex.split(command)


def by_compose() -> list[str]:
    """Return what Docker Compose runs."""
    service = yaml.safe_load(compose([worker()], "shop:7"))["services"]["mail"]
    return [replaced(word, r"\w+|\{.*?\}") for word in service["command"]]


def by_systemd() -> list[str]:
    """Return what systemd runs, without the Python that it runs it with."""
    command = shlex.split(unit_of(systemd([worker()], "shop"))["Service"]["ExecStart"])
    python, option, *words = [replaced(specified(word), r"\w+|\{.*?\}") for word in command]
    assert (python, option) == (sys.executable, "-m")
    return words


def by_kubernetes() -> list[str]:
    """Return what Kubernetes runs."""
    pod = yaml.safe_load(kubernetes([worker()], "shop:7"))["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return [replaced(word, r"\(\w+\)") for word in container["command"]]


@pytest.mark.parametrize("read", [by_procfile, by_compose, by_systemd, by_kubernetes])
def test_command_is_run_as_it_was_typed(read: Callable[[], list[str]]) -> None:
    """No `$`, `%`, quote or backslash of a password or an option means anything on the way."""
    assert read() == COMMAND


def test_systemd_takes_paths_and_user_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `%` in the name of a directory or a user is no specifier."""
    home = tmp_path / "100%h"
    home.mkdir()
    monkeypatch.chdir(home)

    unit = unit_of(systemd([worker(environment=["RESILIENCE_LEDGER_URL"])], "sh%uop"))["Service"]

    assert specified(unit["WorkingDirectory"]) == str(Path.cwd())
    assert specified(unit["User"]) == "sh%uop"
    assert specified(unit["EnvironmentFile"]) == str(Path.cwd() / "resilience.env")
