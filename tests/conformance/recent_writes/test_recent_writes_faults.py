"""Recent writes when the store is lost, holds nonsense or comes back, or a process dies."""

import asyncio
import json
import os
import threading
from contextlib import suppress

import pytest

from resilience.consistency import (
    EVERYWHERE,
    ConsistentSession,
    OwnWriteUnavailableError,
    Token,
)
from resilience.consistency.reader import AsyncConsistentReader
from resilience.levels import Level
from resilience.store import Store
from resilience.store.writes import WriteStore
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.recent_writes.reader_fleet import KEY, Fleet, user
from tests.unit.cuttable_store import CuttableStore
from tests.unit.sources import WAYS, AnyReader, Make, records_of
from tests.unit.stopwatch import elapsed, next_to_nothing

DOWN = ConnectionError("refused")
UNKNOWN = "ConnectionError; recent writes are unknown"


def test_records_end_by_the_time_of_the_server(
    fleet: Fleet, server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record ends after its life even if its session goes on; the hash expires by itself."""
    for module in ("steps", "records"):
        monkeypatch.setattr(f"resilience.consistency.{module}.LIFE_US", 300_000)
    fleet.process().write("k", "mine", session=user())
    fleet.primary.down = DOWN

    def ended() -> bool:
        return fleet.process().read("k", session=user()).level is Level.STALE

    wait_until(ended, 20, "the record has ended")
    assert server.client().pttl(fleet.key()) > 0
    wait_until(lambda: not server.client().exists(fleet.key()), 20, "the hash has gone")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"=:1",
        b"1|2|3",
        b"\xff|0|0|=:1",
        b"0|0|x|=:1",
        b"0|0|99999999999999999999|=:1",
        b"0|0|%d|!1:1",
        b"0|0|%d|=1",
        b"0|0|%d|=1e9:1",
        b"0|0|%d|=:{",
        b"0|0|%d|=:\xff",
    ],
    ids=repr,
)
def test_malformed_record_lets_only_the_primary_answer(
    fleet: Fleet, server: ValkeyProcess, text: bytes
) -> None:
    """Whatever the store holds, no answer is made from it that may be wrong; no parser raises."""
    here, there = fleet.process(), fleet.process()
    here.write("k", "mine", session=user())
    number = int(server.client().hget(fleet.key(), "n"))
    server.client().hset(fleet.key(), "k:k", text.replace(b"%d", b"%d" % number))

    assert there.read("k", session=user()).source is None
    fleet.primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=user())
    fleet.primary.down = None
    there.write("k", "again", session=user())
    assert here.read("k", session=user()).value == "again"


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b"9" * 30, b"nan", b"1e3"], ids=repr)
@pytest.mark.parametrize("field", ["n", "bytes", "lost"])
def test_malformed_number_raises_nothing(
    fleet: Fleet, server: ValkeyProcess, field: str, number: bytes
) -> None:
    """A number that no script can have written is ignored: reads and writes stay right."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.client().hset(fleet.key(), field, number)

    assert there.read("k", session=user(session.token())).value == "mine"
    there.write("k", "again", session=session)
    fleet.primary.down = DOWN
    assert fleet.process().read("k", session=user()).value == "again"


def test_key_of_another_type_is_taken_over(fleet: Fleet, server: ValkeyProcess) -> None:
    """A foreign value under the key costs the records that it replaced, and raises nothing."""
    here = fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.client().delete(fleet.key())
    server.client().set(fleet.key(), "somebody's")
    here.write("other", "mine", session=session)
    fleet.primary.down = DOWN

    outcome = fleet.process().read("k", session=user(session.token()))
    assert outcome.level is Level.STALE
    assert fleet.process().read("other", session=user(session.token())).value == "mine"


def test_restored_backup_is_not_believed(fleet: Fleet, server: ValkeyProcess) -> None:
    """A backup lacks the last writes of a session, so its records are not used."""
    session, client = user(), server.client()
    fleet.process().write("k", "older", session=session)
    backup = client.dump(fleet.key())
    fleet.process().write("k", "newer", session=session)
    client.restore(fleet.key(), 30_000, backup, replace=True)
    assert fleet.process().read("k", session=user(session.token())).value == "newer"

    fleet.process().write("other", "mine", session=session)
    for process in (fleet.process(), fleet.process()):
        assert process.read("k", session=user(session.token())).value == "newer"


def test_flushed_store_is_noticed(fleet: Fleet, server: ValkeyProcess) -> None:
    """After a flush, missing records do not mean that there were no writes."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.flush()
    fleet.primary.down = DOWN

    outcome = there.read("k", session=user(session.token()))

    assert outcome.reason == UNKNOWN


def test_write_through_a_dead_store_lets_only_the_primary_answer(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """The write succeeds. Until the primary answers, its key has no answer, other keys a mark."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "older", session=session)
    there.read("k", session=user(session.token()))
    server.kill()
    here.write("k", "newer", session=session)
    here.write("second", "too", session=session)
    token = session.token()

    fleet.primary.down = DOWN
    for process in (here, there):
        with pytest.raises(OwnWriteUnavailableError):
            process.read("k", session=user(token))
        outcome = process.read("other", session=user(token))
        assert outcome.reason == UNKNOWN
    fleet.primary.down = None
    for process in (here, there):
        assert process.read("k", session=user(token)).value == "newer"


def test_write_through_a_dead_store_is_not_forgotten_when_it_is_back(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """The older record in the store is not used, even after later writes and merged tokens."""
    here, there = fleet.process(), fleet.process()
    session = user()
    there.write("k", "older", session=session)
    server.kill()
    here.write("k", "newer", session=session)
    beside = user()
    there.write("beside", "too", session=beside)
    server.start()
    token = session.token().merged(beside.token())

    for process in (here, there, fleet.process()):
        later = user(token)
        process.write("later", "mine", session=later)
        assert process.read("later", session=later).value == "mine"
        assert process.read("k", session=later).value == "newer"
        fleet.primary.down = DOWN
        with suppress(OwnWriteUnavailableError):
            assert process.read("k", session=later).value == "newer"
        fleet.primary.down = None
        token = later.token()


@pytest.mark.parametrize("by", ["fetch", "eviction"])
def test_write_past_the_store_is_not_hidden_once_its_process_forgot_it(
    fleet: Fleet, by: str
) -> None:
    """Nor do later writes without the store hide it, by requests that do not know of it."""
    store = CuttableStore(fleet.url, namespace=fleet.namespace, timeout_seconds=10)
    here, there = fleet.process(store=store), fleet.process()
    first = user()
    there.write("k", "older", session=first)
    one = user(first.token())
    here.read("k", session=one)
    store.cut = "question"
    here.write("k", "newer", session=one)
    if by == "eviction":
        for number in range(700):
            here.write("z", "x" * 60_000, session=ConsistentSession(f"other:{number}"))
    store.cut = None
    beside = user(first.token())
    there.write("x", "x", session=beside)
    here.read("x", session=beside)
    store.cut = "question"
    here.write("y", "y", session=beside)
    store.cut = None

    then = user(one.token().merged(beside.token()))

    assert here.read("k", session=then).value == "newer"


def test_answer_of_the_store_that_comes_late_does_not_hide_a_write(fleet: Fleet) -> None:
    """A thread that asked before another thread wrote must not use the answer that comes after."""
    here = fleet.process()
    store = Store(fleet.url, namespace=fleet.namespace)
    late = WriteStore(store, "kv:profiles", life_us=30_000_000).run(KEY, 0)
    session = user()
    here.write("k", "mine", session=session)
    records_of(here).learn(user(), 0, late)
    fleet.primary.down = DOWN

    assert here.read("k", session=session).value == "mine"


def test_read_of_unknown_writes_is_marked(fleet: Fleet, server: ValkeyProcess) -> None:
    """With store and primary down, the replica's answer says that recent writes are unknown."""
    there = fleet.process()
    server.kill()
    assert there.read("k", session=user()).level is Level.FULL
    fleet.primary.down = DOWN

    session = user()
    outcome = there.read("k", session=session)

    assert (outcome.level, outcome.reason) == (Level.STALE, UNKNOWN)
    assert session.level is Level.STALE


def test_write_past_a_store_whose_clock_was_set_back_is_not_hidden(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """Numbers go on from before, ahead of the time: a process that knows of the write says so."""
    store = CuttableStore(fleet.url, namespace=fleet.namespace, timeout_seconds=10)
    here, there = fleet.process(store=store), fleet.process()
    there.write("k", "older", session=user())
    ahead = int(server.client().hget(fleet.key(), "n")) + 5_000_000
    server.client().hset(fleet.key(), mapping={"n": ahead, "k:k": b'%d|=:"older"' % ahead})
    session = user()
    assert here.read("k", session=session).value == "older"
    store.cut = "question"
    here.write("k", "newer", session=session)
    store.cut = None
    fleet.primary.down = DOWN

    with pytest.raises(OwnWriteUnavailableError):
        fleet.process().read("k", session=user(session.token()))


def server_time(server: ValkeyProcess) -> float:
    """Return what the store's clock says, in seconds."""
    seconds, microseconds = server.client().time()
    return float(seconds + microseconds / 1e6)


def test_lost_token_that_travelled_hides_what_was_written_a_moment_before(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """On its way the time of the loss is rounded, maybe to one before the write."""
    fleet.process().write("k", "older", session=user())
    number = int(server.client().hget(fleet.key(), "n"))
    lost = Token(unknown={EVERYWHERE: (number - 499) / 1e6})  # half a millisecond too early
    fleet.primary.down = DOWN

    with pytest.raises(OwnWriteUnavailableError):
        fleet.process().read("k", session=user(lost))


@pytest.mark.parametrize("source", [EVERYWHERE, "kv:profiles"])
def test_lost_token_hides_what_was_written_before_it_was_lost_and_nothing_later(
    fleet: Fleet, server: ValkeyProcess, source: str
) -> None:
    """A user whose token was lost once sees new writes at once, also while the primary is down."""
    fleet.process().write("before", "mine", session=user())
    at = server_time(server)
    lost = Token(unknown={source: at})
    wait_until(lambda: server_time(server) > at + 0.001, 20, "the store is a millisecond further")
    fleet.process().write("after", "mine", session=user(lost))
    fleet.primary.down = DOWN

    for session in (user(lost), user(lost)):
        process = fleet.process()
        outcome = process.read("after", session=session)
        assert (outcome.value, outcome.level) == ("mine", Level.FULL)
        with pytest.raises(OwnWriteUnavailableError, match="recent writes are unknown"):
            process.read("before", session=session)
        assert process.read("never written", session=session).reason == UNKNOWN


def test_dead_store_costs_next_to_nothing(make: Make, server: ValkeyProcess) -> None:
    """A reader does not wait for a store that is known to be down."""
    fleet = Fleet(make, server.url)
    here = fleet.process()
    here.write("k", "mine", session=user())
    server.kill()
    here.read("k", session=user())

    def use() -> None:
        here.write("k", "mine", session=user())
        here.read("k", session=user())

    assert next_to_nothing([elapsed(use) for _ in range(20)])


def test_forked_child_does_not_believe_that_it_knows_its_parents_writes(
    server: ValkeyProcess,
) -> None:
    """It does not answer from what it inherited: its parent may have written since the fork."""
    fleet = Fleet(WAYS["sync"], server.url)
    here = fleet.process()
    session = user()
    here.write("k", "older", session=session)
    server.kill()
    here.write("k", "newer", session=session)
    token = session.token()
    fleet.primary.down = DOWN
    read, written = os.pipe()
    if (child := os.fork()) == 0:
        try:
            then = here.read("k", session=user(token)).value
        except OwnWriteUnavailableError:
            then = "unavailable"
        os.write(written, json.dumps(then).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert json.loads(os.read(read, 1_000)) == "unavailable"
    os.close(read)
    os.close(written)


def test_cancelled_write_lets_only_the_primary_answer(server: ValkeyProcess) -> None:
    """A write that was cancelled on an event loop may have been done."""
    fleet = Fleet(WAYS["async"], server.url)
    there = fleet.process()

    class Hanging:
        """A primary that writes and does not answer."""

        async def read(self, key: str) -> object:
            return fleet.primary.read(key)

        async def write(self, key: str, value: object) -> None:
            fleet.primary.write(key, value)
            await asyncio.sleep(60)

        async def delete(self, key: str) -> None:
            fleet.primary.delete(key)

    async def cut() -> None:
        store = Store(fleet.url, namespace=fleet.namespace, timeout_seconds=10)
        here = AsyncConsistentReader(Hanging(), name="profiles", store=store)
        async with asyncio.timeout(0.2):
            await here.write("k", "maybe", session=user())

    with pytest.raises(TimeoutError):
        asyncio.run(cut())
    assert there.read("k", session=user()).value == "maybe"
    fleet.primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=user())


def test_threads_of_one_session_never_hide_the_last_write(fleet: Fleet) -> None:
    """However their writes overlap, an unmarked answer is the primary's value."""
    here, there = fleet.process(), fleet.process()

    def write(process: AnyReader, name: str) -> None:
        for number in range(20):
            process.write("k", f"{name}{number}", session=user())

    threads = [
        threading.Thread(target=write, args=[process, f"{process is here}{number}:"])
        for process in (here, there)
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    for process in (here, there):
        assert process.read("k", session=user()).value == fleet.primary.held["k"][0]
