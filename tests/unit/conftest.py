"""Fixtures for tests of the library's core."""

from uuid import uuid4

import pytest

from resilience.store import Answers, Store
from resilience.testing.valkey import ValkeyProcess
from tests.unit import budgets
from tests.unit.calling import Run, run_async, run_sync


@pytest.fixture(params=[run_sync, run_async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Both ways to call through a pipeline: what holds for one holds for the other."""
    way: Run = request.param
    return way


@pytest.fixture
def store(valkey: ValkeyProcess) -> Store:
    """A store of the test's own on the shared server; it has time, as the machine may be busy."""
    return Store(valkey.url, namespace=uuid4().hex, timeout_seconds=10)


@pytest.fixture
def answers(store: Store) -> Answers:
    """What is remembered in the test's own store."""
    return Answers(store)


@pytest.fixture
def no_answers() -> Answers:
    """Answers that a test promises not to need: nothing listens where they would be."""
    return Answers(Store("redis://127.0.0.1:9/0", namespace="nowhere"))


@pytest.fixture(params=[budgets.run_sync, budgets.run_async], ids=["sync", "async"])
def spend(request: pytest.FixtureRequest) -> Run:
    """Both ways to call under a budget: what holds for one holds for the other."""
    way: Run = request.param
    return way
