"""Totals of the fleet: each count is added once, whatever becomes of the answer."""

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Dependency, Level, Resilience, Settings, events
from resilience.monitor.metrics import LABELS, known_labels, read_counts
from resilience.monitor.objective import Objective, counts_until, minutes_below_full
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.tally import BATCH_MAX, Tally, name_of
from resilience.store.fleet import Batch, Exchange, StoreFleet
from resilience.testing.proxy import TcpProxy
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

MINUTE, HOUR, DAY = 60, 3_600, 86_400
KEPT = ("events", "JobKept", "users")
FULL, STALE = (("answers", "other", "users", level) for level in ("FULL", "STALE"))

GIVEN = {"level": Level.STALE, "age": 1.0, "seconds": 1.0, "reasons": {"run": "x"}}


class Process:
    """What one process has: an app of the namespace, and what it counts."""

    def __init__(self, url: str, namespace: str, *, timeout: float = 30.0) -> None:
        """Adopt an app; nobody is asked before the first count."""
        self.listener = PrometheusListener(objectives=[Objective(full=0.9)])
        self.app = Celery(broker="memory://", set_as_current=False)
        self.resilience = Resilience(
            self.app,
            dependencies=[Dependency("users")],
            settings=Settings(store_url=url, namespace=namespace, store_timeout_seconds=timeout),
            listeners=[self.listener],
        )
        tally = self.listener._tally()  # noqa: SLF001 - events and jobs are counted elsewhere
        assert tally is not None
        self.tally: Tally = tally

    def totals(self) -> dict[tuple[str, ...], float]:
        """Return the totals of the fleet."""
        store = self.resilience.store
        fields: dict[Any, Any] = {}
        for key in ("totals", "answers"):
            fields |= store.run(lambda client, key=key: client.hgetall(store.key(key)))  # type: ignore[misc]
        return read_counts(fields, known_labels(self.resilience))


@pytest.fixture
def process(server: ValkeyProcess) -> Iterator[Callable[..., Process]]:
    """Make processes of one fleet."""
    namespace, made = uuid4().hex, list[Process]()

    def make(url: str = server.url, **options: float) -> Process:
        made.append(Process(url, namespace, **options))
        return made[-1]

    yield make
    for one in made:
        one.tally.flush()
        one.resilience.store.client.close()


def test_counts_of_all_processes_add_up(process: Callable[..., Process]) -> None:
    """One look at the store shows what two processes have counted, however many series."""
    one, two = process(), process()
    for number in range(2 * BATCH_MAX + 1):
        one.tally.add("events", f"E{number}", "users")
    two.tally.add(*KEPT, amount=2.0)
    two.tally.observe("queue_wait_seconds", "users", 0.3)
    for each in (one, two):
        each.tally.flush()

    totals = two.totals()
    assert totals[KEPT] == 2
    assert totals["events", "other", "users"] == 2 * BATCH_MAX + 1
    assert totals["queue_wait_seconds", "users", "0.5"] == 1
    assert totals["queue_wait_seconds", "users", "sum"] == pytest.approx(0.3)


def test_every_type_of_event_is_counted_once(process: Callable[..., Process]) -> None:
    """No event is left out of the metrics, whatever its fields."""
    one = process()
    kinds = [getattr(events, name) for name in LABELS["event"]]
    for kind in kinds:
        values = {field.name: "x" for field in dataclasses.fields(kind)}
        one.listener(kind(**{name: GIVEN.get(name, value) for name, value in values.items()}))
    one.tally.flush()

    counted = [series for series, count in one.totals().items() if series[0] == "events"]
    assert {series[1] for series in counted} == {kind.__name__ for kind in kinds}
    assert len(counted) == len(kinds)


def test_counts_are_sent_though_the_process_calls_nobody(process: Callable[..., Process]) -> None:
    """A process whose last job has ended sends what it counted, within about a second."""
    one = process()
    one.tally.add(*KEPT)

    wait_until(lambda: one.totals().get(KEPT) == 1, 30, "the count is in the totals")


