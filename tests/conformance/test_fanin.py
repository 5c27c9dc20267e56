"""What every store of fan-outs does: parts come in once, the end comes once, nothing stays."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest

from resilience.errors import StoreUnavailableError
from resilience.store import Answers, FanIn, Memory, Slot, Store
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

BUDGET = 30.0
SECONDS = 120
GOOD, BAD = "+1", '-{"reason": "ConnectionError"}'


@pytest.fixture
def store(valkey: ValkeyProcess) -> Iterator[Store]:
    """A namespace of its own, on a server that may be slow but is there."""
    made = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    yield made
    made.client.close()


@pytest.fixture
def answers(store: Store) -> Answers:
    """Remembered answers of the same namespace."""
    return Answers(store)


@pytest.fixture
def fan_in(store: Store, answers: Answers) -> FanIn:
    """An empty store of fan-outs."""
    return FanIn(store, answers)


def opened(fan_in: FanIn, *parts: str, required: str = "", **options: Any) -> str:  # noqa: ANN401
    """Open a fan-out of *parts*, of which the one named is required, and return its id."""
    fan = uuid4().hex
    spec = [(part, part == required) for part in parts]
    fan_in.open(fan, spec, **{"budget": BUDGET, "memories": {}, **options})
    return fan


def slot(fan: str, part: str, **options: Any) -> Slot:  # noqa: ANN401 - as Slot's
    """Return where *part* reports."""
    return Slot(fan=fan, part=part, **options)


def at_once(*calls: Callable[[], str]) -> list[str]:
    """Return the answers of *calls*, all begun at the same moment."""
    start = Barrier(len(calls))

    def begin(call: Callable[[], str]) -> str:
        start.wait(SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def race(fan_in: FanIn, fan: str) -> list[str]:
    """Let all that could end the fan-out of a, b (required) and c happen at the same moment."""
    return at_once(
        lambda: fan_in.report(slot(fan, "a"), GOOD, full=True),
        lambda: fan_in.report(slot(fan, "b"), BAD, full=False),
        lambda: fan_in.report(slot(fan, "c"), GOOD, full=True),
        lambda: fan_in.report(slot(fan, "c"), GOOD, full=True),
        lambda: fan_in.finish(fan, "deadline"),
        lambda: fan_in.finish(fan, "deadline"),
    )


def test_fan_out_ends_with_its_last_part(fan_in: FanIn) -> None:
    """All parts in: it ends there and then, and whoever waits is woken."""
    fan = opened(fan_in, "a", "b")

    assert fan_in.report(slot(fan, "a"), GOOD, full=True) == "in"
    assert not fan_in.wait_done(fan, 0.01)
    assert fan_in.report(slot(fan, "b"), BAD, full=False) == "ended"

    assert fan_in.wait_done(fan, SECONDS)
    record = fan_in.collect(fan)
    assert record is not None
    assert record.final == "complete"
    assert record.spec == [("a", False), ("b", False)]
    assert record.ended == {"a": GOOD.encode(), "b": BAD.encode()}


def test_first_report_counts_when_a_part_reports_again(fan_in: FanIn) -> None:
    """A message delivered twice changes nothing, neither before the end nor after it."""
    fan = opened(fan_in, "a", "b")
    fan_in.report(slot(fan, "a"), GOOD, full=True)

    assert fan_in.report(slot(fan, "a"), BAD, full=False) == "duplicate"
    assert fan_in.report(slot(fan, "b"), GOOD, full=True) == "ended"
    assert fan_in.report(slot(fan, "a"), BAD, full=False) == "duplicate"

    record = fan_in.collect(fan)
    assert record is not None
    assert record.ended["a"] == GOOD.encode()
    assert record.late == 0


def test_report_after_the_end_is_late(fan_in: FanIn) -> None:
    """What comes after the end is counted, and dropped."""
    fan = opened(fan_in, "a", "b")
    fan_in.report(slot(fan, "a"), GOOD, full=True)
    fan_in.finish(fan, "deadline")

    assert fan_in.report(slot(fan, "b"), GOOD, full=True) == "late"

    record = fan_in.collect(fan)
    assert record is not None
    assert (record.final, record.late) == ("deadline", 1)
    assert "b" not in record.ended


def test_unknown_fan_out_is_gone(fan_in: FanIn) -> None:
    """Reports to a record that expired do no harm, and leave nothing behind."""
    assert fan_in.report(slot("nowhere", "a"), GOOD, full=True) == "gone"
    assert fan_in.finish("nowhere", "deadline") == "gone"
    assert fan_in.collect("nowhere") is None


def test_part_that_was_not_opened_changes_nothing(fan_in: FanIn, store: Store) -> None:
    """Id and part come from a message, which anybody can write."""
    fan = opened(fan_in, "a", required="a")
    record = store.client.hgetall(store.key("fan", fan))

    for payload in (GOOD, BAD):
        assert fan_in.report(slot(fan, "b"), payload, full=True) == "unknown"

    assert store.client.hgetall(store.key("fan", fan)) == record
    assert fan_in.report(slot(fan, "a"), GOOD, full=True) == "ended"


@pytest.mark.parametrize(
    ("remembered", "answer"), [pytest.param(False, "ended"), pytest.param(True, "in")]
)
def test_required_part_ends_the_fan_out_when_it_fails_without_a_stale_answer(
    fan_in: FanIn,
    answers: Answers,
    remembered: bool,  # noqa: FBT001 - a parameter of the test
    answer: str,
) -> None:
    """Nobody waits for the others once the response has failed; a stale answer saves it."""
    key = answers.key("a")
    fan = opened(fan_in, "a", "b", required="a", memories={"a": Memory(key, BUDGET)})
    if remembered:
        answers.remember("a", "old", max_age=BUDGET)

    assert fan_in.report(slot(fan, "a"), BAD, full=False) == answer


@pytest.mark.parametrize("why", ["deadline", "unpublished"])
def test_finish_ends_once(fan_in: FanIn, why: str) -> None:
    """The first call ends it, with its reason; the others learn that it has ended."""
    fan = opened(fan_in, "a")

    assert fan_in.finish(fan, why) == "ended"
    assert fan_in.finish(fan, "deadline") == "already"

    record = fan_in.collect(fan)
    assert record is not None
    assert record.final == why


@pytest.mark.parametrize(
    ("callback", "end"), [pytest.param("", "ended"), pytest.param("{}", "callback")]
)
def test_one_of_many_ends_it_when_all_come_at_once(fan_in: FanIn, callback: str, end: str) -> None:
    """Last parts, failed required parts and deadlines race; exactly one of them is told."""
    for _ in range(20):
        fan = opened(fan_in, "a", "b", "c", required="b", callback=callback)
        told = race(fan_in, fan)

        assert told.count(end) == 1
        assert set(told) <= {end, "in", "late", "duplicate", "already"}


def test_one_reader_is_the_first(fan_in: FanIn) -> None:
    """Of all who read an ended record one is told that nobody has before; none before the end."""
    fan = opened(fan_in, "a")
    running = fan_in.collect(fan)
    assert running is not None
    assert not running.first
    fan_in.finish(fan, "deadline")

    def first() -> str:
        record = fan_in.collect(fan)
        return "first" if record is not None and record.first else "not"

    assert at_once(*[first] * 6).count("first") == 1


def test_stale_answers_stand_in_for_failed_and_missing_parts(
    fan_in: FanIn, answers: Answers, store: Store
) -> None:
    """A remembered answer comes with its age; a part that answered keeps its own."""
    parts = {"failed": 20, "never": 5, "came": 5}
    for part, age in parts.items():
        answers.remember(part, f"old {part}", max_age=BUDGET)
        # As the server's clock cannot be turned, turn back the end of the answer's life.
        life = store.client.pttl(answers.key(part)) - 1000 * age
        store.client.pexpire(answers.key(part), life)
    keys = {part: Memory(answers.key(part), BUDGET) for part in (*parts, "unknown")}
    fan = opened(fan_in, *keys, memories=keys)
    fan_in.report(slot(fan, "failed"), BAD, full=False)
    fan_in.report(slot(fan, "came"), GOOD, full=False)
    fan_in.finish(fan, "deadline")

    record = fan_in.collect(fan)

    assert record is not None
    assert record.stale == {
        "failed": ("old failed", pytest.approx(20, abs=2)),
        "never": ("old never", pytest.approx(5, abs=2)),
    }


@pytest.mark.parametrize(
    ("payload", "full", "remembered"),
    [
        pytest.param(GOOD, True, 1, id="full"),
        pytest.param(GOOD, False, None, id="degraded"),
        pytest.param(BAD, False, None, id="failed"),
    ],
)
def test_full_answers_are_remembered(
    fan_in: FanIn,
    answers: Answers,
    payload: str,
    full: bool,  # noqa: FBT001 - a parameter of the test
    remembered: int | None,
) -> None:
    """Only a full answer may stand in later, and a late one may, too."""
    for name, end_first in (("in time", False), ("late", True)):
        key = answers.key(name)
        fan = opened(fan_in, "a", memories={"a": Memory(key, BUDGET)})
        if end_first:
            fan_in.finish(fan, "deadline")

        fan_in.report(slot(fan, "a"), payload, full=full)

        found = answers.recall(key)
        assert (found.value if found else None) == remembered


def test_due_fan_out_is_taken_by_one(fan_in: FanIn) -> None:
    """A fan-out with a callback whose caller is gone is somebody's to end after its budget."""
    fan = opened(fan_in, "a", budget=0.05, callback="{}")
    opened(fan_in, "a", budget=0.05)

    taken = wait_until(lambda: fan_in.take_due()[0], SECONDS, "it is due")

    assert taken == [fan]
    assert fan_in.take_due()[0] == []
    assert fan_in.finish(fan, "deadline") == "callback"


