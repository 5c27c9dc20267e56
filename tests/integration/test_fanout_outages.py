"""Broker or store gone or hung, at any step: an answer in time, never an exception."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread, Timer
from time import perf_counter

import pytest
from celery import Celery

from resilience.levels import Level
from resilience.partial import PartAnswer, PartialResponse, assemble
from resilience.store import Slot
from resilience.tasks import FanOut, PendingResponse, Resilience, part
from resilience.tasks.reporting import report_value
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.apps.stage import (
    SECONDS,
    Stage,
    close_app,
    new_key,
    running_servers,
)
from tests.timing import no_later_than

BUDGET = 2.0
SHORT = 1.0
LONG = 60.0
TOLERANCE_SECONDS = 0.5
PRODUCTION_TIMEOUT_SECONDS = 0.1

Outage = Callable[[ValkeyProcess], None]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers without a worker: nobody answers but the test."""
    with running_servers(tmp_path_factory) as running:
        yield running


@pytest.fixture
def app(servers: Stage) -> Iterator[Celery]:
    """A caller's app, connected to servers that are up."""
    for server in (servers.broker, servers.store):
        bring_back(server)
    servers.broker.empty()
    made = servers.another_app(store_timeout_seconds=PRODUCTION_TIMEOUT_SECONDS)
    yield made
    close_app(made)


@pytest.fixture
def patient_app(servers: Stage, app: Celery) -> Iterator[Celery]:
    """One to which a busy machine is no outage of the store."""
    del app  # it has brought the servers back
    made = servers.another_app()
    yield made
    close_app(made)


def stop(server: ValkeyProcess) -> None:
    """Take the server away: connections are refused."""
    server.kill()


def hang(server: ValkeyProcess) -> None:
    """Freeze the server: connections open, and nothing answers."""
    server.send_signal(signal.SIGSTOP)


@contextmanager
def out_of_service(server: ValkeyProcess, outage: Outage) -> Iterator[None]:
    """Begin an outage, and end it with the block."""
    outage(server)
    try:
        yield
    finally:
        bring_back(server)


def bring_back(server: ValkeyProcess) -> None:
    """End an outage of either kind."""
    if server.running:
        server.send_signal(signal.SIGCONT)
    else:
        server.start()


def get(pending: PendingResponse) -> PartialResponse:
    """Ask as a thread does."""
    return pending.get()


def get_async(pending: PendingResponse) -> PartialResponse:
    """Ask as a coroutine does."""
    return asyncio.run(pending.aget())


def get_streamed(pending: PendingResponse) -> PartialResponse:
    """Ask for the parts one by one."""
    parts: list[PartAnswer] = list(pending.stream())
    assert len({one.name for one in parts}) == len(parts)
    order = {"a": 0, "b": 1}
    return assemble(sorted(parts, key=lambda one: order[one.name]))


OUTAGES = pytest.mark.parametrize("outage", [stop, hang])
ASKING = pytest.mark.parametrize("ask", [get, get_async, get_streamed])
Ask = Callable[[PendingResponse], PartialResponse]


def fan_out_of(app: Celery) -> FanOut:
    """Return a fan-out of a, required, and b."""
    echo = app.tasks["echo"]
    return FanOut(a=part(echo.s(1), required=True), b=echo.s(2))


def answer(app: Celery, pending: PendingResponse, name: str) -> None:
    """Report what the part *name* would."""
    slot = Slot(fan=pending.id, part=name)
    report_value(Resilience.of(app), slot, name)


def nothing_came(reason: str) -> PartialResponse:
    """Return the response in which everything is missing for one *reason*."""
    return PartialResponse(
        data={}, missing=["a", "b"], level=Level.FAILED, reasons={"a": reason, "b": reason}
    )


@OUTAGES
@ASKING
def test_broker_lost_before_the_first_publish(
    servers: Stage, patient_app: Celery, outage: Outage, ask: Ask
) -> None:
    """Nothing could be asked: the response says so within its budget, and operators hear why."""
    with out_of_service(servers.broker, outage), no_later_than(BUDGET + TOLERANCE_SECONDS):
        pending = fan_out_of(patient_app).apply_async(budget=BUDGET)
        response = ask(pending)

    assert response == nothing_came("Unpublished")
    (event,) = servers.announced("FanOutFinished", pending.id)
    assert event["ended"] == "unpublished"
    failed = [event for event in servers.noted("events") if event["name"] == "PublishFailed"]
    assert failed[-1]["what"] == "FanOut(a, b)"


@OUTAGES
def test_broker_lost_after_an_earlier_publish(
    servers: Stage, patient_app: Celery, outage: Outage
) -> None:
    """A connection that was good a moment ago is no excuse."""
    fan_out_of(patient_app).apply_async(budget=BUDGET)
    with out_of_service(servers.broker, outage), no_later_than(BUDGET + TOLERANCE_SECONDS):
        response = fan_out_of(patient_app).apply_async(budget=BUDGET).get()

    assert response == nothing_came("Unpublished")