def test_threads_lose_no_count(process: Callable[..., Process]) -> None:
    """Four threads count while batches are sent."""
    one = process()
    threads = [
        threading.Thread(target=lambda: [one.tally.add(*KEPT) for _ in range(2_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        one.tally._due = 0.0  # noqa: SLF001 - not once a second
        one.resilience.pulse.refresh()
    one.tally.flush()

    assert one.totals()[KEPT] == 8_000


def test_batch_that_arrives_twice_is_added_once(process: Callable[..., Process]) -> None:
    """A late copy of a batch changes nothing, also after the next one."""
    one = process()
    fleet = StoreFleet(one.resilience.store)

    def send(number: int, process: str = "p") -> object:
        fields = {"counts": {name_of(*KEPT): 5}, "exemplars": {}}
        batch = Batch(number=number, text=json.dumps({"batch": number, **fields}))
        return fleet.ask(Exchange(process=process, evidence=[], batch=batch)).counted

    assert [send(1), send(1), send(2), send(1), send(1, "another")] == [""] * 5
    assert one.totals()[KEPT] == 15


def test_lost_answers_and_an_absent_store_lose_no_count_and_double_none(
    server: ValkeyProcess, process: Callable[..., Process]
) -> None:
    """The store adds a batch, and its answer comes too late; then it is away; then it is back."""
    proxy = TcpProxy(server.port)
    try:
        other = process()
        one = process(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.2)
        one.tally.add(*KEPT)
        one.tally.flush()
        proxy.slow(0.15)  # there in time, back too late
        one.tally.add(*KEPT)
        one.tally.flush()
        wait_until(lambda: other.totals().get(KEPT) == 2, 30, "the store added the batch")
        assert one.tally._batch is not None  # noqa: SLF001 - its answer was lost
        proxy.swallow()
        for _ in range(3):
            one.tally.add(*KEPT)
            one.tally.flush()
        proxy.resume()
        proxy.heal()
        proxy.cut()
        wait_until(lambda: other.totals().get(KEPT) == 5, 30, "the store has all counts")
        wait_until(lambda: one.tally._batch is None, 30, "the process knows it")  # noqa: SLF001 - as above
        assert other.totals()[KEPT] == 5
    finally:
        proxy.close()


def test_key_of_another_program_keeps_no_circuit_from_opening(
    process: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    """The pulse goes on without the counts, which wait; the log says why once."""
    one = process()
    store = one.resilience.store
    store.run(lambda client: client.set(store.key("totals"), "theirs"))
    with caplog.at_level(logging.ERROR, "resilience"):
        for _ in range(2):
            one.tally.add(*KEPT)
            one.tally.flush()
    assert one.resilience.pulse.scope == "fleet"
    assert [record.message for record in caplog.records if "WRONGTYPE" in record.message]
    assert len(caplog.records) == 1

    store.run(lambda client: client.delete(store.key("totals")))
    one.tally.flush()
    assert one.totals()[KEPT] == 2


def test_windows_are_exact_at_the_minute(process: Callable[..., Process]) -> None:
    """What was answered before a moment does not count, however long nobody has answered since."""
    one = process()
    store, now = one.resilience.store, one.resilience.fleet_time()
    minute = int(now - now % MINUTE)
    one.tally.add(*FULL, amount=100.0)
    one.tally.flush()
    history = {
        minute - 10 * MINUTE: {name_of(*FULL): "40"},
        minute - 2 * MINUTE: {name_of(*FULL): "70", name_of(*STALE): "1"},
    }
    fields = {str(at): json.dumps(entry) for at, entry in history.items()}
    store.run(lambda client: client.hset(store.key("history"), mapping=fields))

    moments = [minute - ago * MINUTE for ago in (20, 10, 9, 2)]
    _, before = counts_until(one.resilience, moments)

    assert [counts.get(FULL, 0.0) for counts in before] == [40, 40, 70, 70]
    assert before[3][STALE] == 1


def test_history_is_thinned_to_the_first_of_each_slot(process: Callable[..., Process]) -> None:
    """Two days of minutes become some hundred entries; the first of each hour stays."""
    one = process()
    store, now = one.resilience.store, one.resilience.fleet_time()
    minute = int(now - now % MINUTE)
    times = range(minute - 2 * DAY, minute, MINUTE)
    store.run(lambda client: client.hset(store.key("history"), mapping=dict.fromkeys(times, "{}")))
    for _ in range(3):  # at most 1,000 entries are deleted at once
        one.tally.add(*STALE)
        one.tally.flush()
        store.run(lambda client: client.hdel(store.key("history"), str(minute)))
    names: Any = store.run(lambda client: client.hkeys(store.key("history")))
    kept = {int(name) for name in names}

    hours = {at for at in times if at % HOUR == 0 and at < minute - 7 * HOUR}
    assert {at for at in kept if at < minute - 7 * HOUR} == hours | {times[0]}
    assert set(range(minute - HOUR, minute, MINUTE)) <= kept
    assert len(kept) < 250


def test_minutes_below_full_are_counted_once(process: Callable[..., Process]) -> None:
    """Many degraded answers of one minute are one minute; other months do not count."""
    one, two = process(), process()
    minute = '["minutes_below_full","users"]'
    store = one.resilience.store
    store.run(lambda client: client.hset(store.key("answers"), minute, "7|60"))
    store.run(
        lambda client: client.hset(
            store.key("history"),
            str(int(one.resilience.fleet_time())),
            json.dumps({minute: "7|60"}),
        )
    )

    def degraded() -> int:
        for each in (one, two, one, two, one, two):
            each.tally.add(*STALE)
            each.tally.flush()
        return minutes_below_full(two.resilience)["users"]

    assert degraded() in {1, 2}  # the minute may end meanwhile
    assert one.totals()[STALE] == 6


@pytest.mark.parametrize("entry", ["[", "[1]", "7", '{"a": {}}', "[" * 100_000], ids=range(5))
def test_history_that_cannot_be_read_counts_as_empty(
    process: Callable[..., Process], entry: str
) -> None:
    """Nonsense in the history raises nothing."""
    one = process()
    store = one.resilience.store
    later = str(int(one.resilience.fleet_time()) + HOUR)
    store.run(lambda client: client.hset(store.key("history"), later, entry))
    store.run(lambda client: client.hset(store.key("history"), "x", entry))

    assert counts_until(one.resilience, [0.0]) == ({}, [{}])
