"""Pytest: run a test under every fault of the dependencies that it calls.

Name it in the `conftest.py` at the root of your tests; it is not loaded by itself:

    pytest_plugins = ["resilience.testing.every_fault"]

A test with the marker `every_fault` runs once for each fault, which is in force for the whole app,
workers included, from the end of the test's fixtures until the end of its body. It fails if the
fault has not struck.

    @pytest.mark.every_fault(app="shop.app:app", dependencies=["users"])
    def test_page_is_served(client):
        assert client.get("/page").status_code == 200

All processes need `RESILIENCE_CHAOS=1`, a store, and one `RESILIENCE_RUNTIME_DIRECTORY`, in which
they write what strikes; workers do so if they run with `-I resilience.chaos.proving.in_worker`.
"""

from collections.abc import Collection, Generator, Sequence
from typing import Any, Final

import pytest

from resilience.chaos.proving.call import named
from resilience.chaos.proving.inject import Injections, spread, struck
from resilience.chaos.proving.plan import Kind, Planned
from resilience.chaos.proving.records import Recorder, Records, path_of
from resilience.declared import check_known
from resilience.errors import ConfigurationError
from resilience.tasks.resilience import Resilience

MARKER: Final = "every_fault"
CALL_KINDS: Final[tuple[Kind, ...]] = ("error", "slow", "hang", "refused", "execute-then-timeout")
"""Faults that need no worker of the proof's own."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    what = "run the test under every fault of these dependencies"
    config.addinivalue_line("markers", f"{MARKER}(app, dependencies=None, kinds=None): {what}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each fault."""
    mark = metafunc.definition.get_closest_marker(MARKER)
    if mark is not None:
        try:
            runs = _runs(*mark.args, **mark.kwargs)
        except (ConfigurationError, TypeError) as error:
            msg = f"{metafunc.definition.nodeid}: every_fault: {error}"
            raise pytest.UsageError(msg) from error
        ids = [f"{planned.dependency}-{planned.kind}" for _, planned in runs]
        metafunc.parametrize("planned_fault", runs, ids=ids, indirect=True)


@pytest.fixture(autouse=True)
def planned_fault(request: pytest.FixtureRequest) -> Planned | None:
    """The fault that the test runs under; None: it has no marker."""
    run = getattr(request, "param", None)
    return None if run is None else run[1]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Let the fault be in force while the test runs, and fail the test if it has not struck."""
    callspec = getattr(pyfuncitem, "callspec", None)
    run = None if callspec is None else callspec.params.get("planned_fault")
    if run is None:
        return (yield)
    adopted, planned = run
    path = path_of(adopted.app)
    records, recorder = Records(path), Recorder(adopted.app, path)
    begin = records.position()
    try:
        with Injections(adopted).in_force(planned):
            spread(adopted, [planned.dependency])
            result = yield
    finally:
        recorder.close()
    if not struck(planned, records.since(begin), adopted.app.tasks):
        pytest.fail(
            f"the fault {planned} has not struck, so the test proves nothing; does the test call "
            f"{planned.dependency}? Name those that it does: dependencies=[…]",
            pytrace=False,
        )
    return result


def _runs(
    app: Any,  # noqa: ANN401 - the app, or where it is
    *,
    dependencies: Collection[str] | None = None,
    kinds: Sequence[Kind] = CALL_KINDS,
) -> list[tuple[Resilience, Planned]]:
    """Return the faults to try.

    Args:
        app: An adopted Celery app, or `module:name` of one.
        dependencies: Those that the test calls; None: all of the app.
        kinds: Of `CALL_KINDS`.

    Raises:
        ConfigurationError: A name is unknown, or the app injects no faults.
    """
    if isinstance(app, str):
        app = named(app)
    adopted = Resilience.of(app)
    path_of(app)
    if not adopted.settings.chaos:
        msg = "set RESILIENCE_CHAOS=1 before the app is made, such as in conftest.py"
        raise ConfigurationError(msg)
    for kind in kinds:
        check_known(kind, CALL_KINDS, "No kind of fault for tests is called")
    able = adopted.dependencies
    names = list(able if dependencies is None else dependencies)
    for name in names:
        check_known(name, able, "No dependency is called")
    return [
        (adopted, Planned(name, kind))
        for name in names
        for kind in kinds
        if kind != "refused" or able[name].breaker is not None
    ]
