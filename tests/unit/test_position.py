"""Positions, tokens and sessions as pure values."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.consistency import ConsistentSession, Mark, Position, Token
from resilience.databases import mariadb, postgres
from resilience.databases.share import FallbackShare
from resilience.errors import ConfigurationError
from tests.unit.hand_clock import HandClock

lines = st.dictionaries(
    st.sampled_from(["a/1", "a/2", "b/1"]),
    st.tuples(st.integers(0, 2**64 - 1), st.floats(0, 2**40).map(lambda at: round(at, 3))),
    max_size=3,
)
positions = lines.map(Position)


@given(positions, positions)
def test_merged_position_covers_both_and_no_more(one: Position, other: Position) -> None:
    """It is the least one that does: whoever covers both covers it."""
    merged = one.merged(other)

    assert merged.covers(one)
    assert merged.covers(other)
    assert merged.lines.keys() == one.lines.keys() | other.lines.keys()
    assert all(
        number in {side.lines[line][0] for side in (one, other) if line in side.lines}
        for line, (number, _) in merged.lines.items()
    )
    assert other.merged(one).covers(merged)


@given(positions)
def test_position_travels_unchanged(position: Position) -> None:
    """All 64 bits of a number arrive."""
    assert Position.from_json(position.to_json()) == position


def test_position_of_another_line_is_covered_by_nobody() -> None:
    """A number on another timeline says nothing, however great it is."""
    before, after = Position.at("cluster/1", 100), Position.at("cluster/2", 10_000)

    assert not after.covers(before)
    assert not before.covers(after)
    assert before.merged(after).covers(before)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"line": 5},
        {"line": [5]},
        {"line": [-1, 0]},
        {"line": [2**64, 0]},
        {"line": [True, 0]},
        {"line": [5, math.nan]},
        {"line": ["5", 0]},
        {"": [5, 0]},
        {"x" * 81: [5, 0]},
        {7: [5, 0]},
        {"a\nb": [5, 0]},
        {str(number): [5, 0] for number in range(17)},
    ],
)
def test_malformed_position_is_refused(document: object) -> None:
    """What comes from a message or a cookie is checked before it is believed."""
    with pytest.raises(ValueError, match="validation error"):
        Position.from_json(document)


@pytest.mark.parametrize(
    "document",
    [
        7,
        {"session": 7},
        {"session": "x" * 201},
        {"positions": []},
        {"positions": {"default": 1}},
        {"numbers": {"reader": -1}},
        {"numbers": {"reader": 1.5}},
        {"numbers": {str(number): 1 for number in range(17)}},
        {"unknown": {"default": "now"}},
        {"unknown": {"default": math.nan}},
        {"positions": {str(number): {} for number in range(17)}},
    ],
)
def test_malformed_token_is_refused(document: object) -> None:
    """As for positions."""
    with pytest.raises(ValueError, match="validation error"):
        Token.from_json(document)


def test_token_travels_whole() -> None:
    """Session, positions, keys, numbers and what is unknown."""
    token = Token(
        session="user:7",
        positions={"default": Position.at("a/1", 2**63 + 1, known=5.0)},
        keys={"default/order:1": Position.at("a/1", 7, known=5.0)},
        numbers={"carts": 3},
        unknown={"other": 6.5},
    )

    assert Token.from_json(token.to_json()) == token
    assert Token.from_json({**token.to_json(), "of a later release": 1}) == token


def test_session_that_has_a_key_keeps_it_when_it_joins_a_token() -> None:
    """What another user has seen does not make it that user's."""
    session = ConsistentSession("user:7")
    session.join(Token(session="user:8", numbers={"carts": 3}))

    assert session.key == "user:7"
    assert session.number("carts") == 3


def test_writes_that_have_no_room_in_a_token_are_unknown_since_they_were_made() -> None:
    """A number is the time of its write, in microseconds; times are in seconds."""
    token = Token(numbers={f"source {place}": 10**15 + place for place in range(17)})

    assert token.bounded().unknown == {"*": 10**9}


def test_token_forgets_what_is_old() -> None:
    """What became known before the moment is left out, the rest stays."""
    token = Token(
        positions={"default": Position({"a/1": (1, 10.0), "a/2": (2, 50.0)})},
        keys={"default/k": Position.at("a/1", 1, known=10.0)},
        unknown={"default": 10.0, "other": 50.0},
    )

    recent = token.since(20.0)

    assert recent.positions == {"default": Position.at("a/2", 2, known=50.0)}
    assert recent.keys == {}
    assert recent.unknown == {"other": 50.0}


def test_session_needs_all_it_noted_or_only_the_keys_that_are_read() -> None:
    """A read of other keys needs nothing."""
    session = ConsistentSession()
    session.note("default", Position.at("a/1", 5), ["one"])
    session.note("default", Position.at("a/1", 9), ["two"])

    assert session.needed("default") == Position.at("a/1", 9)
    assert session.needed("default", ["one"]) == Position.at("a/1", 5)
    assert session.needed("default", ["one", "two"]) == Position.at("a/1", 9)
    assert not session.needed("default", ["three"])
    assert not session.needed("other")


def test_read_of_a_key_needs_writes_that_named_none_and_keys_that_were_forgotten() -> None:
    """Nobody knows whether they concern it."""
    session = ConsistentSession()
    for number in range(150):
        session.note("default", Position.at("a/1", number), [f"key {number}"])

    assert session.needed("default", ["key 149"]) == Position.at("a/1", 149)
    assert session.needed("default", ["key 3"]).covers(Position.at("a/1", 3))
    assert not session.needed("default", ["key 3"]).covers(Position.at("a/1", 149))
    assert len(session.token().keys) <= 100
    session.note("default", Position.at("a/1", 200), [""])
    assert session.needed("default", ["key 3"]) == Position.at("a/1", 200)


