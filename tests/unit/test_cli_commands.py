"""The commands of `celery resilience`, up to the processes that they start."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from resilience.cli import resilience
from resilience.cli.commandline import bulkhead_worker, celery_command, default_worker
from resilience.cli.workers import worker_programs
from resilience.dependency import Dependency
from resilience.tasks.resilience import Resilience

HAND_BACK_SECONDS = 5.0
SPARE_SECONDS = 5.0

PYTHON_CELERY = [sys.executable, "-m", "celery"]


def adopted(*dependencies: Dependency) -> Resilience:
    """Return what an app with these dependencies declares."""
    return Resilience(Celery("shop", set_as_current=False), dependencies=dependencies)


SHOP = [Dependency("users", concurrency=10, timeout=1.5), Dependency("payments", pool="threads")]


def invoke(app: Celery, *words: str) -> Result:
    """Run `celery resilience` with *words*, as Celery does for its `-A app`."""
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(resilience, words, obj=context)


def parsed(*words: str) -> click.Context:
    """Return the context that a command finds when the user typed `celery` and *words*."""
    return celery.make_context("celery", [*words, "resilience", "up"])


def test_mistyped_command_is_told_which_one_is_near() -> None:
    """A line with the name, and no guess where none is near."""
    near, far = (invoke(Celery("shop", set_as_current=False), name) for name in ("chekc", "xyz"))

    assert near.exit_code == far.exit_code == 2
    assert "No such command 'chekc'. Did you mean 'check'?" in near.output
    assert "No such command 'xyz'.\n" in far.output


def test_entry_point_makes_the_group_a_celery_command() -> None:
    """Celery finds the group in an installed distribution, without a word in the app."""
    assert celery.commands["resilience"] is resilience


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["-A", "shop.app"], ["--app", "shop.app"], id="short"),
        pytest.param(["--app=shop.app"], ["--app", "shop.app"], id="equals-sign"),
        pytest.param(["-A", "resilience"], ["--app", "resilience"], id="app-called-resilience"),
        pytest.param(["-b", "redis://h/0"], ["--broker", "redis://h/0"], id="broker"),
        pytest.param(["-C", "-q"], ["--no-color", "--quiet"], id="flags"),
    ],
)
def test_global_options_reach_the_workers(typed: list[str], passed: list[str]) -> None:
    """What was typed before `resilience` stands before `worker`, flags without a value."""
    assert celery_command(parsed(*typed)) == [*PYTHON_CELERY, *passed]


def test_options_from_the_environment_are_left_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker inherits the variables anyway, and a password in one must not show in `ps`."""
    monkeypatch.setenv("BROKER_URL", "redis://:secret@host/0")

    assert celery_command(parsed()) == PYTHON_CELERY


def test_workdir_is_inherited_and_not_entered_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Celery has gone there already, so a relative directory would not be found again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deeper").mkdir()

    assert celery_command(parsed("--workdir", "deeper")) == PYTHON_CELERY
    assert Path.cwd() == tmp_path / "deeper"


def test_bulkhead_worker_has_all_limits_of_its_dependency() -> None:
    """Queues, concurrency, pool, name and prefetch are as declared; extra words come last."""
    dependency = Dependency("payments", concurrency=3, pool="threads", prefetch=2, queue="money")

    command = bulkhead_worker(["celery", "-A", "shop"], dependency, ["-l", "INFO"])

    assert command == [
        *("celery", "-A", "shop", "worker"),
        *("-Q", "money.critical,money,money.sheddable,money.retry"),
        *("-c", "3", "-P", "threads", "-n", "payments@%h"),
        *("--prefetch-multiplier", "2", "-l", "INFO"),
    ]


def test_default_worker_consumes_from_the_default_queue() -> None:
    """It has a name of its own, and no limits but the app's."""
    assert default_worker(["celery"], "celery", ["-E"]) == [
        *("celery", "worker", "-Q", "celery", "-n", "default@%h", "-E")
    ]


def test_programs_are_the_dependencies_and_the_default_queue() -> None:
    """The default queue's worker comes last and follows the app's own name for its queue."""
    shop = adopted(*SHOP)
    shop.app.conf.task_default_queue = "odds"

    programs = worker_programs(shop, ["celery"], ["-E"])

    assert list(programs) == ["users", "payments", "default"]
    assert programs["default"].command == [
        "celery",
        "worker",
        "-Q",
        "odds",
        "-n",
        "default@%h",
        "-E",
    ]
    assert all(program.command[-1] == "-E" for program in programs.values())


