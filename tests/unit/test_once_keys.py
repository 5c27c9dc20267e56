"""What is one call, and what comes of a job whose key another one has, or had."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from resilience import Dependency, FireAndForgetTask, Resilience, ResilientTask, Settings
from resilience.budget import TimeoutBudget
from resilience.errors import ConfigurationError
from resilience.ledger import Ledger, Running
from resilience.tasks.once import call_once, key_of, run_once
from resilience.tasks.serialization import dumps, loads

SECONDS = 120.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", timeout_seconds=5.0)
    ledger.upgrade()
    yield ledger
    ledger.close()


def run(
    ledger: Ledger, body: Callable[[], Any], *, wait_seconds: float = 0.0, lost: Sequence[str] = ()
) -> Any:  # noqa: ANN401 - what the body returns
    """Run *body* under the key `k`, for a minute's time; *lost* says why it is not recorded."""
    said: list[str] = []
    value = run_once(
        ledger.claims,
        "k",
        body,
        keep_seconds=60.0,
        wait_seconds=wait_seconds,
        on_unrecorded=said.append,
    )
    assert said == list(lost)
    return value


def test_second_job_waits_no_longer_than_its_budget(ledger: Ledger) -> None:
    """A job that has a tenth of a second does not wait for two minutes, though it might."""

    def second() -> None:
        with TimeoutBudget(0.1):
            run(ledger, list, wait_seconds=SECONDS)

    with ThreadPoolExecutor() as pool:
        ended = run(ledger, lambda: repr(pool.submit(second).exception(timeout=SECONDS / 6)))

    assert ended.startswith("AlreadyRunningError")


def test_failed_job_gives_its_key_back(ledger: Ledger) -> None:
    """The next attempt begins at once, and not when the lease has run out."""
    with pytest.raises(ZeroDivisionError):
        run(ledger, lambda: 1 / 0)

    assert run(ledger, lambda: "sent") == "sent"


def test_job_that_lost_its_lease_says_that_it_is_not_recorded(ledger: Ledger) -> None:
    """It may run a second time, of which an operator must hear."""

    def body() -> str:
        claim = ledger.claims.claim("k", owner="another", lease_seconds=1.0)
        assert isinstance(claim, Running)
        ledger.claims.release("k", owner=claim.owner)
        return "sent"

    assert run(ledger, body, lost=["its lease ran out while it ran"]) == "sent"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"user": "a:b", "order": "c"}, {"user": "a", "order": "b:c"}, id="separator"),
        pytest.param({"user": "a%3Ab", "order": ""}, {"user": "a:b", "order": ""}, id="quoted"),
        pytest.param({"user": "u" * 300, "order": 1}, {"user": "u" * 300, "order": 2}, id="long"),
        pytest.param({"user": "1", "order": "a"}, {"user": 1, "order": "a"}, id="number"),
        pytest.param({"user": "None", "order": ""}, {"user": None, "order": ""}, id="none"),
        pytest.param({"user": True, "order": ""}, {"user": 1, "order": ""}, id="truth"),
        pytest.param({"user": [1], "order": ""}, {"user": ["1"], "order": ""}, id="within"),
        pytest.param({"user": "<1>", "order": ""}, {"user": 1, "order": ""}, id="written"),
    ],
)
def test_different_arguments_have_different_keys(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whatever characters are in them, and however long they are."""
    first, second = (key_of("shop.send", "{user}:{order}", call) for call in (one, other))

    assert first != second
    assert first == key_of("shop.send", "{user}:{order}", dict(one))
    assert max(map(len, (first, second))) <= 200


def test_key_is_unambiguous_whatever_stands_between_arguments() -> None:
    """Neither where one ends nor the name of the task can be mistaken."""
    for template in ("{a}{b}", "{a}x{b}"):
        keys = {key_of("t", template, {"a": a, "b": b}) for a, b in [("1x", "2"), ("1", "x2")]}
        keys |= {key_of("t", template, {"a": a, "b": b}) for a, b in [(1, 23), (12, 3)]}
        assert len(keys) == 4
    assert key_of("a", "b:{x}", {"x": 1}) != key_of("a:b", "{x}", {"x": 1})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_key_is_the_same_after_the_broker(value: object) -> None:
    """A job that is published again has the key that it had."""
    assert key_of("t", "{x}", {"x": value}) == key_of("t", "{x}", {"x": loads(dumps(value))})
    assert key_of("t", "{x}", {"x": (1, value)}) == key_of("t", "{x}", {"x": [1, value]})


@pytest.mark.parametrize("base", [ResilientTask, FireAndForgetTask])
def test_text_that_cannot_be_encoded_is_an_error_at_publish(base: Any) -> None:  # noqa: ANN401
    """It names the argument; one that the key does not name may be anything."""
    app: Any = Celery("keys", broker="memory://", set_as_current=False)
    settings = Settings(store_url="redis://localhost:1/0", ledger_url="sqlite:////dev/null/x")
    adopted = Resilience(app, dependencies=[Dependency("mail")], settings=settings)
    options: dict[str, Any] = {"dependency": "mail", "idempotency_key": "{user}", "shared": False}

    @app.task(name="send", base=base, **options)
    def send(user: str, text: str = "") -> None: ...

    with pytest.raises(ConfigurationError, match=r"argument 'user' .*ann\\udc80"):
        send.delay("ann\udc80")
    send.apply_async(("Zoë",), {"text": "\udc80"})
    adopted.store.client.close()
    app.close()


def test_call_runs_once_however_its_arguments_are_written(ledger: Ledger) -> None:
    """By position, by name, or left out where there is a default: it is the same call."""
    ran: list[str] = []

    def send(order: str, channel: str = "mail") -> None:
        ran.append(f"{order} by {channel}")

    task = SimpleNamespace(
        name="shop.send",
        run=send,
        request=SimpleNamespace(id="job"),
        resilience=SimpleNamespace(ledger=ledger),
        idempotency_key="{order}:{channel}",
        idempotency_seconds=60.0,
    )
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("7",), {}),
        (("7", "mail"), {}),
        ((), {"channel": "mail", "order": "7"}),
        (("7", "text"), {}),
    ]
    for args, kwargs in calls:
        call_once(task, lambda args, kwargs: send(*args, **kwargs), args, kwargs, wait_seconds=0.0)

    assert ran == ["7 by mail", "7 by text"]