def test_callback_is_due_again_until_it_is_settled(fan_in: FanIn) -> None:
    """Who took the callback may die: another gets it some seconds later, unless it is settled."""
    dead, settled = (opened(fan_in, "a", callback="{}") for _ in range(2))
    for fan in (dead, settled):
        assert fan_in.report(slot(fan, "a"), GOOD, full=True) == "callback"
    fan_in.settle(settled)
    taken, next_due = fan_in.take_due()
    assert taken == []
    assert next_due is not None
    assert 1.0 < next_due <= 2.0

    again = wait_until(lambda: fan_in.take_due()[0], SECONDS, "the lease is over")

    assert again == [dead]
    fan_in.settle(dead)
    assert fan_in.take_due() == ([], None)


def test_gone_fan_out_is_due_no_longer(fan_in: FanIn, store: Store) -> None:
    """A record that vanished is not looked for for ever."""
    fan = opened(fan_in, "a", budget=0.01, callback="{}")
    store.client.delete(store.key("fan", fan))
    wait_until(lambda: fan_in.take_due()[0], SECONDS, "it is due")

    assert fan_in.finish(fan, "deadline") == "gone"

    assert fan_in.take_due() == ([], None)


@pytest.mark.parametrize("callback", ["", "{}"])
@pytest.mark.parametrize("reports", [0, 1, 2])
def test_everything_expires(fan_in: FanIn, store: Store, callback: str, reports: int) -> None:
    """Whatever becomes of callers and workers, no key stays for ever."""
    fan = opened(fan_in, "a", "b", callback=callback)
    steps: list[Callable[[], object]] = [
        lambda: fan_in.report(slot(fan, "a"), GOOD, full=True),
        lambda: fan_in.report(slot(fan, "b"), GOOD, full=True),
    ]
    steps[reports:] = [lambda: fan_in.finish(fan, "deadline"), lambda: fan_in.collect(fan)]

    for step in (lambda: None, *steps):
        step()
        keys = store.client.keys(store.key("*"))
        assert {key: store.client.pttl(key) for key in keys if store.client.pttl(key) < 0} == {}

    fan_in.settle(fan)
    record = store.key("fan", fan)
    assert 290_000 < store.client.pttl(record) <= 300_000


