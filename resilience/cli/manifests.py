"""The workers of an app, written for Procfiles, Docker Compose, systemd and Kubernetes."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from resilience.errors import ConfigurationError
from resilience.settings import PREFIX

UNIT_WORD = re.compile(r"[A-Za-z0-9._/@:=,+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker as a process manager starts and stops it.

    Attributes:
        name: Of its dependency, or `default`.
        command: The program and its arguments.
        stop_seconds: How long after SIGTERM it may be killed.
        app: Name of its app; empty if it has none.
        environment: Variables that it needs, with the same values as whoever publishes its jobs.
    """

    name: str
    command: Sequence[str]
    stop_seconds: int
    app: str
    environment: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON, with the command that tells on its host whether it is well."""
        app = ["--app", self.app] if self.app else []
        return {**asdict(self), "probe": ["resilience-health", *app, self.name]}


def procfile(workers: Sequence[Worker]) -> str:
    """Return a line per worker; a Procfile has no words for times, probes and variables."""
    names = ", ".join(workers[0].environment)
    head = f"# Needs {names}, the same for all of these and for what publishes.\n" if names else ""
    return head + "".join(f"{one.name}: {shlex.join(one.command)}\n" for one in workers)


def compose(workers: Sequence[Worker], image: str) -> str:
    """Return the services of a docker-compose.yml."""
    services = (_filled("compose.yaml", one, image, _required(one)) for one in workers)
    return "services:\n" + "".join(services)


def _required(worker: Worker) -> Mapping[str, str]:
    """Return variables that Compose takes from its own environment, and does not start without."""
    return {name: f"${{{name}:?one for all services}}" for name in worker.environment}


def _filled(template: str, worker: Worker, image: str, environment: object) -> str:
    """Return *template* for *worker*, with values as JSON, which is YAML as well."""
    values = {
        "name": worker.name,
        "deployment": _label(worker.name),
        "image": image,
        # Compose and Kubernetes replace variables, in lists as well.
        "command": [_without_variables(word) for word in worker.command],
        "environment": environment,
        "stop_seconds": worker.stop_seconds,
    }
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return _template(template).substitute(texts)


def _template(name: str) -> Template:
    path = files("resilience.cli").joinpath("templates", name)
    return Template(path.read_text(encoding="utf-8"))


def _without_variables(word: str) -> str:
    """Return *word* so that Compose, systemd and Kubernetes replace nothing in it."""
    return word.replace("$", "$$")


def systemd(workers: Sequence[Worker], user: str) -> str:
    """Return one unit for all workers, an instance each, that run as *user*.

    Paths are those of this installation and of the working directory.
    """
    # The name that differs is the last word of each.
    command = [sys.executable, "-m", *workers[0].command[:-1]]
    return _template("worker.service").substitute(
        units=" ".join(f"worker@{one.name}" for one in workers),
        directory=_escaped(str(Path.cwd())),
        command=" ".join(map(_unit_word, command)),
        user=_escaped(user),
        environment=_environment_file(workers[0]),
        stop_seconds=max(one.stop_seconds for one in workers),
    )


def _environment_file(worker: Worker) -> str:
    if not worker.environment:
        return "# EnvironmentFile= with addresses and secrets is yours to add."
    path = _escaped(str(Path.cwd() / "resilience.env"))
    names = ", ".join(worker.environment)
    return f"# With {names}; name it in the units that publish, too.\nEnvironmentFile={path}"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(word: str) -> str:
    escaped = _without_variables(_escaped(word))
    return escaped if UNIT_WORD.fullmatch(word) else json.dumps(escaped, ensure_ascii=False)


def kubernetes(workers: Sequence[Worker], image: str) -> str:
    """Return a Deployment per worker.

    Raises:
        ConfigurationError: Two dependencies would have Deployments of one name.
    """
    by_name: dict[str, Worker] = {}
    for one in workers:
        other = by_name.setdefault(_label(one.name), one)
        if other is not one:
            msg = (
                f"dependencies {other.name!r} and {one.name!r} would both be the Deployment "
                f"{_label(one.name)!r}; Kubernetes has no `_` in names"
            )
            raise ConfigurationError(msg)
    return "---\n".join(
        _filled("kubernetes.yaml", one, image, [*map(_from_secret, one.environment)])
        for one in workers
    )


def _label(name: str) -> str:
    return "worker-" + name.replace("_", "-").strip("-")[:56].rstrip("-")


def _from_secret(name: str) -> Mapping[str, Any]:
    key = name.removeprefix(PREFIX).lower().replace("_", "-")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "resilience", "key": key}}}
