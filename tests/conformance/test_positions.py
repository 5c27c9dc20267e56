"""Positions that processes share through a real store."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.consistency.position import LINES_MAX, NUMBER_MAX, Position
from resilience.consistency.shared import LagOrder, Sample, SharedPositions
from resilience.consistency.token import EVERYWHERE, KEYS_MAX, SOURCES_MAX, Token
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.store import Store
from resilience.store.absent import NoStore
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

HUGE = NUMBER_MAX - 1
"""A double would round it to 2^64."""
LONG_SECONDS = 600.0


class Process:
    """One process of the fleet, with a client of its own."""

    def __init__(self, url: str, namespace: str) -> None:
        self.store = Store(url, namespace=namespace, timeout_seconds=10)
        self.positions = SharedPositions(self.store)

    def now(self) -> float:
        """Return fleet time."""
        return self.positions.exchange("nobody").now

    def exchange(self, sample: Sample | None = None, after: float = 0.0) -> tuple[Sample, ...]:
        """Share *sample* and return those that others saw after *after*."""
        return self.positions.exchange("main", sample=sample, after=after).samples


@pytest.fixture
def fleet(valkey: ValkeyProcess) -> Iterator[list[Process]]:
    """Three processes of a fleet of their own."""
    namespace = uuid4().hex
    processes = [Process(valkey.url, namespace) for _ in range(3)]
    yield processes
    for one in processes:
        one.store.client.close()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both ways to call a method of positions: what holds for one holds for the other."""

    def call(positions: SharedPositions, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method's
        if request.param == "sync":
            return getattr(positions, method)(*args, **kwargs)
        return asyncio.run(getattr(positions, f"{method}_async")(*args, **kwargs))

    return call


def order(now: float, **changed: Any) -> LagOrder:  # noqa: ANN401 - as the fields
    """Return an order that is in force."""
    plain = {"seconds": 5.0, "until": now + 60, "actor": "ann", "reason": "#471", "since": now}
    return LagOrder(**{**plain, **changed})


def test_sample_of_one_process_is_seen_by_another(
    fleet: list[Process], call: Callable[..., Any]
) -> None:
    """With its number as it was, and only by whoever does not know it yet."""
    ann, bob, _ = fleet
    sample = Sample(ann.now() - 1, Position.at("7/1", HUGE, known=12.5))
    first = call(ann.positions, "exchange", "main", sample=sample)
    assert first.samples == (sample,)
    assert first.now > sample.at
    assert call(bob.positions, "exchange", "main", after=sample.at - 0.001).samples == (sample,)
    assert not call(bob.positions, "exchange", "main", after=sample.at).samples
    assert not call(bob.positions, "exchange", "other", after=0.0).samples
    assert bob.positions.sources() == ["main"]


def test_samples_are_half_a_second_apart(fleet: list[Process]) -> None:
    """Of a hundred processes that all measure, the store keeps two a second."""
    ann, bob, _ = fleet
    now = ann.now()
    ats = [now - 10 + step / 10 for step in range(100)]
    for process, at in zip([ann, bob] * 50, ats, strict=True):
        process.exchange(Sample(at, Position.at("7/1", 1)))
    kept = [one.at for one in bob.exchange()]
    assert kept == sorted(kept)
    assert 17 <= len(kept) <= 20  # a tenth of a second is none exactly
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(kept))


def test_old_samples_go_and_those_of_the_future_never_count(fleet: list[Process]) -> None:
    """A sample of the future would claim what nobody has measured."""
    ann, bob, _ = fleet
    now = ann.now()
    for at in (now - 301, now + 5):
        assert not ann.exchange(Sample(at, Position.at("7/1", 1)))
    fresh = Sample(now - 1, Position.at("7/1", 2))
    ann.exchange(fresh)
    key = ann.store.key("positions", "samples", "main")
    ann.store.run(lambda client: client.zadd(key, {"0 {}": now - 301, "9 {}": now + 99}))
    assert bob.exchange() == (fresh,)
    assert ann.store.run(lambda client: client.zcard(key)) == 1


