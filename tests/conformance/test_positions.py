"""Positions that processes share through a real store."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from resilience.consistency.position import NUMBER_MAX, Position
from resilience.consistency.shared import LagOrder, Sample, SharedPositions
from resilience.consistency.token import Token
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.store.absent import NoStore
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.positions_fleet import Process

HUGE = NUMBER_MAX - 1
"""A double would round it to 2^64."""


@pytest.fixture
def fleet(valkey: ValkeyProcess) -> Iterator[list[Process]]:
    """Three processes of a fleet of their own."""
    namespace = uuid4().hex
    processes = [Process(valkey.url, namespace) for _ in range(3)]
    yield processes
    for one in processes:
        one.store.client.close()


def order(now: float, **changed: Any) -> LagOrder:  # noqa: ANN401 - as the fields
    """Return an order that is in force."""
    plain = {"seconds": 5.0, "until": now + 60, "actor": "ann", "reason": "#471", "since": now}
    return LagOrder(**{**plain, **changed})


def test_sample_of_one_process_is_seen_by_another(fleet: list[Process]) -> None:
    """With its number as it was, and only by whoever does not know it yet."""
    ann, bob, _ = fleet
    sample = Sample(ann.now() - 1, Position.at("7/1", HUGE, known=12.5))
    first = ann.positions.exchange("main", sample=sample)
    assert first.samples == (sample,)
    assert first.now > sample.at
    assert bob.positions.exchange("main", after=sample.at - 0.001).samples == (sample,)
    assert not bob.positions.exchange("main", after=sample.at).samples
    assert not bob.positions.exchange("other", after=0.0).samples
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
        positions.merge("job", Token(), 1.0)
    with pytest.raises(StoreUnavailableError):
        positions.sources()


def test_key_of_another_type_counts_as_absent(fleet: list[Process]) -> None:
    """Nobody gets an error: there are no samples, and the record is replaced."""
    ann = fleet[0]
    for part in ("samples", "record"):
        key = ann.store.key("positions", part, "main")
        ann.store.run(lambda client, key=key: client.hset(key, "x", "y"))  # type: ignore[misc]
    assert ann.positions.exchange("main").samples == ()
    assert ann.positions.merge("main", Token(), 1.0) == Token()
