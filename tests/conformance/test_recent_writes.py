"""Recent writes on a real server: what other processes see, and what a store that fails costs."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

from resilience.breaker import Breaker, BreakerPolicy
from resilience.consistency import ConsistentSession, OwnWriteUnavailableError, Token
from resilience.consistency.reader import AsyncConsistentReader
from resilience.errors import CircuitOpenError
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.writes import BYTES_MAX, KEYS_MAX, WriteStore
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.cuttable_store import CuttableStore
from tests.unit.sources import WAYS, AnyReader, Make, Source, in_a_thread, records_of
from tests.unit.stopwatch import elapsed, next_to_nothing

DOWN = ConnectionError("refused")
UNKNOWN = "ConnectionError; recent writes are unknown"
KEY = "user:7"


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def make(request: pytest.FixtureRequest) -> Make:
    """Both kinds of reader: what holds for one holds for the other."""
    way: Make = request.param
    return way


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be killed, and whose commands nobody else adds to."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def server(module_server: ValkeyProcess) -> ValkeyProcess:
    """That server, up and empty."""
    if not module_server.running:
        module_server.start()
    module_server.flush()
    return module_server


class Fleet:
    """Processes that share a primary, a replica and a store."""

    def __init__(self, make: Make, url: str) -> None:
        """Describe them."""
        self.make, self.url, self.namespace = make, url, uuid4().hex
        self.primary, self.replica = Source(), Source()

    def process(self, store: Store | None = None, **options: object) -> AnyReader:
        """Return the reader of another process."""
        store = store or Store(self.url, namespace=self.namespace, timeout_seconds=10)
        replicas = [self.replica]
        return self.make(self.primary, replicas, name="profiles", store=store, **options)

    def key(self) -> str:
        """Return the key under which the store keeps the user's writes."""
        store = Store(self.url, namespace=self.namespace)
        arguments = WriteStore(store, "kv:profiles", life_us=1)._arguments(KEY, 0, ())  # noqa: SLF001
        return arguments[0][0]


@pytest.fixture
def fleet(make: Make, server: ValkeyProcess) -> Fleet:
    """Processes of which there is none yet."""
    return Fleet(make, server.url)


def user(token: Token | None = None) -> ConsistentSession:
    """Return a request of the user, with what the one before gave it."""
    return ConsistentSession(KEY, token=token)


def scripts(server: ValkeyProcess) -> int:
    """Return how many scripts were run."""
    stats = server.client().info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no-token"])
def test_other_process_sees_the_write(fleet: Fleet, *, with_token: bool) -> None:
    """A write or deletion is shown by every process, also when the primary is down."""
    here, there = fleet.process(), fleet.process()
    for value in ("first", {"second": [2]}, None):
        session = user()
        assert there.read("k", session=user()).level is Level.FULL
        if value is None:
            here.delete("k", session=session)
        else:
            here.write("k", value, session=session)
        fleet.primary.down = DOWN

        then = user(session.token() if with_token else None)
        outcome = there.read("k", session=then)

        assert (outcome.value, outcome.source) == (value, "own write")
        fleet.primary.down = None


