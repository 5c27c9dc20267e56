"""Calls that fail at random, as a seed says."""

import asyncio
import inspect
import smtplib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import httpx
import pytest
import redis
import requests
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from resilience import ConfigurationError
from resilience.chaos.mode import ChaosMode
from tests.unit import chaos_targets
from tests.unit.chaos_targets import Bank, fetch, fetch_async

FETCH = f"{fetch.__module__}.fetch"


def fates(calls: int, call: Callable[[], object]) -> list[bool]:
    """Return which of so many calls failed."""
    failed = []
    for _ in range(calls):
        try:
            call()
        except ConnectionError:
            failed.append(True)
        else:
            failed.append(False)
    return failed


def fates_of(**options: Any) -> list[bool]:  # noqa: ANN401 - of ChaosMode
    """Return which of a hundred calls of `fetch` fail."""
    with ChaosMode(targets=FETCH, **options):
        return fates(100, lambda: chaos_targets.fetch("x"))


def test_seed_repeats_the_failures() -> None:
    """The same seed lets the same calls fail, another one others."""
    assert fates_of(seed=7) == fates_of(seed=7)
    assert fates_of(seed=7) != fates_of(seed=8)


def test_rate_is_the_share_of_calls_that_fail() -> None:
    """About 30 % by default; all and none are just that."""
    with ChaosMode(targets=FETCH, seed=1) as chaos:
        fates(2_000, lambda: chaos_targets.fetch("x"))
    assert 0.25 < len(chaos.injected) / 2_000 < 0.35
    assert all(fates_of(rate=1))
    assert not any(fates_of(rate=0))


def test_calls_of_one_target_leave_the_failures_of_another_alone() -> None:
    """How often other targets are called, and by whom, changes nothing."""
    alone = fates_of(seed=7)
    with ChaosMode(targets=[FETCH, Bank.charge], seed=7):
        beside = []
        for _ in range(100):
            fates(3, lambda: Bank().charge(1))
            beside += fates(1, lambda: chaos_targets.fetch("x"))
    assert beside == alone


def test_seed_repeats_the_failures_whatever_the_threads() -> None:
    """The n-th call of a target fails or not, whichever thread makes it."""
    expected = sum(fates_of(seed=7))
    ready = threading.Barrier(4)

    def work() -> int:
        ready.wait(60)
        return sum(fates(25, lambda: chaos_targets.fetch("x")))

    with ChaosMode(targets=FETCH, seed=7) as chaos, ThreadPoolExecutor(4) as pool:
        failed = sum(one.result() for one in [pool.submit(work) for _ in range(4)])

    assert failed == len(chaos.injected) == expected
    assert chaos.calls[FETCH] == 100


def currency() -> str:
    """Call a static method where it is looked up."""
    return Bank.currency()


def name_of_bank() -> str:
    """Call a class method where it is looked up."""
    return Bank.name()


@pytest.mark.parametrize(
    ("target", "call"),
    [
        (FETCH, lambda: chaos_targets.fetch("x")),
        (fetch, lambda: chaos_targets.fetch("x")),
        (f"{Bank.__module__}.Bank.charge", lambda: Bank().charge(1)),
        (Bank.charge, lambda: Bank().charge(1)),
        (Bank.currency, currency),
        (Bank.name, name_of_bank),
        (Bank, Bank),
        (f"{Bank.__module__}.Bank", Bank),
        (fetch_async, lambda: asyncio.run(chaos_targets.fetch_async("x"))),
        ("socket.create_connection", lambda: httpx.get("http://127.0.0.1:1")),
    ],
    ids=[
        "path", "function", "path-of-method", "method", "static", "class-method", "class",
        "path-of-class", "coroutine-function", "standard-library",
    ],
)  # fmt: skip
def test_any_callable_can_fail_by_path_or_by_object(
    target: Any,  # noqa: ANN401 - a target
    call: Callable[[], object],
) -> None:
    """What was called by its name fails, and works again afterwards."""
    before = {name: inspect.getattr_static(Bank, name) for name in dir(Bank)}
    with ChaosMode(targets=target, rate=1) as chaos:
        chaos.fail(target, error=LookupError("gone"))
        with pytest.raises((LookupError, httpx.ConnectError)):
            call()
    assert len(chaos.injected) == 1
    assert (chaos_targets.fetch, chaos_targets.fetch_async) == (fetch, fetch_async)
    assert {name: inspect.getattr_static(Bank, name) for name in dir(Bank)} == before


