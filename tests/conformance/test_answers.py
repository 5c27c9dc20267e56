"""Remembered answers on a real server: what is kept, for how long, and at what price."""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from resilience import StoreUnavailableError
from resilience.errors import NoStoredAnswerError
from resilience.store import Answer, Answers, Store
from resilience.store import answers as module
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.black_hole import black_hole
from tests.unit.hand_clock import HandClock


class Way(NamedTuple):
    """One of the two ways to use answers."""

    refresh: Callable[..., None]
    recall: Callable[[Answers, str], Answer | None]


def refresh_sync(answers: Answers, key: str, value: object, *, max_age: float) -> None:
    """Keep an answer as a worker does."""
    answers.refresh(key, value, max_age=max_age)


def refresh_async(answers: Answers, key: str, value: object, *, max_age: float) -> None:
    """Keep an answer as a web handler does."""
    asyncio.run(answers.refresh_async(key, value, max_age=max_age))


def recall_sync(answers: Answers, key: str) -> Answer | None:
    """Look an answer up as a worker does."""
    return answers.recall(key)


def recall_async(answers: Answers, key: str) -> Answer | None:
    """Look an answer up as a web handler does."""
    return asyncio.run(answers.recall_async(key))


SYNC = Way(refresh_sync, recall_sync)
ASYNC = Way(refresh_async, recall_async)


