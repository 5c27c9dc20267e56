"""The workers of an app, written for Procfiles, Docker Compose, systemd and Kubernetes."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resilience.errors import ConfigurationError
from resilience.settings import PREFIX

PROBE = ("resilience-health",)
"""Without a name: in a container there is one worker."""
LIVE = (*PROBE, "--live")
"""Fails only where a restart helps: not when the broker is away."""
PROBE_SECONDS = 15
START_SECONDS = 60
"""How long a worker may take until it consumes."""
RESTART_AFTER = 8
"""So many probes in a row must fail before Kubernetes kills: a loop that is slow to connect again
after an outage gets two minutes."""

PLAIN = re.compile(r"(?!.*: )[A-Za-z_/][A-Za-z0-9 ._/@:=-]*(?<![ :])")
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
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
        return {**asdict(self), "probe": [*PROBE, *app, self.name]}


def procfile(workers: Sequence[Worker]) -> str:
    """Return a line per worker; a Procfile has no words for times, probes and variables."""
    names = ", ".join(workers[0].environment)
    head = f"# Needs {names}, the same for all of these and for what publishes.\n" if names else ""
    return head + "".join(f"{one.name}: {shlex.join(one.command)}\n" for one in workers)


def compose(workers: Sequence[Worker], image: str) -> str:
    """Return the services of a docker-compose.yml."""
    return to_yaml({"services": {one.name: _service(one, image) for one in workers}})


def _service(worker: Worker, image: str) -> Mapping[str, Any]:
    return {
        "image": image,
        "restart": "unless-stopped",
        **({"environment": _required(worker)} if worker.environment else {}),
        # Compose replaces variables, in lists as well.
        "command": list(map(_without_variables, worker.command)),
        "stop_grace_period": f"{worker.stop_seconds}s",
        "healthcheck": {
            "test": ["CMD", *PROBE],
            "interval": f"{PROBE_SECONDS}s",
            "start_period": f"{START_SECONDS}s",
        },
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _required(worker: Worker) -> Mapping[str, str]:
    """Return variables that Compose takes from its own environment, and does not start without."""
    return {name: f"${{{name}:?one for all services}}" for name in worker.environment}


def _without_variables(word: str) -> str:
    """Return *word* so that Compose, systemd and Kubernetes replace nothing in it."""
    return word.replace("$", "$$")


def systemd(workers: Sequence[Worker], user: str) -> str:
    """Return one unit for all workers, an instance each, that run as *user*.

    Paths are those of this installation and of the working directory.
    """
    # The name that differs is the last word of each.
    command = [sys.executable, "-m", *workers[0].command[:-1]]
    seconds = max(one.stop_seconds for one in workers)
    names = " ".join(f"worker@{one.name}" for one in workers)
    lines = [
        "# /etc/systemd/system/worker@.service",
        f"# systemctl enable --now {names}",
        "[Unit]",
        "Description=Worker of %i",
        "Wants=network-online.target",
        "After=network-online.target",
        "# Never give up to start it again.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"WorkingDirectory={_escaped(str(Path.cwd()))}",
        f"ExecStart={' '.join(map(_unit_word, command))} %i",
        "Environment=RESILIENCE_RUNTIME_DIRECTORY=%t/resilience",
        "RuntimeDirectory=resilience",
        "RuntimeDirectoryPreserve=yes",
        f"User={_escaped(user)}",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        *_environment_file(workers[0]),
        "# SIGTERM to the worker alone: it stops its pool when the jobs have ended.",
        "KillMode=mixed",
        f"TimeoutStopSec={seconds}",
        "Restart=always",
        "RestartSec=1",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _environment_file(worker: Worker) -> Sequence[str]:
    if not worker.environment:
        return ["# EnvironmentFile= with addresses and secrets is yours to add."]
    return [
        f"# With {', '.join(worker.environment)}; name it in the units that publish, too.",
        f"EnvironmentFile={_escaped(str(Path.cwd() / 'resilience.env'))}",
    ]


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
    return "---\n".join(to_yaml(_deployment(name, one, image)) for name, one in by_name.items())


def _label(name: str) -> str:
    return "worker-" + name.replace("_", "-").strip("-")[:56].rstrip("-")


def _deployment(name: str, worker: Worker, image: str) -> Mapping[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    probe = {
        "exec": {"command": list(PROBE)},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": 5,
    }
    live = {**probe, "exec": {"command": list(LIVE)}}
    # Else an outage of the broker would restart what starts in it.
    started = {**live, "periodSeconds": 3, "failureThreshold": START_SECONDS // 3}
    container: Mapping[str, Any] = {
        "name": "worker",
        "image": image,
        "command": list(map(_without_variables, worker.command)),
        **({"env": list(map(_from_secret, worker.environment))} if worker.environment else {}),
        "startupProbe": started,
        "readinessProbe": probe,
        "livenessProbe": {**live, "failureThreshold": RESTART_AFTER},
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod: Mapping[str, Any] = {
        "terminationGracePeriodSeconds": worker.stop_seconds,
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _from_secret(name: str) -> Mapping[str, Any]:
    key = name.removeprefix(PREFIX).lower().replace("_", "-")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "resilience", "key": key}}}


def to_yaml(value: Mapping[str, Any], indent: str = "") -> str:
    """Return *value* as YAML: mappings and lists of mappings in blocks, other lists in a line."""
    lines = []
    for key, one in value.items():
        head = f"{indent}{_scalar(key)}:"
        if isinstance(one, Mapping):
            lines.append(f"{head}\n{to_yaml(one, indent + '  ')}")
        elif isinstance(one, list) and one and isinstance(one[0], Mapping):
            items = (to_yaml(item, indent + "    ") for item in one)
            blocks = (f"{indent}  - {item.removeprefix(indent + '    ')}" for item in items)
            lines.append(f"{head}\n{''.join(blocks)}")
        elif isinstance(one, list):
            lines.append(f"{head} [{', '.join(map(_scalar, one))}]\n")
        else:
            lines.append(f"{head} {_scalar(one)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
