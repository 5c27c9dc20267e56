"""The session of a user: what it shares with other sessions, and what it reports as unknown."""

from types import SimpleNamespace

import pytest

from resilience.consistency import EVERYWHERE, ConsistentSession, Position, Token, current_session
from resilience.consistency.session import Mark, in_session
from resilience.consistency.shared import SharedPositions
from resilience.errors import ConfigurationError
from resilience.store.absent import NoStore
from resilience.tasks.consistent import UserSession
from resilience.tasks.positions import token_of_parts

FLEET_TIME = 7.0
TOKEN = Token(positions={"db": Position.at("1/1", 5, known=3.0)})


def session_of(key: str | None, token: Token | None = None) -> UserSession:
    """Return the session of the user *key*; None: of nobody. There is no store."""
    shared = SharedPositions(NoStore("none"))
    return UserSession(key, token=token, shared=shared, fleet_time=lambda: FLEET_TIME)


def test_what_the_store_kept_is_unknown_as_of_fleet_time_while_the_store_is_down() -> None:
    """Positions expire, and are compared, by fleet time; this host's clock may be wrong."""
    with session_of("7") as session:
        assert session.token().unknown == {EVERYWHERE: FLEET_TIME}


def test_what_a_part_saw_is_unknown_as_of_fleet_time_if_its_text_is_malformed() -> None:
    """What the other parts saw is still known."""
    resilience = SimpleNamespace(fleet_time=lambda: FLEET_TIME)
    token = token_of_parts(resilience, [b"[]", b'{"numbers": {"kv": 3}}'])

    assert token.unknown == {EVERYWHERE: FLEET_TIME}
    assert token.numbers == {"kv": 3}


def test_block_sees_what_the_session_around_it_has_seen_and_the_other_way_round() -> None:
    """A mark counts for both sessions; after the block, the session around it is current again."""
    outer = ConsistentSession(token=TOKEN)
    mark = Mark(source="db", reason="lag", lag_seconds=2.0)
    with in_session(outer):
        with session_of(None) as inner:
            assert current_session() is inner
            assert inner.token() == TOKEN
            inner.note_number("kv", 3)
            inner.mark(mark)
        assert current_session() is outer

    assert outer.number("kv") == 3
    assert list(outer.marks) == [mark]


def test_session_of_nobody_cannot_be_refreshed() -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigurationError, match=r"consistent_session\(user_id\)"):
        session_of(None).refresh()
