"""A reader in one process: who answers, what is marked, and what a write leaves behind."""

import json
import pickle
from pathlib import Path

import pytest

from resilience.breaker import Breaker, BreakerPolicy
from resilience.consistency import (
    ConsistentSession,
    DatabaseUnavailableError,
    OwnWriteUnavailableError,
    in_session,
)
from resilience.errors import CircuitOpenError, ConfigurationError
from resilience.events import ReadStale
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.pulse import Pulse
from resilience.store.writes import KEYS_MAX
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock
from tests.unit.sources import WAYS, AnyReader, Make, Source, SqliteSource, in_a_thread, records_of

DOWN = ConnectionError("refused")
FULL_DICT = {"id": 7, "tags": ["a"]}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def make(request: pytest.FixtureRequest) -> Make:
    """Both kinds of reader: what holds for one holds for the other."""
    way: Make = request.param
    return way


@pytest.fixture
def primary() -> Source:
    """Where writes go."""
    return Source()


@pytest.fixture
def replica() -> Source:
    """What answers when that is down."""
    return Source()


@pytest.fixture
def clock() -> HandClock:
    """Time for records."""
    return HandClock()


@pytest.fixture
def user() -> ConsistentSession:
    """Who reads and writes."""
    return ConsistentSession("user:7")


@pytest.fixture
def listening() -> Listening:
    """Who hears of stale reads."""
    return Listening()


@pytest.fixture
def reader(
    make: Make, primary: Source, replica: Source, clock: HandClock, listening: Listening
) -> AnyReader:
    """A reader of one process."""
    return make(primary, [replica], name="profiles", clock=clock, listeners=[listening])


def test_read_is_answered_by_the_primary(reader: AnyReader, primary: Source) -> None:
    """Without own writes the primary answers, in full."""
    primary.write("k", "v")

    assert reader.read("k") == Outcome(value="v", dependency="profiles")
    assert reader.read("none").value is None