def test_session_asks_the_store_once(fleet: Fleet, server: ValkeyProcess) -> None:
    """A process asks for what it does not know, and then answers alone; the token spares it."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    there.read("k", session=user())
    before = scripts(server)

    for _ in range(100):
        here.read("k", session=session)
        here.read("other", session=session)
        there.read("k", session=user(session.token()))
    assert scripts(server) == before

    newcomer = user()
    for _ in range(100):
        there.read("k", session=newcomer)
    assert scripts(server) == before + 1
    for _ in range(100):
        there.read("none", session=user(newcomer.token()))
    assert scripts(server) == before + 1


def test_write_asks_the_store_twice(fleet: Fleet, server: ValkeyProcess) -> None:
    """Once before and once after; never for one that an open circuit refuses."""
    breaker = Breaker("db", Pulse(None), BreakerPolicy(), listeners=())
    here = fleet.process(breaker=breaker)
    here.write("k", "mine", session=user())
    before = scripts(server)

    here.write("k", "mine", session=user())
    assert scripts(server) == before + 2

    breaker.force_open(seconds=60, actor="test", reason="to be refused")
    with pytest.raises(CircuitOpenError):
        here.write("k", "mine", session=user())
    assert scripts(server) == before + 2


def test_write_that_runs_elsewhere_lets_only_the_primary_answer(fleet: Fleet) -> None:
    """Another process does not show the record before it, and does once it has ended."""
    here, there = fleet.process(), fleet.process()
    session, seen = user(), []
    here.write("k", "before", session=session)

    def look() -> None:
        fleet.primary.held["k"] = "during", 9
        seen.append(there.read("k", session=user()).value)

    fleet.primary.meanwhile = in_a_thread(look)
    here.write("k", "mine", session=session)
    fleet.primary.down = DOWN

    assert seen == ["during"]
    assert there.read("k", session=user(session.token())).value == "mine"


@pytest.mark.parametrize("last", ["here", "there"])
def test_overlapping_writes_of_two_processes_let_only_the_primary_answer(
    fleet: Fleet, last: str
) -> None:
    """Neither process shows its own: which one was the last only the primary knows."""
    here, there = fleet.process(), fleet.process()
    one, other = user(), user()
    fleet.primary.meanwhile = in_a_thread(lambda: there.write("k", "there", session=other))
    here.write("k", "here", session=one)
    fleet.primary.held["k"] = last, 9
    token = one.token().merged(other.token())

    assert here.read("k", session=one).value == there.read("k", session=other).value == last
    for process in (here, there, fleet.process()):
        assert process.read("k", session=user(token)).value == last
    fleet.primary.down = DOWN
    for process in (here, there, fleet.process()):
        with pytest.raises(OwnWriteUnavailableError):
            process.read("k", session=user(token))


def test_write_that_overlaps_with_one_past_the_store_is_not_shown_elsewhere(fleet: Fleet) -> None:
    """The process that made both knows it, and tells the others."""
    store = CuttableStore(fleet.url, namespace=fleet.namespace, timeout_seconds=10)
    here, there = fleet.process(store=store), fleet.process()
    one, other = user(), user()

    def inner() -> None:
        store.cut = None
        here.write("k", "inner", session=other)
        store.cut = "question"

    store.cut = "question"
    fleet.primary.meanwhile = in_a_thread(inner)
    here.write("k", "outer", session=one)

    assert there.read("k", session=user(other.token())).value == "outer"


def test_overlapping_write_is_not_kept_when_the_other_is_done(
    server: ValkeyProcess,
) -> None:
    """What another write may have changed says so for its whole life, which is the longer one."""
    writes = WriteStore(Store(server.url, namespace=uuid4().hex), "kv:a", life_us=30_000_000)
    first = writes.run(KEY, 0, "begin", b"k")[1]
    second = writes.run(KEY, 0, "begin", b"k")[1]

    kept = writes.run(KEY, 0, "finish", b"k", second, b"=:1", 0)[3]
    texts = [writes.run(KEY, 0, "fetch")[4]]
    writes.run(KEY, 0, "finish", b"k", first, b"=:2", 0)
    texts.append(writes.run(KEY, 0, "fetch")[4])

    assert kept == 0
    assert [text.rpartition(b"|")[2] for text in texts] == [b"?", b"?"]


def test_number_is_greater_than_all_that_the_session_knows(server: ValkeyProcess) -> None:
    """Also when the server's clock is behind: numbers of a session never go back."""
    writes = WriteStore(Store(server.url, namespace=uuid4().hex), "kv:a", life_us=30_000_000)
    known = 8_000_000_000_000_000

    numbers = [writes.run(KEY, at, "begin", b"k")[1] for at in (known, 0)]

    assert numbers == [known + 1, known + 2]


def test_write_of_a_killed_process_lets_only_the_primary_answer(
    make: Make, server: ValkeyProcess
) -> None:
    """Whether it was done before the process died only the primary knows."""
    fleet = Fleet(make, server.url)
    here, there = fleet.process(), fleet.process()
    here.write("k", "before", session=user())

    def die() -> None:
        raise SystemExit

    fleet.primary.meanwhile = die
    with suppress(SystemExit):
        here.write("k", "maybe", session=user())
    fleet.primary.held["k"] = "maybe", 9

    assert there.read("k", session=user()).value == "maybe"
    fleet.primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=user())


