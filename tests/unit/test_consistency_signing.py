"""A token that a browser keeps: nobody can change it, and what has no room is not trusted."""

from base64 import urlsafe_b64encode
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.consistency import EVERYWHERE, Position, Token, signing
from resilience.consistency.position import NUMBER_MAX
from resilience.consistency.signing import TokenSigner
from resilience.errors import ConfigurationError

TEXT_MAX = 4000

NOW = 1_800_000_000.0
SIGNER = TokenSigner("s" * 16)
sign, read = partial(SIGNER.sign, now=NOW), partial(SIGNER.read, now=NOW)
NAMES = st.text(min_size=1, max_size=200)
TIMES = st.integers(0, 10**9).map(float)
POSITIONS = st.dictionaries(
    st.sampled_from([f"7/{line}" for line in range(20)]),
    st.tuples(st.integers(0, NUMBER_MAX), TIMES),
    max_size=16,
).map(Position)
TOKENS = st.builds(
    Token,
    session=st.none() | NAMES,
    positions=st.dictionaries(NAMES, POSITIONS, max_size=18),
    keys=st.dictionaries(NAMES.map(lambda key: f"main/{key}"), POSITIONS, max_size=110),
    numbers=st.dictionaries(NAMES, st.integers(0, 2**53 - 1), max_size=18),
    unknown=st.dictionaries(NAMES, TIMES, max_size=18),
)
SMALL = Token(
    session="ann",
    positions={"main": Position({"7/1": (NUMBER_MAX, NOW), "7/2": (5, NOW - 1)})},
    keys={"main/order:7": Position.at("7/1", 4, known=NOW)},
    numbers={"cache": 2**53 - 1},
    unknown={"other": NOW},
)


def test_small_token_comes_back_as_it_was() -> None:
    """To the last bit of a position."""
    assert read(sign(SMALL)) == SMALL
    assert len(sign(SMALL)) < 400


@pytest.mark.parametrize("examples", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_any_token_has_room_and_nothing_is_lost_unnoticed(examples: int) -> None:
    """Each position and number is in what comes back, or its source is unknown there."""
    settings(max_examples=examples)(given(token=TOKENS)(assert_all_is_kept_or_unknown))()


def assert_all_is_kept_or_unknown(token: Token) -> None:
    """Sign *token*, read it, and compare."""
    text = sign(token)
    assert len(text) <= TEXT_MAX
    assert text.isascii()
    back = read(text)
    assert back is not None
    unknown = set(back.unknown)
    if EVERYWHERE in unknown:
        return
    for name, position in token.positions.items():
        if position:
            kept = back.positions.get(name, Position()).covers(position)
            assert kept or name in unknown
    for name, position in token.keys.items():
        if position:
            kept = back.keys.get(name, Position()).covers(position)
            assert kept or name.split("/")[0] in unknown
    assert all(back.numbers[name] == number for name, number in token.numbers.items())
    assert set(token.unknown) <= unknown


def test_newest_of_a_large_token_is_kept() -> None:
    """What was written long ago has been replayed by now, most likely."""
    keys = {f"main/{'k' * 50}{one}": Position.at("7/1", one, known=NOW - one) for one in range(100)}
    back = read(sign(Token(keys=keys)))
    assert back is not None
    assert set(back.keys) == set(list(keys)[: len(back.keys)])
    assert len(back.keys) >= 16
    assert back.unknown == {"main": NOW - len(back.keys)}


@given(place=st.integers(0, 10_000), char=st.characters())
def test_changed_text_is_no_token(place: int, char: str) -> None:
    """Whatever character is changed, and to what."""
    text = sign(SMALL)
    place %= len(text)
    changed = text[:place] + char + text[place + 1 :]
    assert read(changed) == (SMALL if changed == text else None)


@given(text=st.text() | st.text(".=-_aA0", max_size=50))
def test_any_other_text_is_no_token(text: str) -> None:
    """And no error."""
    assert read(text) is None


@pytest.mark.parametrize(
    ("later", "good"), [(-6.0, False), (-4.0, True), (30.0, True), (30.1, False)]
)
def test_token_is_good_for_half_a_minute(*, later: float, good: bool) -> None:
    """By fleet time, of which a process may be a little behind."""
    assert (SIGNER.read(sign(SMALL), now=NOW + later) is not None) is good


def test_secret_can_be_changed_while_tokens_are_out() -> None:
    """The first one signs, the others are still accepted."""
    both = TokenSigner(["t" * 16, "s" * 16])
    assert both.read(sign(SMALL), now=NOW) == SMALL
    assert read(both.sign(SMALL, now=NOW)) is None


@pytest.mark.parametrize(
    ("secret", "got"),
    [
        ("", "got 1, the shortest has 0"),
        ("short", "got 1, the shortest has 5"),
        ([], "got 0"),
        (["s" * 16, "short"], "got 2, the shortest has 5"),
    ],
)
def test_secret_that_is_none_is_refused(secret: str | list[str], got: str) -> None:
    """Anybody could guess it. The message counts, and does not show it."""
    with pytest.raises(ConfigurationError) as refused:
        TokenSigner(secret)
    text = str(refused.value)
    assert text == f"secret: give one or more, each of at least 16 characters; {got}"


@pytest.mark.parametrize("document", ["1", "[]", "[1]", '["x", {}]', "[1800000000, []]", "{}", "x"])
def test_what_another_release_signed_is_no_token(document: str) -> None:
    """And no error."""
    text = SIGNER.sign(Token(), now=NOW)
    assert read(text) == Token()
    body = urlsafe_b64encode(document.encode())
    mac = signing._signature(b"s" * 16, body).decode()  # noqa: SLF001 - as another release would
    assert read(f"{body.decode()}.{mac}") is None