def test_method_of_one_object_fails_for_that_object_only() -> None:
    """A bound method names the client that fails; the others go on."""
    bank, other = Bank(), Bank()
    with ChaosMode(targets=bank.charge, rate=1):
        with pytest.raises(ConnectionRefusedError):
            bank.charge(1)
        assert other.charge(1) == 1
    assert bank.charge(1) == 1
    assert "charge" not in vars(bank)


def test_function_fails_where_it_was_imported_by_name() -> None:
    """`from client import fetch` is how most code calls it, this test too."""
    with ChaosMode(targets=FETCH, rate=1), pytest.raises(ConnectionRefusedError):
        fetch("x")
    assert fetch("x") == "x"


def test_coroutine_function_fails_when_it_is_awaited() -> None:
    """As a real one does: making the coroutine is no call."""

    async def later() -> str:
        coroutine = chaos_targets.fetch_async("x")
        with pytest.raises(ConnectionRefusedError):
            await coroutine
        return "awaited"

    with ChaosMode(targets=fetch_async, rate=1):
        assert asyncio.run(later()) == "awaited"


def places() -> list[object]:
    """Return what stands where clients are patched."""
    return [
        httpx.HTTPTransport.handle_request,
        httpx.AsyncHTTPTransport.handle_async_request,
        httpx.MockTransport.handle_request,
        requests.Session.send,
        redis.Redis.execute_command,
        redis.asyncio.Redis.execute_command,
        redis.client.Pipeline.execute,
        redis.cluster.RedisCluster.execute_command,
        smtplib.SMTP.connect,
        smtplib.SMTP.sendmail,
        fetch,
        vars(Bank)["currency"],
    ]


def statement() -> None:
    """Send a statement to a database in memory."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        engine.dispose()


def test_everything_is_restored_after_an_error() -> None:
    """Neither an error of the block nor one of the start leaves anything behind."""
    before = places()

    def end_early() -> None:
        with ChaosMode(rate=1) as chaos:
            chaos.fail(fetch)
            chaos.fail(Bank.currency)
            assert places() != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        end_early()
    assert places() == before
    statement()

    chaos = ChaosMode(rate=1, targets=["httpx", "sqlalchemy", "redis"])
    chaos.fail("builtins.int.bit_length")
    with pytest.raises(ConfigurationError, match="immutable type 'int'; name what calls it"), chaos:
        pass  # pragma: no cover - it does not begin
    assert places() == before
    statement()


def test_patch_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's own patch outlives the chaos, and what it restores later does no harm."""
    with ChaosMode(rate=1, targets=FETCH):
        monkeypatch.setattr(chaos_targets, "fetch", str.upper)
    assert chaos_targets.fetch("x") == "X"
    monkeypatch.undo()
    assert chaos_targets.fetch("x") == "x"
    monkeypatch.setattr(chaos_targets, "fetch", fetch)


def test_set_changes_what_fails_within_the_block() -> None:
    """Rate and targets, from the next call on; what is not named keeps its own."""
    with ChaosMode(rate=0, targets=FETCH) as chaos:
        assert chaos_targets.fetch("x") == "x"
        chaos.set(rate=1)
        with pytest.raises(ConnectionRefusedError):
            chaos_targets.fetch("x")
        chaos.set(targets=[Bank.charge])
        assert chaos_targets.fetch("x") == "x"
        with pytest.raises(ConnectionRefusedError):
            Bank().charge(1)
        chaos.fail(fetch, error=TimeoutError("slow"), rate=0)
        assert chaos_targets.fetch("x") == "x"
        chaos.fail(fetch, error=TimeoutError("slow"))
        with pytest.raises(TimeoutError, match="slow"):
            chaos_targets.fetch("x")
        chaos.stop()
        assert (chaos_targets.fetch("x"), Bank().charge(1)) == ("x", 1)
        chaos.set(targets=FETCH)
        with pytest.raises(ConnectionRefusedError):
            chaos_targets.fetch("x")


def test_client_fails_in_the_way_that_was_asked_for() -> None:
    """Each failure is a new error: two tracebacks never mix."""
    with ChaosMode(rate=1, targets=()) as chaos:
        chaos.fail("httpx", error=httpx.ReadTimeout("slow"))
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout, match="slow"):
                httpx.get("http://127.0.0.1:1")
    first, second = (one.error for one in chaos.injected)
    assert first is not second