def test_own_write_is_read_without_asking_anybody(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """What a user just wrote is shown in full, also when the primary is down."""
    reader.write("k", "new", session=user)
    primary.down = DOWN

    outcome = reader.read("k", session=user)

    assert (outcome.value, outcome.level, outcome.source) == ("new", Level.FULL, "own write")
    assert not primary.reads
    assert user.level is Level.FULL


def test_own_deletion_is_read(
    reader: AnyReader, primary: Source, replica: Source, user: ConsistentSession
) -> None:
    """A deletion is a write: what was deleted is not there, whatever a replica says."""
    reader.write("k", "new", session=user)
    primary.replicate(replica)
    reader.delete("k", session=user)
    primary.down = DOWN

    assert reader.read("k", session=user) == Outcome(
        value=None, source="own write", dependency="profiles"
    )


def test_own_write_is_of_the_current_session(
    reader: AnyReader, primary: Source, replica: Source, user: ConsistentSession
) -> None:
    """The current session counts if none is named; other users and nobody see no record."""
    with in_session(user):
        reader.write("k", "new")
        primary.down = DOWN
        assert reader.read("k").value == "new"

    replica.write("k", "old")
    assert reader.read("k").value == "old"
    assert reader.read("k", session=ConsistentSession("user:8")).value == "old"
    assert reader.read("k", session=ConsistentSession()).value == "old"


def test_write_of_nobody_leaves_no_record(reader: AnyReader, primary: Source) -> None:
    """Without a session, or a key of it, the primary is written to and answers."""
    reader.write("k", 1)
    reader.write("k", 2, session=ConsistentSession())

    assert reader.read("k", session=ConsistentSession()).value == 2
    assert primary.reads == ["k"]


def test_stale_answer_is_marked_with_its_lag(
    reader: AnyReader,
    primary: Source,
    replica: Source,
    user: ConsistentSession,
    listening: Listening,
) -> None:
    """A replica's answer says that it is one, why, and how old it may be, everywhere."""
    replica.write("k", "old")
    replica.lag = 2.5
    primary.down = DOWN

    outcome = reader.read("k", session=user)

    assert (outcome.value, outcome.level, outcome.reason, outcome.source, outcome.age) == (
        "old",
        Level.STALE,
        "ConnectionError",
        "replica 0",
        2.5,
    )
    assert listening.heard == [
        ReadStale(source="profiles", reason="ConnectionError", lag_seconds=2.5)
    ]
    assert (user.level, user.lag_seconds) == (Level.STALE, 2.5)


def test_lag_is_never_less_than_the_true_one(
    reader: AnyReader, primary: Source, replica: Source, clock: HandClock
) -> None:
    """The time that passes between measuring and reading counts."""
    primary.down = DOWN

    def slow() -> float:
        clock.advance(0.5)
        return 2.0

    replica.lag_seconds = slow  # type: ignore[method-assign]

    assert reader.read("k").age == 2.5


@pytest.mark.parametrize(
    "lag", [None, -1.0, float("nan"), float("inf"), "much", OSError("gone")], ids=repr
)
def test_lag_is_unknown_when_the_replica_does_not_say(
    reader: AnyReader, primary: Source, replica: Source, lag: object
) -> None:
    """Nonsense or an error where a lag should be is no lag of zero, and no error."""
    primary.down, replica.lag = DOWN, lag

    assert (reader.read("k").level, reader.read("k").age) == (Level.STALE, None)


def test_next_replica_answers_when_one_is_down(
    make: Make, primary: Source, replica: Source
) -> None:
    """Replicas take turns, and a broken one is passed over."""
    broken = Source()
    broken.down = primary.down = DOWN
    replica.write("k", "old")
    reader = make(primary, [broken, replica], name="profiles")

    assert [reader.read("k").value for _ in range(4)] == ["old"] * 4
    assert len(broken.reads) == 2


def test_read_raises_when_nobody_answers(
    make: Make, primary: Source, replica: Source, user: ConsistentSession
) -> None:
    """The error names the source and the reason, and carries the primary's as its cause."""
    primary.down, replica.down = CircuitOpenError("db", 2.5), DOWN
    reader = make(primary, [replica], name="profiles")

    with pytest.raises(DatabaseUnavailableError) as caught:
        reader.read("k", session=user)

    assert not isinstance(caught.value, OwnWriteUnavailableError)
    assert caught.value.args == ("profiles", "CircuitOpenError", 2.5)
    assert caught.value.__cause__ is primary.down


def test_bug_is_no_outage(reader: AnyReader, primary: Source, replica: Source) -> None:
    """An error that says that code is wrong is not hidden behind a replica."""
    primary.down = NotImplementedError()
    with pytest.raises(NotImplementedError):
        reader.read("k")

    primary.down, replica.down = DOWN, NotImplementedError()
    with pytest.raises(NotImplementedError):
        reader.read("k")


def test_failed_write_leaves_no_record(
    make: Make, primary: Source, replica: Source, user: ConsistentSession
) -> None:
    """After a refusal, or an error named as one, all is as before: the older record counts."""
    reader = make(primary, [replica], name="profiles", not_done=[ZeroDivisionError])
    reader.write("k", "mine", session=user)

    for error in (CircuitOpenError("db"), ZeroDivisionError()):
        primary.write_error = error
        for key in ("k", "new"):
            with pytest.raises(type(error)):
                reader.write(key, "refused", session=user)

    primary.down = DOWN
    assert reader.read("k", session=user).value == "mine"
    assert reader.read("new", session=user).level is Level.STALE


def test_failed_write_does_not_prolong_the_record_before(
    reader: AnyReader, primary: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """A refusal does not make an old record young."""
    reader.write("k", "mine", session=user)
    clock.advance(29)
    primary.write_error = CircuitOpenError("db")
    with pytest.raises(CircuitOpenError):
        reader.write("k", "refused", session=user)
    primary.held["k"] = "others", 9

    assert reader.read("k", session=user).value == "mine"
    clock.advance(1)
    assert reader.read("k", session=user).value == "others"


@pytest.mark.parametrize("done", [True, False], ids=["done", "not-done"])
def test_write_of_unknown_outcome_lets_only_the_primary_answer(
    reader: AnyReader,
    primary: Source,
    replica: Source,
    user: ConsistentSession,
    clock: HandClock,
    *,
    done: bool,
) -> None:
    """Whether it was done or not: the primary knows, and nobody else answers for 30 seconds."""
    reader.write("k", "mine", session=user)
    primary.write_error, primary.lost_answer = TimeoutError(), done
    with pytest.raises(TimeoutError):
        reader.write("k", "maybe", session=user)

    assert reader.read("k", session=user).value == ("maybe" if done else "mine")
    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError) as caught:
        reader.read("k", session=user)
    assert caught.value.args == ("profiles", "ConnectionError", None)
    assert not replica.reads

    clock.advance(30)
    assert reader.read("k", session=user).level is Level.STALE


def test_write_after_one_of_unknown_outcome_lets_only_the_primary_answer(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """The one that timed out may still come, after the one that succeeded."""
    primary.write_error = TimeoutError()
    with pytest.raises(TimeoutError):
        reader.write("k", "late", session=user)
    primary.write_error = None
    reader.write("k", "mine", session=user)
    primary.held["k"] = "late", 9

    assert reader.read("k", session=user).value == "late"


@pytest.mark.parametrize("last", ["outer", "inner"])
def test_overlapping_writes_let_only_the_primary_answer(
    reader: AnyReader, primary: Source, user: ConsistentSession, last: str
) -> None:
    """Of two writes at once nobody but the primary knows which one was the last."""
    primary.meanwhile = in_a_thread(lambda: reader.write("k", "inner", session=user))
    reader.write("k", "outer", session=user)
    primary.held["k"] = last, 9

    assert reader.read("k", session=user).value == last
    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        reader.read("k", session=user)


def test_write_counts_again_once_overlapping_ones_are_long_done(
    reader: AnyReader, primary: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """What overlapped is settled after 30 seconds."""
    primary.meanwhile = in_a_thread(lambda: reader.write("k", "inner", session=user))
    reader.write("k", "outer", session=user)
    clock.advance(30)
    reader.write("k", "mine", session=user)
    primary.down = DOWN

    assert reader.read("k", session=user).value == "mine"


def test_read_during_a_write_is_answered_by_the_primary(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """As long as a write runs, the record before it may be outdated."""
    reader.write("k", "before", session=user)
    seen: list[object] = []

    def look() -> None:
        primary.held["k"] = "during", 9
        seen.append(reader.read("k", session=user).value)

    primary.meanwhile = in_a_thread(look)
    reader.write("k", "mine", session=user)

    assert seen == ["during"]


def test_record_ends_after_thirty_seconds(
    reader: AnyReader, primary: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """Then others' writes are seen; a host's clock that is set has no say in it."""
    reader.write("k", "mine", session=user)
    primary.held["k"] = "others", 9

    clock.advance(29.9)
    assert reader.read("k", session=user).value == "mine"
    clock.advance(0.1)
    assert reader.read("k", session=user).value == "others"


def test_token_of_a_session_is_not_believed_where_its_writes_are_not_known(
    make: Make, primary: Source, replica: Source, clock: HandClock, user: ConsistentSession
) -> None:
    """Without a store another process cannot show the write, and says so."""
    here = make(primary, [replica], name="profiles", clock=clock)
    there = make(primary, [replica], name="profiles", clock=clock)
    there.write("k", "older", session=ConsistentSession("user:7"))
    here.write("k", "newer", session=user)
    elsewhere = ConsistentSession(token=user.token())
    assert there.read("k", session=elsewhere).value == "newer"

    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        there.read("k", session=elsewhere)
    outcome = there.read("other", session=elsewhere)
    assert outcome.reason == "ConnectionError; recent writes are unknown"
    back = ConsistentSession(token=elsewhere.token())
    assert here.read("k", session=back).value == "newer"


def test_all_writes_are_known_where_they_were_made(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """Without a store a process knows all that it has written, not just the last write."""
    for key in ("a", "b", "c"):
        reader.write(key, key, session=user)
    primary.down = DOWN

    assert [reader.read(key, session=user).value for key in ("a", "b", "c")] == ["a", "b", "c"]
    assert reader.read("d", session=user).reason == "ConnectionError"


def test_value_is_not_kept_when_versions_shall_do(
    make: Make, replica: Source, user: ConsistentSession
) -> None:
    """Then the primary answers, or a replica that has what was written, or newer; else nobody."""
    primary = Source(versions=True)
    replica.versions = True
    reader = make(primary, [replica], name="profiles", keep_values=False)
    primary.write("k", "old")
    primary.replicate(replica)

    assert reader.write("k", "new", session=user) == 2
    assert reader.read("k", session=user).value == "new"
    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        reader.read("k", session=user)
    primary.replicate(replica)
    outcome = reader.read("k", session=user)
    assert (outcome.value, outcome.level) == ("new", Level.STALE)

    primary.down = None
    reader.delete("k", session=user)
    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        reader.read("k", session=user)
    primary.replicate(replica)
    assert reader.read("k", session=user).value is None


def test_replica_cannot_stand_in_without_versions(
    make: Make, primary: Source, replica: Source, user: ConsistentSession
) -> None:
    """Whether it has the write nobody can tell."""
    reader = make(primary, [replica], name="profiles", keep_values=False)
    reader.write("k", "new", session=user)
    primary.replicate(replica)
    primary.down = DOWN

    with pytest.raises(OwnWriteUnavailableError):
        reader.read("k", session=user)


@pytest.mark.parametrize("value", [object(), "x" * 64_000], ids=["unencodable", "too-long"])
def test_value_that_cannot_be_kept_is_asked_for(
    reader: AnyReader, primary: Source, user: ConsistentSession, value: object
) -> None:
    """The write succeeds all the same; then only the primary can show it."""
    reader.write("k", value, session=user)

    assert reader.read("k", session=user).value == value
    primary.down = DOWN
    with pytest.raises(OwnWriteUnavailableError):
        reader.read("k", session=user)


def test_record_cannot_be_changed_by_who_wrote_or_read_it(
    reader: AnyReader, user: ConsistentSession
) -> None:
    """Each reader is given a value of its own."""
    written = {**FULL_DICT}
    reader.write("k", written, session=user)
    written["id"] = 8
    read = reader.read("k", session=user).value
    read["tags"].append("b")

    assert reader.read("k", session=user).value == FULL_DICT


def test_values_go_through_own_functions(
    make: Make, primary: Source, user: ConsistentSession
) -> None:
    """Any pair of functions that encode and decode will do; one that fails asks the primary."""
    texts = {"dumps": lambda value: json.dumps([value]), "loads": lambda text: json.loads(text)[0]}
    reader = make(primary, [], name="profiles", **texts)
    reader.write("k", FULL_DICT, session=user)
    primary.down = DOWN
    assert reader.read("k", session=user).value == FULL_DICT

    primary.down = None
    reader = make(primary, [], name="profiles", loads=lambda _: 1 // 0)
    reader.write("k", "mine", session=user)
    assert reader.read("k", session=user) == Outcome(value="mine", dependency="profiles")


@pytest.mark.parametrize("key", ["", "a|b:c", "\n", "\ud800", "k" * 10_000], ids=ascii)
def test_any_text_is_a_key(
    reader: AnyReader, primary: Source, user: ConsistentSession, key: str
) -> None:
    """No key is special."""
    reader.write(key, "mine", session=user)
    primary.down = DOWN

    assert reader.read(key, session=user).value == "mine"


def test_breaker_guards_the_primary(
    make: Make, primary: Source, replica: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """An open circuit refuses: reads go to a replica at once, and a write leaves no record."""
    pulse = Pulse(None, clock=clock)
    policy = BreakerPolicy(consecutive_failures=3)
    breaker = Breaker("db", pulse, policy, clock=clock, listeners=())
    reader = make(primary, [replica], name="profiles", breaker=breaker, clock=clock)
    primary.down = DOWN

    reasons = []
    for _ in range(5):
        reasons.append(reader.read("k", session=user).reason)
        clock.advance(0.1)

    assert reasons == ["ConnectionError"] * 3 + ["CircuitOpenError"] * 2
    assert len(primary.reads) == 3
    with pytest.raises(CircuitOpenError):
        reader.write("k", "refused", session=user)
    assert reader.read("k", session=user).level is Level.STALE


def test_session_that_uses_the_primary_is_answered_by_nobody_else(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """An explicit `primary` holds for records and replicas alike."""
    reader.write("k", "mine", session=user)
    primary.held["k"] = "others", 9
    user.using = "primary"

    assert reader.read("k", session=user).value == "others"
    primary.down = DOWN
    with pytest.raises(DatabaseUnavailableError):
        reader.read("k", session=user)


def test_memory_is_bounded_for_one_session_and_for_all(
    reader: AnyReader, primary: Source, user: ConsistentSession
) -> None:
    """What was forgotten is never mistaken for something that was never written."""
    for number in range(KEYS_MAX + 1):
        reader.write(str(number), number, session=user)
    first = ConsistentSession("first")
    reader.write("k", "mine", session=first)
    tokens = user.token(), first.token()
    primary.down = DOWN

    assert reader.read("1", session=user).value == 1
    with pytest.raises(OwnWriteUnavailableError):
        reader.read("0", session=user)

    primary.down = None
    for number in range(100):
        reader.write("k", "x" * 60_000, session=ConsistentSession(f"other:{number}"))
        reader.read("k", session=ConsistentSession(token=tokens[0]))
    for number in range(1_000):
        reader.write("k", "x" * 60_000, session=ConsistentSession(f"more:{number}"))
    primary.down = DOWN
    for token in tokens:
        outcome = reader.read("k", session=ConsistentSession(token=token))
        assert outcome.reason == "ConnectionError; recent writes are unknown"
    kept = records_of(reader)
    assert kept._weight <= 10_000  # noqa: SLF001 - the bound itself
    assert kept._weight == sum(  # noqa: SLF001 - as above
        1 + sum(record.weight for record in known.records.values())
        for known in kept._sessions.values()  # noqa: SLF001 - as above
    )


def test_sqlite_is_a_source_with_the_same_interface(
    make: Make, tmp_path: Path, user: ConsistentSession
) -> None:
    """A database of its own with versions is read and written as a dictionary is."""
    primary, replica = SqliteSource(tmp_path / "a.db"), SqliteSource(tmp_path / "b.db")
    reader = make(primary, [replica], name="profiles")

    assert reader.write("k", FULL_DICT, session=user) == 1
    assert reader.read("k").value == FULL_DICT
    primary.down = DOWN
    assert reader.read("k", session=user).value == FULL_DICT
    assert reader.read("k").value is None
    primary.close()
    replica.close()


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb"], ids=repr)
def test_name_is_checked_where_it_is_written(make: Make, primary: Source, name: str) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match="name must be"):
        make(primary, [], name=name)


def test_stale_outcome_crosses_a_wire(reader: AnyReader, primary: Source) -> None:
    """It says what it is on the other side, too."""
    primary.down = DOWN
    outcome = reader.read("k")

    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 - our own bytes