def test_news_tell_each_part_once_and_the_end(fan_in: FanIn) -> None:
    """A reader gets what is new after its mark, and learns of the end."""
    fan = opened(fan_in, "a", "b", "c")
    fan_in.report(slot(fan, "b"), GOOD, full=True)
    fan_in.report(slot(fan, "a"), BAD, full=False)

    mark, parts, ended = fan_in.wait_news(fan, "0", SECONDS)
    assert (parts, ended) == (["b", "a"], False)
    assert fan_in.wait_news(fan, mark, 0.01) == (mark, [], False)

    fan_in.report(slot(fan, "c"), GOOD, full=True)
    _, parts, ended = fan_in.wait_news(fan, mark, SECONDS)
    assert (parts, ended) == (["c"], True)


def test_event_loop_gets_the_same_answers(fan_in: FanIn) -> None:
    """The asynchronous half waits, ends and reads like the other, and leaves the loop free."""
    fan = opened(fan_in, "a", "b")

    async def watch() -> tuple[bool, str, str | None]:
        waiting = asyncio.create_task(fan_in.wait_done_async(fan, SECONDS))
        await asyncio.to_thread(fan_in.report, slot(fan, "a"), GOOD, full=True)
        end = await fan_in.finish_async(fan, "deadline")
        record = await fan_in.collect_async(fan)
        assert record is not None
        return await waiting, end, record.final

    assert asyncio.run(watch()) == (True, "ended", "deadline")


def test_lost_store_is_said(fan_in: FanIn, valkey: ValkeyProcess) -> None:
    """Every operation names a lost store as what it is."""
    valkey.stop()
    try:
        with pytest.raises(StoreUnavailableError):
            opened(fan_in, "a")
        with pytest.raises(StoreUnavailableError):
            fan_in.report(slot("fan", "a"), GOOD, full=True)
        with pytest.raises(StoreUnavailableError):
            fan_in.wait_done("fan", SECONDS)
        with pytest.raises(StoreUnavailableError):
            fan_in.take_due()
    finally:
        valkey.start()
