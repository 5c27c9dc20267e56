"""A reader's records in one process: what they hold, for how long, and who may see them."""

import json
import pickle
from pathlib import Path

import pytest

from resilience.breaker import Breaker, BreakerPolicy
from resilience.consistency import (
    ConsistentSession,
    DatabaseUnavailableError,
    OwnWriteUnavailableError,
)
from resilience.errors import CircuitOpenError, ConfigurationError
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.pulse import Pulse
from tests.unit.hand_clock import HandClock
from tests.unit.sources import AnyReader, Make, Source, SqliteSource, records_of

WEIGHT_MAX = 10000

DOWN = ConnectionError("refused")
FULL_DICT = {"id": 7, "tags": ["a"]}


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
    clock.advance(0.001)
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
    reader: AnyReader, primary: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """What was forgotten is never mistaken for something that was never written."""
    kept, first = records_of(reader), ConsistentSession("first")
    reader.write("k", "mine", session=first)
    for number in range(700):
        reader.write(str(number), "x" * 60_000, session=user)
    tokens = user.token(), first.token()
    clock.advance(1)
    for number in range(700):
        reader.write("k", "x" * 60_000, session=ConsistentSession(f"other:{number}"))
    primary.down = DOWN

    for token in tokens:
        outcome = reader.read("k", session=ConsistentSession(token=token))
        assert outcome.reason == "ConnectionError; recent writes are unknown"
    assert reader.read("k", session=ConsistentSession("other:699")).value == "x" * 60_000
    assert 9_000 < kept._weight <= WEIGHT_MAX  # noqa: SLF001 - the bound itself
    assert kept._weight == sum(  # noqa: SLF001 - as above
        1 + sum(record.weight for record in known.records.values())
        for known in kept._sessions.values()  # noqa: SLF001 - as above
    )


def test_unfinished_write_is_not_forgotten_with_its_session(
    reader: AnyReader, primary: Source, user: ConsistentSession, clock: HandClock
) -> None:
    """A write that timed out and may still come counts although its record went."""
    primary.write_error = TimeoutError()
    with pytest.raises(TimeoutError):
        reader.write("k", "late", session=user)
    primary.write_error = None
    for number in range(700):
        reader.write("k", "x" * 60_000, session=ConsistentSession(f"other:{number}"))
    reader.write("k", "mine", session=user)
    primary.held["k"] = "late", 9

    assert reader.read("k", session=user).value == "late"
    clock.advance(30)
    reader.write("k", "mine", session=user)
    primary.down = DOWN
    assert reader.read("k", session=user).value == "mine"


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