def test_workers_are_given_time_for_the_longest_call_when_stopped() -> None:
    """Their jobs may end or be handed back before they are killed."""
    app = adopted(Dependency("reports", timeout=60), Dependency("users", timeout=1))

    programs = worker_programs(app, ["celery"], [])

    seconds = 60 + SPARE_SECONDS + HAND_BACK_SECONDS
    assert {one.stop_seconds for one in programs.values()} == {seconds}


@pytest.mark.parametrize("words", [["worker", "users"], ["up"], ["dependencies"]])
def test_clash_of_queues_is_one_line(words: list[str]) -> None:
    """No worker is started and nothing is listed when a bulkhead shares the default queue."""
    result = invoke(adopted(Dependency("users", queue="celery")).app, *words)

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "'users' would share the queue 'celery'" in result.output


@pytest.mark.parametrize("words", [["worker", "paymnts"], ["up", "--only", "users,paymnts"]])
def test_unknown_dependency_is_one_line_that_names_the_known_ones(words: list[str]) -> None:
    """The line guesses what was meant, and the exit code is 2."""
    result = invoke(adopted(*SHOP).app, *words)

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "'paymnts'" in result.output
    assert "Did you mean 'payments'? Known are: users, payments" in result.output


@pytest.mark.parametrize("words", [["up", "users"], ["worker", "users", "payments"]])
def test_word_that_is_no_option_of_a_worker_is_refused(words: list[str]) -> None:
    """Workers that cannot start are never started; the line says how to choose several."""
    result = invoke(adopted(*SHOP).app, *words)

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "up --only NAME,NAME" in result.output


@pytest.mark.parametrize(
    ("option", "meant"),
    [("--loglevle", "--loglevel"), ("--onyl=users", "--only"), ("--concurency=2", "--concurrency")],
)
def test_slip_in_an_option_starts_no_worker(option: str, meant: str) -> None:
    """Each worker would fail at once, and be started again and again."""
    result = invoke(adopted(*SHOP).app, "up", option)

    assert result.exit_code == 2
    assert f"Did you mean {meant!r}?" in result.stderr


def test_options_of_celery_worker_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are typed behind the name, with `--` or without."""
    became: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda _, command: became.append(command))
    for words in (
        ["users", "-l", "info", "-c4", "--max-tasks-per-child=5"],
        ["users", "-l", "info", "--", "-c4", "--max-tasks-per-child=5"],
    ):
        result = invoke(adopted(*SHOP).app, "worker", *words)
        assert result.exit_code == 0, result.output
        assert became.pop()[-4:] == ["-l", "info", "-c4", "--max-tasks-per-child=5"]


@pytest.mark.parametrize("words", [["worker", "users"], ["up"], ["dependencies"]])
def test_app_that_was_not_adopted_is_told_so_in_one_line(words: list[str]) -> None:
    """The line says what is missing, and the exit code is 2."""
    result = invoke(Celery("plain", set_as_current=False), *words)

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "add Resilience(app, dependencies=[…])" in result.output
    assert "celery -A module …" in result.output


def test_dependencies_as_json_have_their_limits() -> None:
    """A script gets every dependency with its name, queue, concurrency, pool and timeout."""
    result = invoke(adopted(*SHOP).app, "dependencies", "--json")

    rows: list[dict[str, Any]] = json.loads(result.output)
    assert rows == [
        {"name": "users", "queue": "users", "concurrency": 10, "pool": "prefork", "timeout": 1.5},
        {
            "name": "payments",
            "queue": "payments",
            "concurrency": 4,
            "pool": "threads",
            "timeout": 5,
        },
    ]


def test_dependencies_as_a_table_have_one_line_each() -> None:
    """A reader gets a line per dependency with its limits, below the names of the columns."""
    result = invoke(adopted(*SHOP).app, "dependencies")

    lines = [
        line.replace("│", " ").replace("┃", " ").split() for line in result.output.splitlines()
    ]
    assert ["name", "queue", "concurrency", "pool", "timeout"] in lines
    assert ["users", "users", "10", "prefork", "1.5"] in lines
    assert ["payments", "payments", "4", "threads", "5.0"] in lines
