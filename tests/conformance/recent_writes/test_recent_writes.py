"""Recent writes on a real server: what other processes see, and what a store that fails costs."""

from contextlib import suppress
from uuid import uuid4

import pytest

from resilience.breaker import Breaker, BreakerPolicy
from resilience.consistency import OwnWriteUnavailableError
from resilience.errors import CircuitOpenError
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.writes import WriteStore
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.recent_writes.reader_fleet import KEY, Fleet, scripts, user
from tests.unit.cuttable_store import CuttableStore
from tests.unit.sources import Make, in_a_thread, write_many

BYTES_MAX = 1000000
KEYS_MAX = 1000

DOWN = ConnectionError("refused")
UNKNOWN = "ConnectionError; recent writes are unknown"


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
    """Whoever has heard of it asks the primary, and so do those who hear of both."""
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

    for token in (one.token(), one.token().merged(other.token())):
        for process in (here, there, fleet.process()):
            assert process.read("k", session=user(token)).value == "outer"


def test_overlapping_write_is_not_kept_when_the_other_is_done(
    server: ValkeyProcess,
) -> None:
    """What another write may have changed says so for its whole life, which is the longer one."""
    writes = WriteStore(Store(server.url, namespace=uuid4().hex), "kv:a", life_us=30_000_000)
    first = writes.run(KEY, 0, b"k")[4]
    second = writes.run(KEY, 0, b"k")[4]

    kept = [writes.run(KEY, 0, b"k", own, b"|=:1")[3] for own in (second, first)]

    assert first.endswith(b"|?")
    assert second == b""
    assert [text.rpartition(b"|")[2] for text in kept] == [b"?", b"?"]


def test_number_is_greater_than_all_that_the_session_knows(server: ValkeyProcess) -> None:
    """Also when the server's clock is behind: numbers of a session never go back."""
    writes = WriteStore(Store(server.url, namespace=uuid4().hex), "kv:a", life_us=30_000_000)
    known = 8_000_000_000_000_000

    numbers = [writes.run(KEY, at, b"k")[1] for at in (known, 0)]

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
    """The older ones go; then the primary answers for keys that are not found, or it is marked."""
    here = fleet.process()
    session = user()
    write_many(here, KEYS_MAX + 1, lambda: session)
    fleet.primary.down = DOWN

    assert server.client().hlen(fleet.key()) <= KEYS_MAX + 4
    there = fleet.process()
    assert there.read(f"k{KEYS_MAX}", session=user()).value == KEYS_MAX
    for key in ("k0", "never-written"):
        assert there.read(key, session=user()).reason == UNKNOWN


def test_bytes_of_a_session_are_bounded(fleet: Fleet, server: ValkeyProcess) -> None:
    """Long values go sooner: all are fetched in one answer. One that is replaced counts once."""
    here = fleet.process()
    for _ in range(40):
        here.write("k0", "x" * 60_000, session=user())
    assert fleet.process().read("k0", session=user()).source == "own write"
    for number in range(20):
        here.write(f"k{number}", "x" * 60_000, session=user())
    found = server.client().hgetall(fleet.key())
    fleet.primary.down = DOWN

    assert sum(len(field) + len(text) for field, text in found.items()) <= BYTES_MAX + 100
    there = fleet.process()
    assert there.read("k0", session=user()).reason == UNKNOWN
    assert here.read("k0", session=user()).value == "x" * 60_000
    for process in (here, there):
        with pytest.raises(OwnWriteUnavailableError):
            process.read("k19", session=user())


def test_unfinished_write_is_not_forgotten_when_there_are_too_many(fleet: Fleet) -> None:
    """A write that timed out and may still come is remembered although its record went."""
    here = fleet.process()
    fleet.primary.write_error = TimeoutError()
    with pytest.raises(TimeoutError):
        here.write("k", "late", session=user())
    fleet.primary.write_error = None
    write_many(here, KEYS_MAX + 1, user)
    there = fleet.process()
    there.write("k", "mine", session=user())
    fleet.primary.held["k"] = "late", 9

    for process in (here, there):
        assert process.read("k", session=user()).value == "late"


def test_session_key_is_not_in_the_store(fleet: Fleet, server: ValkeyProcess) -> None:
    """It may be a secret; whoever reads the store learns none."""
    fleet.process().write("k", "mine", session=user())

    assert all(KEY.encode() not in key for key in server.client().scan_iter())
