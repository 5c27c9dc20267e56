"""Fixtures for tests with real workers."""

from types import ModuleType

import pytest

from tests.integration import vendor_tasks


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[ModuleType]) -> set[ModuleType]:
    """What the workers of pytest-celery can run: its own tasks and ours."""
    return {*default_worker_tasks, vendor_tasks}