def test_broker_restarted_between_two_fan_outs(servers: Stage, patient_app: Celery) -> None:
    """Connections that died while idle cost no response: the next fan-out is published."""
    fan_out_of(patient_app).apply_async(budget=BUDGET)
    servers.broker.kill()
    servers.broker.start()
    servers.broker.empty()

    pending = fan_out_of(patient_app).apply_async(budget=BUDGET)

    assert servers.broker.kept("alpha") == 2
    for name in ("a", "b"):
        answer(patient_app, pending, name)
    assert pending.get().data == {"a": "a", "b": "b"}


@OUTAGES
def test_caller_is_not_late_when_the_callback_cannot_be_published(
    servers: Stage, patient_app: Celery, outage: Outage
) -> None:
    """The callback waits for the broker; the caller does not."""
    key = new_key()
    pending = fan_out_of(patient_app).apply_async(
        budget=SHORT, on_complete=patient_app.tasks["note"].s(key)
    )
    with out_of_service(servers.broker, outage), no_later_than(SHORT + TOLERANCE_SECONDS):
        pending.get()

    taken = servers.fan_in.take_due
    wait_until(lambda: pending.id in taken()[0], SECONDS, "the callback is left to workers")


@OUTAGES
@ASKING
def test_store_lost_before_the_fan_out_begins(
    servers: Stage, app: Celery, outage: Outage, ask: Ask
) -> None:
    """Nothing can be collected, so nothing is asked: the answer is there at once, and announced."""
    with out_of_service(servers.store, outage), no_later_than(LONG / 2):
        pending = fan_out_of(app).apply_async(budget=LONG)
        response = ask(pending)

    assert response == nothing_came("StoreUnavailableError")
    (event,) = servers.announced("FanOutFinished", pending.id)
    assert (event["ended"], event["level"], event["missing"]) == ("lost", 4, ["a", "b"])
    assert servers.broker.kept("alpha") == 0


def test_callback_is_published_when_the_store_is_lost(servers: Stage, app: Celery) -> None:
    """Without a store the caller's own process hands the response over."""
    key = new_key()
    with out_of_service(servers.store, stop):
        fan_out_of(app).apply_async(budget=BUDGET, on_complete=app.tasks["note"].s(key))

    assert servers.broker.kept("celery") == 1


@OUTAGES
@ASKING
def test_store_lost_while_waiting(servers: Stage, app: Celery, outage: Outage, ask: Ask) -> None:
    """Who waits gets an answer when the budget is spent, not later and not never."""
    began = perf_counter()
    pending = fan_out_of(app).apply_async(budget=SHORT)
    answer(app, pending, "b")
    outage(servers.store)  # on a busy machine this may take longer than the budget
    with no_later_than(max(0.0, began + SHORT - perf_counter()) + TOLERANCE_SECONDS):
        response = ask(pending)
        took = perf_counter() - began
    bring_back(servers.store)

    assert took > SHORT / 2
    assert response.level is Level.FAILED
    assert "a" in response.missing


@ASKING
def test_store_lost_in_the_middle_of_waiting(servers: Stage, app: Celery, ask: Ask) -> None:
    """It makes no difference whether the wait has begun."""
    began = perf_counter()
    with no_later_than(SHORT + TOLERANCE_SECONDS):
        pending = fan_out_of(app).apply_async(budget=SHORT)
        killer = Timer(SHORT / 2, servers.store.kill)
        killer.start()
        response = ask(pending)
        took = perf_counter() - began
    killer.join()
    servers.store.start()

    assert took > SHORT / 2
    assert response == nothing_came("StoreUnavailableError")


@ASKING
def test_store_that_comes_back_in_time_loses_nothing(servers: Stage, app: Celery, ask: Ask) -> None:
    """A restart in the middle is survived: parts reported before and after it are there."""
    budget = 10.0
    pending = fan_out_of(app).apply_async(budget=budget)
    answers: list[PartialResponse] = []
    caller = Thread(target=lambda: answers.append(ask(pending)))
    caller.start()
    answer(app, pending, "b")
    servers.store.kill()
    servers.store.start()
    other = servers.another_app()
    answer(other, pending, "a")
    caller.join(budget + SECONDS)
    close_app(other)

    assert answers == [PartialResponse(data={"a": "a", "b": "b"})]


def test_lost_store_is_the_last_word(servers: Stage, app: Celery) -> None:
    """Whoever asks the same handle again gets the same answer, also when the store is back."""
    pending = fan_out_of(app).apply_async(budget=0.5)
    with out_of_service(servers.store, stop):
        first = pending.get()
    for name in ("a", "b"):
        answer(servers.app, pending, name)

    assert [pending.get(), get_async(pending), get_streamed(pending)] == [first] * 3


def test_record_that_vanished_is_said(servers: Stage, app: Celery) -> None:
    """A store that lost its data (no persistence) means missing parts, not an exception."""
    pending = fan_out_of(app).apply_async(budget=0.5)
    servers.store.flush()

    response = pending.get()

    assert response.missing == ["a", "b"]
    streamed = get_streamed(pending)
    assert replace(streamed, reasons={}) == replace(response, reasons={})
