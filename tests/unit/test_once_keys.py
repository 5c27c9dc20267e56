"""What is one call, and what comes of a job whose key another one has, or had."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resilience.budget import TimeoutBudget
from resilience.ledger import Ledger, Running
from resilience.tasks.once import call_once, key_of, run_once

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
