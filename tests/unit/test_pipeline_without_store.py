"""A fallback chain while its store is down: it answers all the same, and in time."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from resilience import AllFallbacksFailedError, Dependency, Level, Pipeline, fallback
from resilience.store import Answers, Store
from resilience.testing.ports import LOCALHOST, free_port
from tests.unit.black_hole import black_hole
from tests.unit.calling import Run, raising
from tests.unit.stopwatch import elapsed, next_to_nothing

USERS = Dependency("users")
CALLS = 50


@contextmanager
def dead() -> Iterator[str]:
    """Yield the address of a store that nobody runs."""
    yield f"redis://{LOCALHOST}:{free_port()}/0"


@pytest.fixture(params=[dead, black_hole], ids=["dead", "black-hole"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a store that is down, one way or another."""
    down: Callable[[], AbstractContextManager[str]] = request.param
    with down() as address:
        yield address


def chain(url: str) -> Pipeline:
    """Return a chain that asks its store twice, in vain, before it has an answer."""
    steps = [fallback.stale(max_age=60), fallback.cached("popular"), fallback.static([])]
    return Pipeline("ask", USERS, Answers(Store(url, namespace="shop")), fallbacks=steps)


def check_cost(url: str, ask: Callable[[Pipeline], None]) -> None:
    """Check that the first call costs 0.1 s at most, and those within the next second nothing.

    The best of some first calls counts, as the machine may be busy.
    """
    first = [elapsed(functools.partial(ask, chain(url))) for _ in range(3)]
    assert min(first) < 0.15

    pipeline = chain(url)
    ask(pipeline)
    assert next_to_nothing([elapsed(functools.partial(ask, pipeline)) for _ in range(CALLS)])


def test_chain_answers_without_its_store(run: Run, url: str) -> None:
    """The store's loss costs the first caller 0.1 s, and others next to nothing."""

    def ask(pipeline: Pipeline) -> None:
        outcome = run(pipeline, raising(OSError("gone")), 7)
        assert (outcome.value, outcome.level, outcome.reason) == ([], Level.STATIC, "OSError")

    check_cost(url, ask)


def test_good_answer_is_given_without_a_store_to_keep_it(run: Run, url: str) -> None:
    """A call that succeeds waits no longer for the store than one that fails."""

    def ask(pipeline: Pipeline) -> None:
        outcome = run(pipeline, list, (7,))
        assert (outcome.value, outcome.level) == ([7], Level.FULL)

    check_cost(url, ask)


def test_chain_that_only_its_store_could_answer_says_so(run: Run) -> None:
    """Level 4 tells a lost store from an answer that was never remembered."""
    with black_hole() as url:
        pipeline = Pipeline(
            "ask",
            USERS,
            Answers(Store(url, namespace="shop")),
            fallbacks=[fallback.stale(max_age=60), fallback.cached("popular")],
        )

        with pytest.raises(AllFallbacksFailedError) as caught:
            run(pipeline, raising(OSError("gone")))

    reasons = caught.value.reasons
    assert list(reasons) == ["run", "1. stale", "2. cached:popular"]
    assert reasons["1. stale"].startswith("StoreUnavailableError: the store did not answer: ")
    assert "next try in" in reasons["2. cached:popular"]
