"""Fixtures for tests with real workers."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from resilience.consistency import ConsistentSession, in_session
from resilience.databases import Databases
from tests.integration import vendor_tasks
from tests.replicated import Stage, running_stage, write


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[ModuleType]) -> set[ModuleType]:
    """What the workers of pytest-celery can run: its own tasks and ours."""
    return {*default_worker_tasks, vendor_tasks}


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str]) -> dict[str, str]:
    """Let workers of pytest-celery start as its users start them: it looks at their command."""
    return {**default_worker_env, "PRELOADED": "0"}


@pytest.fixture(scope="session")
def replicated() -> Iterator[Stage]:
    """A primary with two replicas that tests leave level; idle, they cost nothing."""
    with running_stage(replicas=2) as stage:
        yield stage


@pytest.fixture
def stage(replicated: Stage) -> Iterator[Stage]:
    """The same, without what earlier tests made and saw."""
    yield replicated
    replicated.close()


@pytest.fixture
def databases(stage: Stage) -> Databases:
    """What a process has that just started and has seen the primary once."""
    made = stage.databases(wait_seconds=0.05)
    with in_session(ConsistentSession()):
        write(made, "warm")
    stage.level()
    return made
