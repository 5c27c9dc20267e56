"""A reader in one process: who answers, what is marked, and what a write leaves behind."""

import pytest

from resilience.consistency import (
    ConsistentSession,
    DatabaseUnavailableError,
    OwnWriteUnavailableError,
    in_session,
)
from resilience.errors import CircuitOpenError
from resilience.events import ReadStale
from resilience.levels import Level
from resilience.outcome import Outcome
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock
from tests.unit.sources import AnyReader, Make, Source, in_a_thread

DOWN = ConnectionError("refused")


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
    clock.advance(1.1)
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
    assert caught.value.args == ("profiles", "k", "ConnectionError", None)
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
