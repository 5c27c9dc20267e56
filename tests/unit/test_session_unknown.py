"""What a session knows of writes that it cannot name: who may know them, and how many it keeps."""

from resilience.consistency import EVERYWHERE, ConsistentSession, Token
from resilience.consistency.token import SOURCES_MAX


def test_session_tells_apart_who_may_know_what_is_unknown() -> None:
    """What a process has noted it knows itself; all else, and what was lost, it may not."""
    session = ConsistentSession("user:7")
    assert session.unknown("kv:a", "p") == (0.0, 0.0)

    session.note_unknown("kv:a@p", 5.0)
    session.note_unknown("kv:ab", 9.0)
    assert session.unknown("kv:a", "p") == (5.0, 0.0)
    session.note_unknown("kv:a@q", 6.0)
    assert session.unknown("kv:a", "p") == (5.0, 6.0)
    session.note_unknown("kv:a", 7.0)
    assert session.unknown("kv:a", "p") == (5.0, 7.0)
    session.note_unknown(EVERYWHERE, 8.0)
    assert session.unknown("kv:a", "p") == (5.0, 8.0)


def test_session_never_forgets_what_is_unknown_when_there_is_much() -> None:
    """The oldest become one that stands for all, so that the token can still be read."""
    session = ConsistentSession("user:7")
    for number in range(SOURCES_MAX + 3):
        session.note_unknown(f"kv:a@{number}", float(number))

    token = Token.from_json(session.token().to_json())

    assert len(token.unknown) == SOURCES_MAX
    assert token.unknown[EVERYWHERE] == 3.0
    assert session.unknown("kv:other", "p") == (0.0, 3.0)
    assert session.unknown("kv:a", "18") == (18.0, 17.0)
