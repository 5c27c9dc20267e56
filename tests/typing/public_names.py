"""What a type checker tells a user of the public names; mypy reads this, nobody runs it."""

from collections.abc import Callable
from typing import Any, assert_type

from resilience import (
    AllFallbacksFailedError,
    Dependency,
    Level,
    Outcome,
    PartialResponse,
    Pipeline,
    Settings,
    fallback,
)
from resilience.errors import retry_after_of
from resilience.fallback import Drill, Step
from resilience.store import Answer, Answers, Store


def declared(popular: Callable[[int], list[str]]) -> list[Step]:
    """Every step is a `Step`, so chains can be built by functions."""
    chain = [
        fallback.stale(max_age=60),
        fallback.call(popular),
        fallback.call(popular, level=Level.STATIC),
        fallback.cached("popular"),
        fallback.cached("popular", max_age=60, level=Level.REDUCED),
        fallback.static([]),
    ]
    assert_type(chain, list[Step])
    fallback.stale()  # type: ignore[call-arg]  # how old may it be?
    fallback.stale(60)  # type: ignore[call-arg]  # sixty what?
    fallback.static([], Level.STATIC)  # type: ignore[call-arg]  # said by name
    return chain


def drilled(dependency: Dependency, answers: Answers) -> Pipeline:
    """A drill stands among the steps, and says its share by name."""
    assert_type(fallback.drill(share=0.001), Drill)
    fallback.drill()  # type: ignore[call-arg]  # how many?
    fallback.drill(0.001)  # type: ignore[call-arg]  # of what?
    chain = [fallback.drill(share=1), fallback.static([])]
    return Pipeline("ask", dependency, answers, fallbacks=chain)


def outcomes(outcome: Outcome[list[str]]) -> None:
    """An outcome keeps the type of its value, and says all it knows as optional."""
    assert_type(outcome.value, list[str])
    assert_type(outcome.level, Level)
    assert_type(outcome.degraded, bool)
    assert_type(outcome.reason, str | None)
    assert_type(outcome.source, str | None)
    assert_type(outcome.age, float | None)
    assert_type(outcome.to_json(), dict[str, Any])
    assert_type(Outcome.from_json({}), Outcome[Any])
    outcome.value = []  # type: ignore[misc]  # an answer does not change


def responses(response: PartialResponse) -> None:
    """A response tells which part is missing, why, and when to come back."""
    assert_type(response.missing, list[str])
    assert_type(response.reasons, dict[str, str])
    assert_type(response.partial, bool)
    assert_type(response.retry_after, float | None)


def stores() -> None:
    """Options are said by name, with their unit."""
    store = Store("redis://cache", namespace="shop", timeout_seconds=0.1)
    answers = Answers(store)
    assert_type(answers.recall("key"), Answer | None)
    answers.remember("popular", [], max_age=60)
    answers.remember("popular", [], 60)  # type: ignore[call-arg]  # sixty what?
    Store("redis://cache", "shop")  # type: ignore[call-arg]  # the shop is what?


async def pipelines(answers: Answers) -> None:
    """A pipeline takes what a call takes, positional and named."""
    users = Dependency("users", concurrency=10, timeout=1.0)
    pipeline = Pipeline("ask", users, answers, fallbacks=[fallback.static([])])
    pipeline.call(sorted, [2, 1], reverse=True)
    await pipeline.call_async(pipelines, answers)
    await pipeline.call_async(sorted, [2, 1])  # type: ignore[arg-type]  # nothing to await
    Dependency("users", 10)  # type: ignore[call-arg]  # ten what?
    Pipeline("ask", users, answers, fallbacks=[sorted])  # type: ignore[list-item]  # no step


def errors(error: AllFallbacksFailedError) -> None:
    """Level 4 explains itself."""
    assert_type(error.reasons, dict[str, str])
    assert_type(error.retry_after, float | None)
    assert_type(retry_after_of(error), float | None)


def settings() -> None:
    """Settings come from variables or are said by name."""
    assert_type(Settings.from_environment({}), Settings)
    assert_type(Settings(namespace="shop").store_url, str | None)
