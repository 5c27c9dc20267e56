"""What a session knows of writes that it cannot name, and how many it keeps."""

from resilience.consistency import EVERYWHERE, ConsistentSession, Token

SOURCES_MAX = 16


def test_session_says_since_when_a_source_is_unknown() -> None:
    """The last time counts, and what was lost counts for every source."""
    session = ConsistentSession("user:7")
    assert session.unknown_at("kv:a") == 0.0

    session.note_unknown("kv:a", 5.0)
    session.note_unknown("kv:ab", 9.0)
    session.note_unknown("kv:a", 4.0)
    assert session.unknown_at("kv:a") == 5.0
    session.note_unknown(EVERYWHERE, 8.0)
    assert session.unknown_at("kv:a") == 8.0
    assert session.unknown_at("kv:ab") == 9.0


def test_what_is_unknown_is_not_forgotten_when_there_is_too_much_to_travel() -> None:
    """It becomes one that stands for all, so that the token can still be read."""
    session = ConsistentSession("user:7")
    for number in range(SOURCES_MAX + 3):
        session.note_unknown(f"kv:{number}", float(number))

    token = Token.from_json(session.token().to_json())

    assert token.unknown == {EVERYWHERE: 18.0}
    assert session.unknown_at("kv:18") == 18.0