def test_forgotten_key_of_one_database_is_no_key_of_another() -> None:
    """What becomes a write that names no key stays one to its own database."""
    session = ConsistentSession()
    session.note("old", Position.at("a/1", 7, known=1.0), ["first"])
    for number in range(150):
        session.note("new", Position.at("b/1", number, known=2.0), [f"key {number}"])

    assert session.needed("old", ["first"]).covers(Position.at("a/1", 7))
    assert not session.needed("new", ["other"]).covers(Position.at("a/1", 7))


def test_session_that_threads_share_loses_nothing() -> None:
    """What several note at once is all seen, of one database and of different ones."""
    session, threads = ConsistentSession(), 8

    def note(own: int) -> None:
        for number in range(500):
            session.note("shared", Position.at(f"{own}/1", number))
            session.note(f"{own}", Position.at("a/1", number))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            assert len(list(pool.map(note, range(threads)))) == threads
    finally:
        sys.setswitchinterval(interval)

    for own in range(threads):
        assert session.needed("shared").lines[f"{own}/1"] == (499, 0.0)
        assert session.needed(f"{own}") == Position.at("a/1", 499)


def test_session_finds_out_what_it_saw_before_its_token_travels() -> None:
    """The last read of each database is asked for once."""
    session, asked = ConsistentSession("user:7"), []

    def measure() -> Position:
        asked.append(1)
        return Position.at("a/1", 5)

    session.note_read("default", measure)

    assert session.token().positions == {"default": Position.at("a/1", 5)}
    assert session.token().session == "user:7"
    assert asked == [1]


def test_session_keeps_the_worst_mark_of_each_source() -> None:
    """So that many stale reads make one mark; an unknown lag is the worst, none is the best."""
    session = ConsistentSession()
    for number, lag in enumerate((1.0, 3.0, 0.0, 2.0)):
        session.mark(Mark(source="default", reason=f"it lags, {number}", lag_seconds=lag))

    assert session.lag_seconds == 3.0
    session.mark(Mark(source="other", reason="late", lag_seconds=5.0))
    assert session.lag_seconds == 5.0
    session.mark(Mark(source="default", reason="late", lag_seconds=None))
    assert [mark.lag_seconds for mark in session.marks] == [None, 5.0]
    assert session.lag_seconds is None


@pytest.mark.parametrize(
    ("lsn", "ended"),
    [
        (0x1000000 + 40, 0x1000000),  # the long header of a segment's first page
        (0x1002000 + 24, 0x1002000),  # the short one of every other page
        (0x1000000 + 24, 0x1000000 + 24),  # within the long one: nobody gets there
        (0x1002000 + 40, 0x1002000 + 40),  # a record's end
        (0x1002000 + 48, 0x1002000 + 48),
    ],
)
def test_position_behind_a_page_header_is_the_one_before_it(lsn: int, ended: int) -> None:
    """No replica gets behind the header before the next record is written."""
    assert postgres.before_header(lsn, 8192, 0x1000000) == ended


def test_wait_statement_names_position_and_time() -> None:
    """As PostgreSQL 19 reads it; 0 would be a wait without end."""
    assert (
        postgres.wait_statement(0x1_2345_6789, 0.05)
        == "WAIT FOR LSN '1/23456789' WITH (TIMEOUT '50ms', NO_THROW)"
    )
    for lsn, seconds in ((0, 1.0), (2**64, 1.0), (5, 0.0), (5, 0.0009), (5, -1.0)):
        with pytest.raises(ConfigurationError):
            postgres.wait_statement(lsn, seconds)


def test_gtids_are_a_line_for_each_domain_and_server() -> None:
    """What one server wrote is not what its successor wrote under the same number."""
    assert mariadb.read_gtids("0-1-100, 1-7-5,", 2.0).lines == {
        "0-1": (100, 2.0),
        "1-7": (5, 2.0),
    }
    assert not mariadb.read_gtids("", 2.0)


def test_more_lines_than_a_position_can_name_are_refused() -> None:
    """The error says how many there are, and what to change."""
    text = ",".join(f"{domain}-1-5" for domain in range(17))

    assert len(mariadb.read_gtids(text.partition(",")[2], 2.0).lines) == 16
    with pytest.raises(ConfigurationError, match=r"17 pairs .* use fewer gtid_domain_id"):
        mariadb.read_gtids(text, 2.0)


def test_share_bounds_what_falls_back() -> None:
    """Of many reads so many; of few, any; and what was long ago does not count."""
    clock = HandClock()
    share = FallbackShare(0.1, clock)
    allowed = 0
    for _ in range(1000):
        share.read()
        if share.allows():
            share.fell_back()
            allowed += 1

    assert 100 <= allowed <= 120
    clock.advance(11.0)
    share.read()
    assert share.allows()


def test_share_is_never_exceeded_by_one() -> None:
    """Five of twenty reads are a quarter; a sixth would be more."""
    share = FallbackShare(0.25, HandClock())
    for _ in range(15):
        share.read()
    for _ in range(5):
        share.read()
        share.fell_back()

    assert not share.allows()
    for _ in range(4):
        share.read()
    assert share.allows()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_share_out_of_range_is_refused(share: float) -> None:
    """The error names it."""
    with pytest.raises(ConfigurationError, match="primary_fallback_share"):
        FallbackShare(share, HandClock())