@pytest.fixture(params=[SYNC, ASYNC], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """Both ways: what holds for one holds for the other."""
    one: Way = request.param
    return one


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be killed, and whose commands nobody else adds to."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def server(module_server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    """That server, up, and set straight after the test."""
    yield module_server
    if not module_server.running:
        module_server.start()
    module_server.client().replicaof("NO", "ONE")
    module_server.client().config_set("maxmemory", "0")


@pytest.fixture
def clock() -> HandClock:
    """Time for pauses between writes, and between attempts at a lost store."""
    return HandClock()


@pytest.fixture
def answers(server: ValkeyProcess, clock: HandClock) -> Answers:
    """An empty memory of the test's own."""
    # It has time, as the machine may be busy.
    store = Store(server.url, namespace=uuid4().hex, timeout_seconds=10, clock=clock)
    return Answers(store, clock=clock)


def writes(server: ValkeyProcess) -> int:
    """Return how many answers were written to the server so far."""
    stats = server.client().info("commandstats")
    count: int = stats.get("cmdstat_set", {}).get("calls", 0)
    return count


@pytest.mark.parametrize(
    "value",
    [
        None,
        False,
        0,
        "",
        "naïve ☃ \ud800",
        [],
        {"a": [1, {"b": 2.5}]},
        pytest.param("x" * 100_000, id="long"),
    ],
    ids=repr,
)
def test_answer_is_recalled_as_it_was_given(answers: Answers, way: Way, value: object) -> None:
    """What JSON can carry comes back equal, nothing and emptiness included."""
    way.refresh(answers, answers.key("a"), value, max_age=60)

    recalled = way.recall(answers, answers.key("a"))

    assert recalled is not None
    assert recalled.value == value
    assert 0 <= recalled.age < 10


def test_answer_that_was_never_given_is_none(answers: Answers, way: Way) -> None:
    """Nothing is remembered where nothing was kept, under a name or for a call."""
    answers.remember("a", 1, max_age=60)

    assert way.recall(answers, answers.key("b")) is None
    assert way.recall(answers, answers.key_of_call("a", (), {})) is None


@pytest.mark.parametrize(("keep", "look"), [(SYNC, ASYNC), (ASYNC, SYNC)], ids=["sync", "async"])
def test_answer_kept_one_way_is_recalled_the_other(answers: Answers, keep: Way, look: Way) -> None:
    """Workers and web handlers share one memory."""
    keep.refresh(answers, answers.key("a"), [1], max_age=60)

    recalled = look.recall(answers, answers.key("a"))

    assert recalled is not None
    assert recalled.value == [1]


@pytest.mark.parametrize("left", [99.0, 60.0, 10.0])
def test_age_is_what_has_passed_of_the_answers_life(
    answers: Answers, server: ValkeyProcess, way: Way, left: float
) -> None:
    """The age comes from the server's expiry, whatever any host's clock says."""
    key = answers.key("a")
    way.refresh(answers, key, 1, max_age=100)
    server.client().pexpire(key, int(left * 1000))  # as later as it then is

    recalled = way.recall(answers, key)

    assert recalled is not None
    assert 100 - left <= recalled.age < 100 - left + 9


def test_age_of_an_answer_that_somebody_made_immortal_is_its_whole_life(
    answers: Answers, server: ValkeyProcess, way: Way
) -> None:
    """An answer whose expiry was taken away never passes for a fresh one."""
    way.refresh(answers, answers.key("a"), 1, max_age=100)
    server.client().persist(answers.key("a"))

    recalled = way.recall(answers, answers.key("a"))

    assert recalled is not None
    assert recalled.age >= 100


def test_answer_is_gone_at_the_end_of_its_life(answers: Answers, way: Way) -> None:
    """The server forgets by itself."""
    way.refresh(answers, answers.key("a"), 1, max_age=0.1)

    assert wait_until(lambda: way.recall(answers, answers.key("a")) is None, 5, "it is gone")


@pytest.mark.parametrize(
    ("max_age", "pause"),
    [
        pytest.param(10, 0.2, id="share-of-its-life"),
        pytest.param(1500, 30, id="both"),
        pytest.param(86_400, 30, id="at-most-30-s"),
    ],
)
def test_answer_is_written_again_only_after_a_pause(
    answers: Answers,
    server: ValkeyProcess,
    clock: HandClock,
    way: Way,
    max_age: float,
    pause: float,
) -> None:
    """Of a hundred successes within 2 % of an answer's life, one is written."""
    key, before = answers.key("a"), writes(server)

    for number in range(100):
        way.refresh(answers, key, number, max_age=max_age)
    assert writes(server) - before == 1

    clock.advance(pause * 0.9)
    way.refresh(answers, key, "too early", max_age=max_age)
    assert writes(server) - before == 1

    clock.advance(pause * 0.2)
    way.refresh(answers, key, "in time", max_age=max_age)
    assert writes(server) - before == 2
    recalled = way.recall(answers, key)
    assert recalled is not None
    assert recalled.value == "in time"


def test_pause_between_writes_is_each_answers_own(answers: Answers, server: ValkeyProcess) -> None:
    """One busy call does not keep another one's answer from being written."""
    before = writes(server)

    for number in range(10):
        answers.refresh(answers.key(str(number)), number, max_age=60)

    assert writes(server) - before == 10


def test_pauses_are_kept_for_a_bounded_number_of_answers(
    answers: Answers, server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the number of calls: the answer seen longest ago is forgotten."""
    monkeypatch.setattr(module, "THROTTLED_KEYS", 2)
    before = writes(server)

    for name in ("a", "b", "a", "c", "a", "b"):
        answers.refresh(answers.key(name), 1, max_age=60)

    assert writes(server) - before == 4  # a, b, c, and b again


def test_answer_that_could_not_be_written_is_written_at_the_next_success(
    answers: Answers, server: ValkeyProcess, clock: HandClock, way: Way
) -> None:
    """A write that failed does not start the pause."""
    server.kill()
    way.refresh(answers, answers.key("a"), 1, max_age=60)
    server.start()
    clock.advance(1.0)

    def written() -> bool:
        way.refresh(answers, answers.key("a"), 2, max_age=60)
        return server.client().exists(answers.key("a")) == 1

    wait_until(written, 10, "the store was found and the answer written")
    recalled = way.recall(answers, answers.key("a"))
    assert recalled is not None
    assert recalled.value == 2


@pytest.mark.parametrize("trouble", ["dead", "full", "read-only"])
def test_answer_that_cannot_be_kept_is_dropped_without_a_word(
    answers: Answers, server: ValkeyProcess, way: Way, trouble: str
) -> None:
    """A good answer is never lost because it could not be remembered."""
    if trouble == "dead":
        server.kill()
    elif trouble == "full":
        server.client().config_set("maxmemory", "1")
    else:
        server.client().replicaof("127.0.0.1", 1)

    way.refresh(answers, answers.key("a"), 1, max_age=60)

    with pytest.raises(StoreUnavailableError):
        answers.remember("a", 1, max_age=60)


def test_answer_cannot_be_recalled_from_a_store_that_is_down(way: Way) -> None:
    """Not knowing is different from knowing that there is nothing."""
    with black_hole() as url:
        answers = Answers(Store(url, namespace="shop"))

        with pytest.raises(StoreUnavailableError):
            way.recall(answers, answers.key("a"))


@pytest.mark.parametrize("text", ["hello", "", ":", "12", "12:{", "x:1"])
def test_answer_that_somebody_else_wrote_is_an_error_and_no_answer(
    answers: Answers, server: ValkeyProcess, way: Way, text: str
) -> None:
    """Foreign text under our key raises what a chain can handle; it is never handed out."""
    server.client().set(answers.key("a"), text)

    with pytest.raises(NoStoredAnswerError, match="cannot be read"):
        way.recall(answers, answers.key("a"))


def test_answer_under_a_key_of_another_type_is_an_error_and_no_answer(
    answers: Answers, server: ValkeyProcess, way: Way
) -> None:
    """A list where an answer should be is refused by the server, and raises what we document."""
    server.client().rpush(answers.key("a"), "x")

    with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
        way.recall(answers, answers.key("a"))


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_remember_refuses_a_life_that_cannot_be(answers: Answers, seconds: float) -> None:
    """An answer lives for some time, and the error names what was asked for."""
    with pytest.raises(ValueError, match=str(seconds)):
        answers.remember("a", 1, max_age=seconds)


def test_answers_of_two_namespaces_do_not_meet(server: ValkeyProcess, way: Way) -> None:
    """Two apps on one server have a memory each."""
    first = Answers(Store(server.url, namespace=uuid4().hex))
    second = Answers(Store(server.url, namespace=uuid4().hex))
    first.remember("popular", ["a"], max_age=60)

    assert way.recall(second, second.key("popular")) is None
