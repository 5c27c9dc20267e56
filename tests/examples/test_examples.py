"""The apps below `examples/`, as they were and as they are once they have adopted the library."""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from resilience.testing.process import ServerProcess
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.acceptance.upstream import Upstream
from tests.examples.bookshop import SECONDS, Bookshop, running_bookshop

CELERY = [sys.executable, "-m", "celery"]
FRAMEWORKS = (
    "django",
    *(pytest.param(one, marks=pytest.mark.long) for one in ("flask", "fastapi")),
)
NUMBERS = itertools.count(1)
"""Of orders: all the apps send their mails to one server."""


def check_healthy(shop: Bookshop) -> None:
    """Check what both versions of an app do while everything is well."""
    assert len(shop.get("/recommendations/7")["data"]) == 10
    assert shop.get("/summary/7") == {"data": "10 products"}
    number = next(NUMBERS)
    shop.order(number)
    shop.await_mail(number)
    assert shop.mails(number) == 1


def check_schedule(shop: Bookshop) -> None:
    """Check that what beat asks for is done: a plain task that Django's settings schedule."""
    number = next(NUMBERS)
    shop.order(number)
    beat = ServerProcess(
        [*CELERY, "-A", "bookshop", "beat", "-s", str(shop.home / "beat"), "--pidfile="],
        ready="LocalTime",
        log_path=shop.home / "beat.log",
        env=shop.env,
    )
    try:
        beat.start()
        wait_until(
            lambda: shop.get(f"/orders/{number}")["reminded"] >= 2, SECONDS, "beat asked twice"
        )
    finally:
        beat.stop()
    shop.await_mail(number)
    assert wait_until(
        lambda: shop.get(f"/orders/{number}")["mailed"], SECONDS, "the database knows of the mail"
    )


def await_full(shop: Bookshop) -> None:
    """Wait until recommendations are as good as they can be; a busy machine may cut an attempt."""
    wait_until(
        lambda: shop.get("/recommendations/7")["_meta"]["level"] == 0, SECONDS, "answers are full"
    )


def put_faults(services: Mapping[str, Upstream]) -> None:
    """Break both services."""
    services["recommendations"].put_fault("hang")
    services["mail"].put_fault("fail")


@pytest.mark.long
@pytest.mark.parametrize("framework", ["flask", "django", "fastapi"])
def test_example_before_adoption_fails_with_its_dependencies(
    framework: str, services: Mapping[str, Upstream], valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """The app as it was works, answers errors while a service hangs, and loses a mail.

    What beat asks for is done, before the adoption as after it.
    """
    valkey.flush()
    with running_bookshop(framework, "before", services, valkey.url, tmp_path) as shop:
        check_healthy(shop)
        if framework == "django":
            check_schedule(shop)
        put_faults(services)
        assert shop.web.get("/recommendations/7").status_code == httpx.codes.INTERNAL_SERVER_ERROR
        lost, later = next(NUMBERS), next(NUMBERS)
        refused = services["mail"].http.get("/stats").json()["by_mode"]["fail"]
        shop.order(lost)
        wait_until(
            lambda: services["mail"].http.get("/stats").json()["by_mode"]["fail"] > refused,
            SECONDS,
            "the mail server refused the mail",
        )
        for service in services.values():
            service.lift_fault()
        shop.order(later)
        shop.await_mail(later)
        assert shop.mails(lost) == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_example_after_adoption_degrades_and_recovers(
    framework: str, services: Mapping[str, Upstream], valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """The adopted app works as before, answers while a service hangs, and loses no mail."""
    valkey.flush()
    with running_bookshop(framework, "after", services, valkey.url, tmp_path) as shop:
        check_healthy(shop)
        if framework == "django":
            check_schedule(shop)
        await_full(shop)
        healthy = max(shop.order(next(NUMBERS)) for _ in range(3))
        put_faults(services)
        number = next(NUMBERS)
        assert shop.order(number) < healthy + 1.5
        stale = shop.get("/recommendations/7")
        assert (len(stale["data"]), stale["_meta"]["level"]) == (10, 1)
        # A plain task behind a degraded one gets the value, as ever.
        assert shop.get("/summary/8") == {"data": "3 products"}
        for service in services.values():
            service.lift_fault()
        shop.await_mail(number)
        await_full(shop)
        assert shop.mails(number) == 1