def test_failed_write_leaves_no_record_elsewhere(fleet: Fleet) -> None:
    """After a refusal other processes show the write before it, or a replica's answer."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    fleet.primary.write_error = CircuitOpenError("db")
    for key in ("k", "new"):
        with pytest.raises(CircuitOpenError):
            here.write(key, "refused", session=session)
    fleet.primary.down = DOWN

    for process in (here, there):
        then = user(session.token())
        assert process.read("k", session=then).value == "mine"
        assert process.read("new", session=then).level is Level.STALE


def test_unknown_outcome_is_known_elsewhere(fleet: Fleet) -> None:
    """The token of a session whose write timed out says so; so does the store."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    there.read("k", session=user(session.token()))
    fleet.primary.write_error = TimeoutError()
    with pytest.raises(TimeoutError):
        here.write("k", "maybe", session=session)
    fleet.primary.down = DOWN

    for token in (session.token(), None):
        with pytest.raises(OwnWriteUnavailableError):
            there.read("k", session=user(token))


def test_versions_cross_the_store(fleet: Fleet) -> None:
    """Without values another process knows which version a replica must have."""
    fleet.primary.versions = fleet.replica.versions = True
    here, there = fleet.process(keep_values=False), fleet.process(keep_values=False)
    here.write("k", "old", session=user())
    fleet.primary.replicate(fleet.replica)
    here.write("k", "new", session=user())
    fleet.primary.down = DOWN

    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=user())
    fleet.primary.replicate(fleet.replica)
    assert there.read("k", session=user()).value == "new"


def test_records_of_a_session_are_bounded(fleet: Fleet, server: ValkeyProcess) -> None:
    """The oldest go; then the primary must answer for keys that are not found."""
    here = fleet.process()
    session = user()
    for number in range(KEYS_MAX + 1):
        here.write(f"k{number}", number, session=session)
    fleet.primary.down = DOWN

    assert server.client().hlen(fleet.key()) <= KEYS_MAX + 4
    there = fleet.process()
    assert there.read(f"k{KEYS_MAX}", session=user()).value == KEYS_MAX
    for key in ("k0", "never-written"):
        with pytest.raises(OwnWriteUnavailableError):
            there.read(key, session=user())


def test_bytes_of_a_session_are_bounded(fleet: Fleet, server: ValkeyProcess) -> None:
    """Long values go sooner: all are fetched in one answer."""
    here = fleet.process()
    for number in range(40):
        here.write(f"k{number}", "x" * 60_000, session=user())
    for _ in range(40):
        here.write("k39", "x" * 60_000, session=user())
    found = server.client().hgetall(fleet.key())
    fleet.primary.down = DOWN

    assert sum(len(field) + len(text) for field, text in found.items()) <= BYTES_MAX + 100
    there = fleet.process()
    assert there.read("k30", session=user()).value == "x" * 60_000
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k0", session=user())


def test_unfinished_write_is_not_forgotten_when_there_are_too_many(fleet: Fleet) -> None:
    """A write that timed out and may still come is remembered although its record went."""
    here = fleet.process()
    fleet.primary.write_error = TimeoutError()
    with pytest.raises(TimeoutError):
        here.write("k", "late", session=user())
    fleet.primary.write_error = None
    for number in range(KEYS_MAX + 1):
        here.write(f"k{number}", number, session=user())
    there = fleet.process()
    there.write("k", "mine", session=user())
    fleet.primary.held["k"] = "late", 9

    for process in (here, there):
        assert process.read("k", session=user()).value == "late"


