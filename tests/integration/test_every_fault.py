"""The marker `every_fault`: a user's test runs under each fault, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess

SECONDS = 60
CONFTEST = 'pytest_plugins = ["resilience.testing.every_fault"]\n'
APP = """
from celery import Celery
from resilience import Dependency, Level, Resilience, fallback

app = Celery("users")
resilience = Resilience(app, dependencies=[Dependency("users", timeout=0.2)])
users = resilience.pipeline("users", name="user", fallbacks=[fallback.static("nobody")])
"""
TESTS = """
import pytest
from users import Level, users

def test_without_the_marker():
    assert users.call(str, "ann").level is Level.FULL

@pytest.mark.every_fault(app="users:app", dependencies=["users"])
def test_page(planned_fault):
    outcome = users.call(str, "ann")
    assert outcome.value == ("ann" if planned_fault.kind == "slow" else "nobody")

@pytest.mark.every_fault(app="users:app", kinds=["error", "hang"])
def test_that_calls_nobody():
    assert True

@pytest.mark.every_fault(app="users:app", kinds=["error"])
def test_that_needs_a_full_answer():
    assert users.call(str, "ann").level is Level.FULL
"""


def run_pytest(directory: Path, store: ValkeyProcess, tests: str) -> str:
    """Return what pytest prints of *tests*."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "users.py").write_text(APP)
    (directory / "test_users.py").write_text(tests)
    env = {
        "PYTHONPATH": import_path(directory),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # others that are installed cost a second
        "RESILIENCE_CHAOS": "1",
        "RESILIENCE_STORE_URL": store.url,
        "RESILIENCE_RUNTIME_DIRECTORY": str(directory),
    }
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(directory)]
    done = subprocess.run(  # noqa: S603 - ours
        command,
        cwd=directory,
        env=inherited_env(env),
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )
    return done.stdout.decode() + done.stderr.decode()


def test_test_runs_under_each_fault_and_fails_if_it_did_not_strike(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """Each fault is a test of its own; one that never struck fails, whatever the test asserts."""
    shown = run_pytest(tmp_path, valkey, TESTS)

    for kind in ("error", "slow", "hang", "refused", "execute-then-timeout"):
        assert f"PASSED test_users.py::test_page[users-{kind}]" in shown, shown
    assert "PASSED test_users.py::test_without_the_marker" in shown
    for kind in ("error", "hang"):
        assert f"FAILED test_users.py::test_that_calls_nobody[users-{kind}]" in shown
    assert "the fault users error has not struck" in shown
    assert "FAILED test_users.py::test_that_needs_a_full_answer[users-error] - " in shown


MISTAKES = {
    'app="users:app", dependencies=["user"]': "Did you mean 'users'?",
    'app="users:app", kinds=["killed"]': "No kind of fault for tests is called 'killed'",
    'app="users:nothing"': "cannot import 'users:nothing'",
    'app="users:app", dependency=["users"]': "unexpected keyword argument 'dependency'",
}


def test_mistaken_marker_is_an_error_that_names_the_test_and_the_mend(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """A marker that would try nothing must not pass for a proof."""
    for number, mark in enumerate(MISTAKES):
        text = f"import pytest\n\n@pytest.mark.every_fault({mark})\ndef test_page():\n    pass\n"
        (tmp_path / f"test_mistake_{number}.py").write_text(text)

    shown = run_pytest(tmp_path, valkey, "")

    for number, words in enumerate(MISTAKES.values()):
        assert f"test_mistake_{number}.py::test_page: every_fault: " in shown, shown
        assert words in shown
