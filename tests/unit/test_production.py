"""The shop's files for production, compared with what `topology` prints, and parsed."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from celery import Celery
from sqlalchemy import make_url

from jobs.dependencies import DEPENDENCIES
from resilience.cli.workers import worker_programs
from resilience.settings import Settings
from resilience.tasks.resilience import Resilience
from resilience.testing.process import import_path, inherited_env
from resilience.worker.stopping import stop_seconds

ROOT = Path(__file__).parents[2]
COMMAND = "celery -A workers.app resilience worker"
INSTRUCTION = re.compile(r"^([A-Z]+) (.*(?:\\\n.*)*)$", re.MULTILINE)


ADDRESSES = {
    "SHOP_BROKER_URL": "redis://broker",
    "SHOP_DATABASE_URL": "sqlite://",
    "SHOP_USERS_URL": "http://users",
    "SHOP_RECOMMENDATIONS_URL": "http://recommendations",
    "SHOP_PAYMENTS_URL": "http://payments",
    "SHOP_SEARCH_URL": "http://search",
    "SHOP_MAIL_HOST": "mail",
    "SHOP_MAIL_PORT": "25",
}


@pytest.fixture(scope="module")
def shop() -> Resilience:
    """Return what the shop declares, without the addresses that its app needs."""
    app = Celery("shop", set_as_current=False)
    return Resilience(app, dependencies=DEPENDENCIES, settings=Settings())


@cache
def topology(*options: str) -> str:
    """Call `celery -A workers.app resilience topology` with *options*, and return its output."""
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "resilience", "topology"]
    env = inherited_env({**ADDRESSES, "PYTHONPATH": import_path()})
    done = subprocess.run(  # noqa: S603 - the shop's own command
        [*command, *options], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def instructions() -> list[tuple[str, str]]:
    """Return what the Dockerfile says, in order."""
    return INSTRUCTION.findall((ROOT / "Dockerfile").read_text())


def test_procfile_starts_the_workers_of_the_topology(shop: Resilience) -> None:
    """No queue is left without a worker: every dependency has one, and so has the default queue."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    head, *printed = topology().splitlines()

    assert "RESILIENCE_LEDGER_URL" in head
    assert [one for one in lines if COMMAND in one] == printed
    assert [line.split(":")[0] for line in printed] == list(worker_programs(shop, [], []))


def test_compose_file_starts_and_stops_the_workers_of_the_topology() -> None:
    """Command, time to stop and probe are those that the catalogue of dependencies asks for."""
    written = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    printed = yaml.safe_load(topology("--format", "compose"))["services"]
    workers = {name for name, one in written.items() if COMMAND in str(one.get("command"))}

    assert workers == set(printed)
    for name, service in printed.items():
        assert shlex.split(written[name]["command"]) == service.pop("command")
        service.pop("image")
        assert set(service.pop("environment")) <= set(written[name]["environment"])
        assert {key: written[name][key] for key in service} == service


def test_compose_file_gives_a_worker_its_grace_period(shop: Resilience) -> None:
    """Docker kills a worker no sooner than `up` would."""
    services = yaml.safe_load(topology("--format", "compose"))["services"]

    assert {one["stop_grace_period"] for one in services.values()} == {f"{stop_seconds(shop):.0f}s"}


def test_compose_file_gives_all_services_one_ledger() -> None:
    """Who publishes and who works; a second ledger would strand its jobs."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    shop = [one for one in services.values() if "celery" in str(one) or "uvicorn" in str(one)]

    assert len({one["environment"]["RESILIENCE_LEDGER_URL"] for one in shop}) == 1


def test_compose_file_runs_a_replica_that_the_shop_reads_from() -> None:
    """It copies the primary that all write to, which lets it in and keeps its log for a while."""
    written = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = written["services"]
    shop = [one for one in services.values() if "celery" in str(one) or "uvicorn" in str(one)]
    replica = services["postgres-replica"]
    hosts = {
        make_url(one["environment"][name]).host
        for one in shop
        for name in ("SHOP_DATABASE_URL", "RESILIENCE_LEDGER_URL")
    }

    assert hosts == {"postgres"}
    assert {make_url(one["environment"]["SHOP_DATABASE_REPLICA_URLS"]).host for one in shop} == {
        "postgres-replica"
    }
    assert "pg_basebackup --host postgres " in replica["command"]
    assert replica["image"] == services["postgres"]["image"]
    assert (
        replica["environment"]["PGPASSWORD"]
        == services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    )
    assert {one["source"] for one in services["postgres"]["configs"]} <= written["configs"].keys()
    assert {one.split(":")[0] for one in replica["volumes"]} <= written["volumes"].keys()


def test_image_is_built_in_one_stage_and_run_in_another() -> None:
    """What builds the packages is not in the image that runs."""
    stages = [words for word, words in instructions() if word == "FROM"]

    assert len(stages) == 2
    assert ("COPY", "--from=build /venv /venv") in instructions()
    last = [word for word, _ in instructions()]
    behind = instructions()[len(last) - last[::-1].index("FROM") :]
    assert not [words for word, words in behind if word == "RUN" and "pip" in words]


def test_image_does_not_run_as_root() -> None:
    """The user is a number, which Kubernetes can tell from root's, and nothing follows as root."""
    said = instructions()
    [user] = [words for word, words in said if word == "USER"]

    assert int(user) > 0
    assert [word for word, _ in said[said.index(("USER", user)) + 1 :]] == ["HEALTHCHECK", "CMD"]


def test_image_runs_its_command_without_a_shell_and_knows_its_health() -> None:
    """Signals reach the worker itself, and the probe is the one of the topology."""
    said = dict(instructions())

    assert yaml.safe_load(said["CMD"]) == [*shlex.split(COMMAND), "default"]
    assert said["HEALTHCHECK"].endswith('CMD ["resilience-health"]')


def test_image_holds_only_what_the_build_context_lets_through() -> None:
    """Every folder and file that the Dockerfile copies is let through by .dockerignore."""
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [words.split()[:-1] for word, words in instructions() if word == "COPY"]

    assert {name for names in copied if "--from" not in names[0] for name in names} == let_through
