"""Fixtures for tests of the shop and of what it depends on."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from jobs.models import open_engine
from resilience.testing.plugin import running_valkey
from tests.acceptance.running_demo import STOP_SECONDS, Demo, StartDemo
from tests.acceptance.shop import Shop, running_shop
from tests.acceptance.upstream import Upstream, running

SERVICES = ("users", "recommendations", "payments", "search", "mail")


@pytest.fixture(scope="session")
def upstream_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Upstream]]:
    """Run all five services, started together."""
    directory = tmp_path_factory.mktemp("upstreams")
    contexts = {name: running(name, directory) for name in SERVICES}
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(SERVICES)) as pool:
            started = pool.map(stack.enter_context, contexts.values())
        yield dict(zip(contexts, started, strict=True))


@pytest.fixture
def upstreams(upstream_processes: Mapping[str, Upstream]) -> Iterator[Mapping[str, Upstream]]:
    """All five services by name, without a fault before and after the test."""
    yield upstream_processes
    for upstream in upstream_processes.values():
        upstream.lift_fault()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of a database that `python -m jobs.seed` has filled."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db"
    subprocess.run([sys.executable, "-m", "jobs.seed", url], check=True)  # noqa: S603 - ours
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def shop_processes(
    upstream_processes: Mapping[str, Upstream],
    shop: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """Run the whole shop."""
    with (
        running_valkey(tmp_path_factory) as valkey,
        running_shop(
            upstream_processes, valkey, str(shop.url), tmp_path_factory.mktemp("front")
        ) as running,
    ):
        yield running


@pytest.fixture
def healthy_shop(shop_processes: Shop, upstreams: Mapping[str, Upstream]) -> Shop:
    """The whole shop, every endpoint of which answers in full before the test."""
    del upstreams  # lifts the faults after the test
    shop_processes.await_health()
    return shop_processes


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Start demos in one directory; what is left of them after the test is killed."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for demo in started:
        for process in demo.processes():
            process.kill()
        demo.process.wait(STOP_SECONDS)