def test_requests_of_a_test_to_its_own_app_never_fail() -> None:
    """They stand for the user of the app, not for a dependency of it."""

    def app(_: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    with (
        ChaosMode(rate=1),
        httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://app") as client,
    ):
        assert client.get("/").text == "hello"


def test_mocked_network_fails_as_a_real_one() -> None:
    """A suite that mocks httpx has chaos as well."""
    network = httpx.MockTransport(lambda _: httpx.Response(200))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=network) as client:
            await client.get("http://users/7")

    with ChaosMode(rate=1, targets="httpx") as chaos:
        with httpx.Client(transport=network) as client, pytest.raises(httpx.ConnectError) as error:
            client.get("http://users/7")
        with pytest.raises(httpx.ConnectError):
            asyncio.run(ask())
    assert error.value.request.url == "http://users/7"
    assert [one.call for one in chaos.injected] == ["GET http://users/7"] * 2


def test_error_of_a_database_is_that_of_its_driver() -> None:
    """Code that looks at the statement or at the driver's own error finds both."""
    with ChaosMode(rate=1, targets="sqlalchemy") as chaos:
        with pytest.raises(OperationalError) as error:
            statement()
        assert (error.value.statement, type(error.value.orig).__module__) == ("SELECT 1", "sqlite3")
    assert [(one.target, one.call) for one in chaos.injected] == [("sqlalchemy", "SELECT 1")]
    assert not event.contains(Engine, "before_cursor_execute", chaos)
    statement()


@pytest.fixture
def celerys(monkeypatch: pytest.MonkeyPatch) -> Callable[[redis.Redis], object]:
    """A function of a module of Celery that sends a command."""
    module = ModuleType("celery.backends.spy")
    exec("def ask(client): return client.ping()", vars(module))  # noqa: S102 - its module matters
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ask: Callable[[redis.Redis], object] = module.ask
    return ask


def test_calls_of_celery_are_not_those_of_the_app(
    celerys: Callable[[redis.Redis], object],
) -> None:
    """Its broker and its result backend are no clients of the user's."""
    client = redis.Redis(port=1, retry=None)
    with ChaosMode(rate=1, targets="redis") as chaos:
        with pytest.raises(redis.ConnectionError):
            celerys(client)  # nobody listens there: no chaos is needed
        assert chaos.calls == {}
        with pytest.raises(redis.ConnectionError):
            client.ping()
    assert chaos.calls == {"redis": 1}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rate": 30}, r"rate must be a share of calls, in \[0, 1\], got 30; 30 % is 0.3"),
        ({"rate": "0.3"}, "got '0.3'"),
        ({"rate": True}, "got True"),
        ({"rate": float("nan")}, "got nan"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"targets": "htpx"}, "'htpx' is no target; did you mean 'httpx'?"),
        ({"targets": ["httpx", 7]}, "a client's name, a dotted path or a callable, got 7"),
        ({"targets": "shop.nothing"}, "'shop.nothing' is no dotted path of a callable: No module"),
        ({"targets": f"{Bank.__module__}.Bnk"}, "no dotted path of a callable: module"),
        ({"targets": "tests.unit.chaos_targets.RATE"}, "chaos_targets.RATE', 0.3, is no function"),
        (
            {"targets": "tests.unit.chaos_targets.task"},
            "is no function, method or class; name one that it calls",
        ),
        ({"targets": chaos_targets.task}, "<@task: .* is no function, method or class"),
        ({"targets": lambda: 0}, "give a dotted path"),
        ({"targets": Bank().__class__.__doc__}, "dotted path"),
    ],
)
def test_mistake_is_an_error_that_names_the_value_and_the_mend(
    options: dict[str, Any], complaint: str
) -> None:
    """It is raised where it was written, before anything fails."""
    with pytest.raises(ConfigurationError, match=complaint):
        ChaosMode(**options)


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (smtplib.SMTPDataError, "cannot be made.*give a function that makes it"),
        (dict, "must be an exception, or make one"),
        ("gone", "cannot be made"),
    ],
)
def test_error_that_is_none_is_refused(error: Any, complaint: str) -> None:  # noqa: ANN401 - none
    """Before the first call, not in the middle of a test."""
    with pytest.raises(ConfigurationError, match=complaint):
        ChaosMode(targets=()).fail(fetch, error=error)


def test_missing_client_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it is left out; by name it is an error."""
    monkeypatch.setattr("resilience.chaos.mode.is_installed", lambda name: name != "requests")
    assert "requests" not in ChaosMode()._rates  # noqa: SLF001 - nothing else tells before a call
    with pytest.raises(ConfigurationError, match="pip install requests"):
        ChaosMode(targets="requests")