def test_records_end_by_the_time_of_the_server(
    fleet: Fleet, server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go after their life, also those of a session that goes on; the hash goes by itself."""
    monkeypatch.setattr("resilience.consistency.steps.LIFE_US", 300_000)
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
    """Whatever is in the store, nothing is shown that cannot be read, and nothing raises."""
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
@pytest.mark.parametrize("field", ["n", "bytes", "dropped", "lost"])
def test_malformed_number_raises_nothing(
    fleet: Fleet, server: ValkeyProcess, field: str, number: bytes
) -> None:
    """A number that no script wrote counts for none: reads and writes go on, and are right."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.client().hset(fleet.key(), field, number)

    assert there.read("k", session=user(session.token())).value == "mine"
    there.write("k", "again", session=session)
    fleet.primary.down = DOWN
    assert fleet.process().read("k", session=user()).value == "again"


def test_key_of_another_type_is_taken_over(fleet: Fleet, server: ValkeyProcess) -> None:
    """Somebody else's key in the way costs what it replaced, and no error."""
    here = fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.client().delete(fleet.key())
    server.client().set(fleet.key(), "somebody's")
    here.write("other", "mine", session=session)
    fleet.primary.down = DOWN

    outcome = fleet.process().read("k", session=user(session.token()))
    assert outcome.reason == UNKNOWN
    assert fleet.process().read("other", session=user(session.token())).value == "mine"


def test_flushed_store_is_noticed(fleet: Fleet, server: ValkeyProcess) -> None:
    """A store that has lost the records is not taken for one in which there are none."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "mine", session=session)
    server.flush()
    fleet.primary.down = DOWN

    outcome = there.read("k", session=user(session.token()))

    assert outcome.reason == UNKNOWN


def test_write_through_a_dead_store_is_shown_where_it_was_made(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """It succeeds; its process shows it, and others know that they do not know it."""
    here, there = fleet.process(), fleet.process()
    session = user()
    here.write("k", "older", session=session)
    there.read("k", session=user(session.token()))
    server.kill()
    here.write("k", "newer", session=session)
    here.write("second", "too", session=session)
    token = session.token()

    fleet.primary.down = DOWN
    for key, value in (("k", "newer"), ("second", "too")):
        assert here.read(key, session=user(token)).value == value
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=user(token))
    outcome = there.read("other", session=user(token))
    assert outcome.reason == UNKNOWN
    fleet.primary.down = None
    assert there.read("k", session=user(token)).value == "newer"


def test_write_through_a_dead_store_is_not_forgotten_when_it_is_back(
    fleet: Fleet, server: ValkeyProcess
) -> None:
    """What the store kept before is older; later writes and merged tokens do not hide that."""
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
        with pytest.raises(OwnWriteUnavailableError):
            process.read("k", session=later)
        fleet.primary.down = None
        token = later.token()


@pytest.mark.parametrize("by", ["fetch", "eviction"])
def test_write_past_the_store_is_not_hidden_once_its_process_forgot_it(
    fleet: Fleet, by: str
) -> None:
    """Later writes past the store, by requests that do not know of it, do not hide that either."""
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
    """A thread that asked before another one wrote, and is answered afterwards, learns nothing."""
    here = fleet.process()
    store = Store(fleet.url, namespace=fleet.namespace)
    late = WriteStore(store, "kv:profiles", life_us=30_000_000).run(KEY, 0, "fetch")
    session = user()
    here.write("k", "mine", session=session)
    records_of(here).learn(user(), 0, late)
    fleet.primary.down = DOWN

    assert here.read("k", session=session).value == "mine"


def test_read_of_unknown_writes_is_marked(fleet: Fleet, server: ValkeyProcess) -> None:
    """With the store and the primary down, a replica's answer says that writes are unknown."""
    there = fleet.process()
    server.kill()
    assert there.read("k", session=user()).level is Level.FULL
    fleet.primary.down = DOWN

    session = user()
    outcome = there.read("k", session=session)

    assert (outcome.level, outcome.reason) == (Level.STALE, UNKNOWN)
    assert session.level is Level.STALE


def test_dead_store_costs_next_to_nothing(make: Make, server: ValkeyProcess) -> None:
    """A reader never waits for a store that is known to be down."""
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
    """What the parent writes past a dead store after the fork, the child cannot show."""
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
    """A write that was cut on an event loop may have been done."""
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


def test_session_key_is_not_in_the_store(fleet: Fleet, server: ValkeyProcess) -> None:
    """It may be a secret; whoever reads the store learns none."""
    fleet.process().write("k", "mine", session=user())

    assert all(KEY.encode() not in key for key in server.client().scan_iter())


def test_threads_of_one_session_never_hide_the_last_write(fleet: Fleet) -> None:
    """Whatever overlaps, what is shown in full is what the primary has."""
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
