"""A fallback chain while its store is down: it answers all the same, and in time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from resilience import AllFallbacksFailedError, Dependency, Level, Pipeline, fallback
from resilience.store import Answers, Store
from resilience.testing.ports import LOCALHOST, free_port
from tests.unit.black_hole import black_hole
from tests.unit.calling import Run, raising
from tests.unit.stopwatch import elapsed

USERS = Dependency("users")
CALLS = 50


@contextmanager
def dead() -> Iterator[str]:
    """Yield the address of a store that nobody runs."""
    yield f"redis://{LOCALHOST}:{free_port()}/0"


@pytest.fixture(params=[dead, black_hole], ids=["dead", "black-hole"])
def chain(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """A chain that asks a store twice, neither of which helps, before it has an answer."""
    down: Callable[[], AbstractContextManager[str]] = request.param
    steps = [
        fallback.stale(max_age=60),
        fallback.cached("popular"),
        fallback.static([]),
    ]
    with down() as url:
        yield Pipeline("ask", USERS, Answers(Store(url, namespace="shop")), fallbacks=steps)


def test_chain_answers_without_its_store(run: Run, chain: Pipeline) -> None:
    """The store's loss costs the first caller 0.1 s, and others next to nothing."""
    gone = raising(OSError("gone"))

    def ask() -> None:
        outcome = run(chain, gone, 7)
        assert (outcome.value, outcome.level, outcome.reason) == ([], Level.STATIC, "OSError")

    first = elapsed(ask)
    others = sum(elapsed(ask) for _ in range(CALLS))

    assert first < 0.3
    assert others / CALLS < 0.005


def test_good_answer_is_given_without_a_store_to_keep_it(run: Run, chain: Pipeline) -> None:
    """A call that succeeds waits no longer for the store than one that fails."""

    def ask() -> None:
        outcome = run(chain, list, (7,))
        assert (outcome.value, outcome.level) == ([7], Level.FULL)

    first = elapsed(ask)
    others = sum(elapsed(ask) for _ in range(CALLS))

    assert first < 0.3
    assert others / CALLS < 0.005


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