def test_samples_are_bounded(fleet: list[Process]) -> None:
    """However they came there, 600 of a source are kept, and all of them end by themselves."""
    ann, bob, _ = fleet
    key, now = ann.store.key("positions", "samples", "main"), ann.now()
    crowd = {f"{now - 200 + one / 10:.3f} {{}}": now - 200 + one / 10 for one in range(1500)}
    ann.store.run(lambda client: client.zadd(key, crowd))
    ann.exchange(Sample(now, Position()))
    assert len(bob.exchange()) == 600
    assert 0 < ann.store.run(lambda client: client.ttl(key)) <= 300


def test_order_is_in_force_until_it_ends(fleet: list[Process]) -> None:
    """For all processes, with who and why; one that has ended, or was ended, is none."""
    ann, bob, _ = fleet
    given = order(ann.now())
    forever = order(ann.now(), seconds=None, until=None)
    ann.positions.order("main", given)
    ann.positions.order("other", forever)
    assert bob.positions.exchange("main").order == given
    assert bob.positions.exchange("other").order == forever
    past = order(ann.now() - 100)
    ann.positions.order("main", past)
    assert bob.positions.exchange("main").order is None
    assert bob.positions.exchange("other").order == forever
    assert bob.positions.sources() == ["main", "other"]
    ann.positions.order("other", None)
    assert bob.positions.exchange("other").order is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"until": 0.0}, "more than 0"),
        ({"actor": " "}, "' '"),
        ({"reason": ""}, "''"),
    ],
)
def test_order_that_makes_no_sense_is_refused(
    fleet: list[Process], changed: dict[str, Any], said: str
) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match=said):
        fleet[0].positions.order("main", order(fleet[0].now(), **changed))


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"seconds": "x"}', '"order"', "[" * 100_000, "\udcff"]
)
def test_order_that_another_release_wrote_is_none(fleet: list[Process], text: str) -> None:
    """What is not certain does not allow replicas to lag."""
    ann = fleet[0]
    key = ann.store.key("positions", "orders")
    ann.store.run(lambda client: client.hset(key, "main", text.encode(errors="surrogateescape")))
    assert ann.positions.exchange("main").order is None


@pytest.mark.parametrize("field", ["seconds", "until", "since"])
@pytest.mark.parametrize("value", ["5", True, float("inf"), [5]])
def test_order_with_a_time_that_is_none_is_none(field: str, value: object) -> None:
    """As above."""
    plain = {"seconds": 5, "until": None, "actor": "ann", "reason": "x", "since": 1}
    assert LagOrder.parse(json.dumps(plain), now=2.0) is not None
    assert LagOrder.parse(json.dumps(plain | {field: value}), now=2.0) is None
    assert LagOrder.parse(json.dumps(plain | {"seconds": -1}), now=2.0) is None


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


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


@pytest.mark.parametrize("sample", ["x {}", "nan {}", "1 [", '1 {"7/1": 5}', "1", b"\xff"])
def test_sample_that_cannot_be_read_is_left_out(fleet: list[Process], sample: str | bytes) -> None:
    """The others count."""
    ann = fleet[0]
    key, now = ann.store.key("positions", "samples", "main"), ann.now()
    ann.store.run(lambda client: client.execute_command("ZADD", key, now - 9, sample))
    good = Sample(now - 1, Position.at("7/1", 1))
    assert ann.exchange(good) == (good,)


def test_without_a_store_every_question_is_refused() -> None:
    """With the error that callers expect of a store that is down."""
    positions = SharedPositions(NoStore("there is none"))
    with pytest.raises(StoreUnavailableError, match="there is none"):
        positions.exchange("main")
    with pytest.raises(StoreUnavailableError):
        asyncio.run(positions.exchange_async("main"))
    with pytest.raises(StoreUnavailableError):
        positions.merge("job", Token(), 1.0)
    with pytest.raises(StoreUnavailableError):
        positions.sources()


def test_key_of_another_type_is_refused_as_a_store_that_is_down(fleet: list[Process]) -> None:
    """Nobody gets an error that they do not expect."""
    ann = fleet[0]
    for part in ("samples", "record"):
        key = ann.store.key("positions", part, "main")
        ann.store.run(lambda client, key=key: client.hset(key, "x", "y"))  # type: ignore[misc]
    with pytest.raises(StoreUnavailableError):
        ann.positions.exchange("main")
    with pytest.raises(StoreUnavailableError):
        ann.positions.merge("main", Token(), 1.0)
