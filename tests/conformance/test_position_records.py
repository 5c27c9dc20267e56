"""Records that many processes merge into through a real store."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.consistency.position import NUMBER_MAX, Position
from resilience.consistency.token import EVERYWHERE, Token
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.positions_fleet import Process

LINES_MAX = 16
KEYS_MAX = 100
SOURCES_MAX = 16


@pytest.fixture
def fleet(valkey: ValkeyProcess) -> Iterator[list[Process]]:
    """Three processes of a fleet of their own."""
    namespace = uuid4().hex
    processes = [Process(valkey.url, namespace) for _ in range(3)]
    yield processes
    for one in processes:
        one.store.client.close()


HUGE = NUMBER_MAX - 1
LONG_SECONDS = 600.0
NAMES = st.text("a|/%* ü\n", min_size=1, max_size=6)
NUMBERS = st.integers(0, NUMBER_MAX) | st.integers(NUMBER_MAX - 3, NUMBER_MAX)
TIMES = st.integers(0, 2 * 10**12).map(lambda ticks: ticks / 1000)  # they travel in milliseconds
POSITIONS = st.dictionaries(
    st.sampled_from(["7/1", "7/2", "0-1", "a|b% ü"]), st.tuples(NUMBERS, TIMES), min_size=1
).map(Position)
SOURCES = st.sampled_from(["main", "l|ogs", "o/o", "%7C"])
TOKENS = st.builds(
    Token,
    session=st.none() | st.just("user:7"),
    positions=st.dictionaries(SOURCES, POSITIONS),
    keys=st.dictionaries(NAMES.map(lambda key: f"main/{key}"), POSITIONS, max_size=4),
    numbers=st.dictionaries(SOURCES, st.integers(0, 2**53 - 1)),
    unknown=st.dictionaries(SOURCES, TIMES),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(TOKENS, min_size=1, max_size=6), seed=st.integers())
def test_record_is_the_maximum_in_whatever_order_it_is_merged(
    fleet: list[Process], tokens: list[Token], seed: int
) -> None:
    """From several clients, some of which merge twice; each sees what it merged, and more."""
    key, dice = uuid4().hex, random.Random(seed)  # noqa: S311 - to be repeated
    whole = reduce(Token.merged, tokens)
    again = [*tokens, *dice.sample(tokens, len(tokens) // 2)]
    dice.shuffle(again)
    for token in again:
        merged = dice.choice(fleet).positions.merge(key, token, LONG_SECONDS)
        assert merged.merged(token) == merged
    kept = fleet[0].positions.load(key)
    assert replace(kept, session=None) == replace(whole, session=None)
    assert kept.session == next((one.session for one in again if one.session), None)


def test_many_parts_at_once_lose_nothing(fleet: list[Process]) -> None:
    """A hundred parts that end at the same time: the record covers each of them."""

    def merge(part: int) -> Token:
        token = Token(positions={"main": Position.at("7/1", HUGE - part)})
        return fleet[part % 3].positions.merge("chord", token, LONG_SECONDS)

    with ThreadPoolExecutor(10) as threads:
        assert len(list(threads.map(merge, range(100)))) == 100
    kept = fleet[0].positions.load("chord")
    assert kept == Token(positions={"main": Position.at("7/1", HUGE)})


def test_record_ends_by_itself_and_no_merge_shortens_its_life(fleet: list[Process]) -> None:
    """Later merges make it live longer, or change nothing."""
    ann = fleet[0]
    key = ann.store.key("positions", "record", "job")

    def left() -> int:
        return int(ann.store.run(lambda client: client.pttl(key)))

    assert ann.positions.load("job") == Token()
    ann.positions.merge("job", Token(numbers={"main": 1}), 100)
    assert 90_000 < left() <= 100_000
    ann.positions.merge("job", Token(numbers={"main": 2}), 10)
    assert left() > 90_000
    ann.positions.merge("job", Token(numbers={"main": 3}), 200)
    assert left() > 190_000
    assert ann.positions.load("job").numbers == {"main": 3}
    assert left() > 190_000
    ann.positions.merge("other", Token(numbers={"main": 3}), 0.0001)
    wait_until(lambda: not ann.positions.load("other"), 10, "it has ended")


def test_what_a_record_has_no_room_for_is_unknown(fleet: list[Process]) -> None:
    """A record is bounded, and what it forgets is never taken for seen."""
    ann = fleet[0]
    for place in range(3 * KEYS_MAX):
        keys = {f"main/{place:03}": Position.at("7/1", place, known=float(place + 1))}
        ann.positions.merge("job", Token(keys=keys), LONG_SECONDS)
    kept = ann.positions.load("job")
    assert sorted(kept.keys) == [f"main/{place}" for place in range(200, 300)]
    assert kept.unknown == {"main": 200.0}

    lines = {f"7/{line}": (line, float(line)) for line in range(1, LINES_MAX + 2)}
    kept = ann.positions.merge("lines", Token(positions={"main": Position(lines)}), LONG_SECONDS)
    assert kept.positions["main"].lines == {line: lines[line] for line in list(lines)[1:]}
    assert kept.unknown == {"main": 1.0}

    for place in range(SOURCES_MAX + 4):
        position = {f"db{place}": Position.at("7/1", 1, known=float(place + 1))}
        kept = ann.positions.merge("sources", Token(positions=position), LONG_SECONDS)
    assert set(kept.positions) == {f"db{place}" for place in range(4, 20)}
    assert kept.unknown == {f"db{place}": place + 1.0 for place in range(4)}


@pytest.mark.parametrize("part", ["numbers", "unknown"])
def test_where_all_of_it_is_unknown_no_source_is_trusted(fleet: list[Process], part: str) -> None:
    """More sources than a record has room for."""
    ann = fleet[0]
    for place in range(SOURCES_MAX + 2):
        token = Token(**{part: {f"db{place}": place + 1}})
        kept = ann.positions.merge("job", token, LONG_SECONDS)
        assert (EVERYWHERE in kept.unknown) is (place >= SOURCES_MAX)
        assert Token.from_json(kept.to_json()) is not None
    assert len(ann.positions.load("job").numbers) in {0, SOURCES_MAX}


def test_name_too_long_to_travel_makes_its_source_unknown(fleet: list[Process]) -> None:
    """A key may be an address of any length."""
    ann, there = fleet[0], Position.at("7/1", 1)
    token = Token(keys={"main/" + "a" * 300: there})
    assert set(ann.positions.merge("key", token, 60).unknown) == {"main"}
    for part, value in (("positions", there), ("numbers", 1), ("unknown", 5.0)):
        token = Token(**{part: {"a" * 300: value}})
        assert EVERYWHERE in ann.positions.merge(part, token, 60).unknown


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "7",
        '{"numbers": {"main": -1}}',
        '{"positions": {"main": 5}}',
        "[" * 9999,
        b"\xff",
    ],
)
def test_record_that_cannot_be_read_makes_all_unknown(
    fleet: list[Process], text: str | bytes
) -> None:
    """Somebody else wrote it; the primary must answer. What is merged into it is kept."""
    ann = fleet[0]
    key = ann.store.key("positions", "record", "job")
    ann.store.run(lambda client: client.set(key, text))
    assert set(ann.positions.load("job").unknown) == {EVERYWHERE}
    kept = ann.positions.merge("job", Token(numbers={"main": 4}), 60)
    assert (kept.numbers, set(kept.unknown)) == ({"main": 4}, {EVERYWHERE})
    assert ann.positions.load("job").numbers == {"main": 4}


def test_field_of_a_record_that_another_release_wrote_is_left_out(fleet: list[Process]) -> None:
    """Another release may know more."""
    ann = fleet[0]
    key = ann.store.key("positions", "record", "job")
    ann.store.run(lambda client: client.set(key, '{"x": 1, "numbers": {"main": 3}}'))
    assert ann.positions.merge("job", Token(numbers={"main": 4}), 60) == Token(numbers={"main": 4})
