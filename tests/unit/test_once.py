"""A job with an idempotency key, while it runs and after it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilience.errors import AlreadyRunningError
from resilience.ledger import Ledger, Running
from resilience.tasks import once
from resilience.tasks.once import Renewals, key_of, run_once
from resilience.testing.waiting import wait_until

SECONDS = 120.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", timeout_seconds=5.0)
    ledger.upgrade()
    yield ledger
    ledger.close()


def run(ledger: Ledger, body: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Run *body* under the key `k`, for a minute's time."""
    lost: list[str] = []
    value = run_once(
        ledger.claims,
        "k",
        body,
        keep_seconds=60.0,
        wait_seconds=0.0,
        on_unrecorded=lost.append,
    )
    assert lost == []
    return value


def lease_left(ledger: Ledger) -> float:
    """Return in how many seconds the lease of `k` runs out."""
    claim = ledger.claims.claim("k", owner="another", lease_seconds=1.0)
    assert isinstance(claim, Running)
    return claim.seconds


def test_lease_is_renewed_while_the_job_runs(ledger: Ledger) -> None:
    """A job of 30 s keeps its key: its lease of 10 s is never less than half of that."""
    lefts: list[float] = []

    def renewed() -> bool:
        lefts.append(lease_left(ledger))
        return lefts[-1] > min(lefts) + 1.0

    def body() -> str:
        wait_until(renewed, SECONDS, "the lease is renewed")
        return "sent"

    assert run(ledger, body) == "sent"

    assert lefts[0] == pytest.approx(10.0, abs=1.0)
    assert min(lefts) > 5.0


def test_second_job_waits_no_longer_than_it_is_told(ledger: Ledger) -> None:
    """It hears when to come back: once the lease of the first has run out, if it is killed."""
    with pytest.raises(AlreadyRunningError) as caught:
        run(ledger, lambda: run(ledger, list))

    assert caught.value.retry_after == pytest.approx(10.0, abs=1.0)


def test_lease_of_a_short_job_is_not_renewed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends within three seconds costs no renewal, whatever else runs in the process."""
    renewals = Renewals()
    ledger.claims.claim("k", owner="o", lease_seconds=5.0)
    renewals.hold(ledger.claims, "k", "o")

    assert 0 < renewals.renew_due() <= 3.0
    assert lease_left(ledger) <= 5.0

    monkeypatch.setattr(once, "RENEW_SECONDS", 0.0)
    renewals.hold(ledger.claims, "k", "o")
    renewals.renew_due()
    renewals.drop("o")

    assert lease_left(ledger) > 5.0


def test_forked_child_renews_what_runs_in_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The leases of its parent are the parent's, and so is the thread that renews them."""
    renewals = Renewals()
    monkeypatch.setattr(once, "RENEW_SECONDS", 3600.0)  # nothing becomes due, however long it takes
    renewals.hold(None, "k", "parent")  # type: ignore[arg-type] # so nobody asks it
    child = os.fork()
    if child == 0:
        alone = not renewals._held  # noqa: SLF001 - nothing else tells
        renewals.hold(None, "k", "child")  # type: ignore[arg-type] # as above
        thread = renewals._thread  # noqa: SLF001 - as above
        os._exit(0 if alone and thread is not None and thread.is_alive() else 1)
    _, status = os.waitpid(child, 0)
    renewals.drop("parent")

    assert status == 0


def test_argument_that_the_key_does_not_name_is_not_looked_at() -> None:
    """A large one costs nothing, and one without a text is no error."""

    class Secret:
        def __str__(self) -> str:
            raise AssertionError

    assert key_of("send", "order:{id}", {"id": "a/1", "body": Secret()}) == "send:order:'a%2F1'"
