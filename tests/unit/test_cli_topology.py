"""`celery … resilience topology`: the same workers in the words of four process managers."""

import configparser
import json
import shlex
import sys

import pytest
import yaml
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner

from resilience.cli import resilience
from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask
from resilience.tasks.resilience import Resilience

pytestmark = pytest.mark.usefixtures("no_ledger_named")

NAMES = ("mail", "slow_bank", "default")


def _send() -> None:
    """Do nothing."""


def topology(
    *options: str,
    names: tuple[str, ...] = NAMES[:-1],
    grace: float | None = None,
    exit_code: int = 0,
    kept: bool = False,
) -> str:
    """Return what the command prints for an app with dependencies of these names."""
    app = Celery("shop", set_as_current=False)
    declared = [Dependency(name, timeout=30.0) for name in names]
    Resilience(app, dependencies=declared, settings=Settings(grace_seconds=grace))
    if kept:
        app.task(base=FireAndForgetTask, dependency=names[0], name="send", shared=False)(_send)
    obj = CLIContext(app=app, no_color=True, workdir=None)
    done = CliRunner().invoke(resilience, ["topology", *options], obj=obj)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_procfile_has_a_line_per_worker() -> None:
    """The default format; every worker is started by its name."""
    lines = dict(line.split(": ") for line in topology().splitlines())

    assert list(lines) == list(NAMES)
    for name, command in lines.items():
        assert shlex.split(command)[-3:] == ["resilience", "worker", name]


@pytest.mark.parametrize(("grace", "seconds"), [(None, 40), (90.5, 96)])
def test_every_format_gives_the_same_time_to_stop(grace: float | None, seconds: int) -> None:
    """The grace period, which suits the longest timeout unless set, and the time to hand back."""
    services = yaml.safe_load(topology("--format", "compose", grace=grace))["services"]
    pods = yaml.safe_load_all(topology("--format", "kubernetes", grace=grace))
    unit = topology("--format", "systemd", "--user", "shop", grace=grace)
    listed = json.loads(topology("--json", grace=grace))

    assert {one["stop_grace_period"] for one in services.values()} == {f"{seconds}s"}
    assert {one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for one in pods} == {
        seconds
    }
    assert f"TimeoutStopSec={seconds}\n" in unit
    assert {one["stop_seconds"] for one in listed} == {seconds}


def test_systemd_unit_is_an_instance_per_worker() -> None:
    """One template; SIGTERM goes to the worker alone, and it is started again whatever ended it."""
    text = topology("--format", "systemd", "--user", "shop")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)

    assert "enable --now worker@mail worker@slow_bank worker@default" in text
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[:3] == [sys.executable, "-m", "celery"]
    assert command[-3:] == ["resilience", "worker", "%i"]
    assert unit["Service"]["User"] == "shop"
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Service"]["CapabilityBoundingSet"] == ""
    assert unit["Service"]["KillMode"] == "mixed"
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_kubernetes_has_a_deployment_per_worker() -> None:
    """Each is probed by a command, may not be root, and selects its own pods."""
    found = list(yaml.safe_load_all(topology("--format", "kubernetes", "--image", "shop:7")))

    assert [one["metadata"]["name"] for one in found] == [
        "worker-mail",
        "worker-slow-bank",
        "worker-default",
    ]
    for one, name in zip(found, NAMES, strict=True):
        assert (one["apiVersion"], one["kind"]) == ("apps/v1", "Deployment")
        template = one["spec"]["template"]
        assert one["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        [container] = template["spec"]["containers"]
        assert container["image"] == "shop:7"
        assert container["command"][-3:] == ["resilience", "worker", name]
        assert container["securityContext"] == {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["readinessProbe"]["exec"] == {"command": ["resilience-health"]}
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["exec"] == {"command": ["resilience-health", "--live"]}
        assert "resources" not in container


def test_kubernetes_gives_a_worker_time_to_start_and_to_connect_again() -> None:
    """A minute to start; two minutes without an event loop before it is killed."""
    for one in yaml.safe_load_all(topology("--format", "kubernetes")):
        [container] = one["spec"]["template"]["spec"]["containers"]
        seconds = {
            name: container[name]["periodSeconds"] * container[name].get("failureThreshold", 3)
            for name in ("startupProbe", "livenessProbe")
        }
        assert seconds == {"startupProbe": 60, "livenessProbe": 120}


def test_kubernetes_name_is_a_label_however_long_the_dependency_is_called() -> None:
    """At most 63 characters, which begin and end with a letter or digit."""
    long = "a" * 55 + "_" + "b" * 8
    name = yaml.safe_load(topology("--format", "kubernetes", names=(long,)).split("---\n")[0])[
        "metadata"
    ]["name"]

    assert name == f"worker-{'a' * 55}"


@pytest.mark.parametrize("user", ["root", "0", "uid 0"])
def test_systemd_unit_does_not_run_as_root(user: str) -> None:
    """Who prints as root must say who runs the workers."""
    said = topology("--format", "systemd", "--user", user, exit_code=2)

    assert "--user NAME" in said


def test_every_format_demands_one_address_of_the_ledger_for_all_workers() -> None:
    """If tasks need the ledger: nothing starts on a ledger of its own because nobody said which."""
    options = ("--user", "shop", "--format")
    services = yaml.safe_load(topology("--format", "compose", kept=True))["services"].values()
    pods = yaml.safe_load_all(topology("--format", "kubernetes", kept=True))
    unit = topology(*options, "systemd", kept=True)

    [address] = {one["environment"]["RESILIENCE_LEDGER_URL"] for one in services}
    assert address.startswith("${RESILIENCE_LEDGER_URL:?")
    for pod in pods:
        [container] = pod["spec"]["template"]["spec"]["containers"]
        [variable] = container["env"]
        assert variable == {
            "name": "RESILIENCE_LEDGER_URL",
            "valueFrom": {"secretKeyRef": {"name": "resilience", "key": "ledger-url"}},
        }
    assert "\nEnvironmentFile=" in unit
    assert "RESILIENCE_LEDGER_URL" in unit
    assert "RESILIENCE_LEDGER_URL" in topology(kept=True).splitlines()[0]
    assert "RESILIENCE_LEDGER_URL" not in topology()


def test_kubernetes_refuses_dependencies_that_would_share_a_deployment() -> None:
    """Kubernetes has no `_` in names; one of the two would silently replace the other."""
    said = topology("--format", "kubernetes", names=("a-b", "a_b"), exit_code=2)

    assert "'a-b' and 'a_b'" in said


def test_json_lists_the_workers_for_scripts() -> None:
    """With their commands, and the probe that finds each among others on a host."""
    listed = json.loads(topology("--json"))

    assert [one["name"] for one in listed] == list(NAMES)
    probe = ["resilience-health", "--app", "shop"]
    assert [one["probe"] for one in listed] == [[*probe, name] for name in NAMES]
    assert all(one["command"][0] == "celery" for one in listed)
