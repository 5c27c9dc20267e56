"""An app as Celery's documentation has it, but for its task class; adopted or not.

Workers import it through `canvas_adopted` and `canvas_bare`.
"""

import gc
import json
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, chain, current_app, group
from celery.canvas import StampingVisitor  # type: ignore[attr-defined] # missing in the stubs
from pydantic import BaseModel

from resilience import fallback
from resilience.dependency import Dependency
from resilience.errors import RejectedError
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.settings import Settings
from resilience.tasks import Resilience, ResilientTask

QUEUES = ("celery", "alpha")

DECLARED: list[tuple[Callable[..., Any], dict[str, Any]]] = []
DEGRADABLE: list[tuple[Callable[..., Any], dict[str, Any]]] = []


class Order(BaseModel):
    """An argument and a return value."""

    number: int
    note: str = "none"


class Refused(RejectedError):  # noqa: N818 - the name of what happened
    """A refusal that says when to come back."""


class Label(StampingVisitor):  # type: ignore[misc] # as above
    """Stamps every task with a label."""

    def on_signature(self, _sig: object, **_headers: object) -> dict[str, str]:
        """Return the stamp."""
        return {"label": "stamped"}


def declare(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Let every app have the decorated function as a task, of `alpha` where that is declared."""

    def remember(function: Callable[..., Any]) -> Callable[..., Any]:
        DECLARED.append((function, options))
        return function

    return remember


def degradable(*steps: fallback.Step) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let adopted apps have the decorated function as a task with fallbacks."""

    def remember(function: Callable[..., Any]) -> Callable[..., Any]:
        DEGRADABLE.append((function, {"dependency": "alpha", "fallbacks": steps}))
        return function

    return remember


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet: the result backend's."""
    return redis.Redis.from_url(current_app.conf.result_backend, decode_responses=True)


def tell(key: str, value: object) -> None:
    """Push *value* to the list *key* for the tests to see."""
    with desk() as client:
        client.rpush(key, json.dumps(value))


def attempts(key: str) -> int:
    """Return how often this was called with *key*."""
    with desk() as client:
        number: int = client.rpush(key, "attempt")
    return number


@declare(bind=True)
def collected(task: Any) -> bool:  # noqa: ANN401 - a task
    """Tell whether the garbage collector looks at what the worker had loaded before it forked."""
    return any(one is task.app for one in gc.get_objects())


@declare()
def add(one: int, two: int) -> int:
    """Return the sum."""
    return one + two


@declare()
def total(numbers: list[int]) -> int:
    """Return the sum of a list, as the body of a chord does."""
    return sum(numbers)


@declare()
def divide(one: int, two: int) -> float:
    """Return the quotient, or fail as Python does."""
    return one / two


@declare(autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0, "max_retries": 2})
def autoretry(key: str, failures: int) -> int:
    """Fail as often as told, and return the number of attempts."""
    number = attempts(key)
    if number <= failures:
        text = f"attempt {number}"
        raise ConnectionError(text)
    return number


@declare(bind=True, max_retries=2)
def retry(self: ResilientTask, key: str, failures: int) -> list[int]:
    """Call `self.retry` as often as told, and return the numbers of attempts and of retries."""
    number = attempts(key)
    if number <= failures:
        raise self.retry(countdown=0, exc=ConnectionError(f"attempt {number}"))
    return [number, self.request.retries]


@declare(bind=True)
def replace(self: ResilientTask, kind: str) -> None:
    """Let a canvas take this task's place."""
    do: Any = self.app.tasks
    raise self.replace(
        {  # type: ignore[no-untyped-call] # the lambda
            "task": lambda: do["add"].s(1, 2),
            "chain": lambda: chain(do["add"].s(1, 2), do["add"].s(3)),
            "group": lambda: group(do["add"].s(1, 2), do["add"].s(3, 4)),
        }[kind]()
    )


@declare(bind=True)
def describe(self: ResilientTask, _before: object = None) -> dict[str, Any]:
    """Return what a bound task knows of itself."""
    request = self.request
    return {
        "id": request.id,
        "name": self.name,
        "root": request.root_id,
        "parent": request.parent_id,
        "stamps": request.stamps,
        "queue": (request.delivery_info or {}).get("routing_key"),
        "header": (request.headers or {}).get("own"),
    }


@declare(bind=True)
def call_itself(self: ResilientTask, number: int) -> int:
    """Call the own task as a function, with the own request at hand before and after."""
    before = self.request.id
    deeper = 0 if number == 0 else self(number - 1)
    if number and self.request.id != before:
        text = "the request of the call stayed on the stack"
        raise RuntimeError(text)
    return number + deeper


@declare(pydantic=True)
def double(order: Order) -> Order:
    """Return an order of twice the number."""
    return Order(number=2 * order.number, note=type(order).__name__)


@declare(ignore_result=True)
def silent(key: str) -> str:
    """Leave no result."""
    tell(key, "ran")
    return "nobody sees this"


@declare()
def on_error(request: Any, error: BaseException, _traceback: object, key: str) -> None:  # noqa: ANN401
    """Be an errback."""
    tell(key, [request.id, type(error).__name__, str(error)])


@declare()
def on_success(value: object, key: str) -> None:
    """Be a callback."""
    tell(key, value)


class Counted(ResilientTask):
    """A task as a class, with every hook that Celery has."""

    name = "counted"

    def run(self, key: str, *, fail: bool) -> str:
        """Return the name of the task, or fail."""
        tell(key, "run")
        if fail:
            raise ConnectionError(key)
        return str(self.name)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Come first."""
        tell(args[0], "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Come after a value."""
        tell(args[0], "on_success")

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ANN401
        """Come after an error."""
        super().on_failure(exc, task_id, args, kwargs, einfo)
        tell(args[0], "on_failure")

    def after_return(self, status: str, *details: Any) -> None:  # noqa: ANN401
        """Come last."""
        _retval, _task_id, args, _kwargs, _einfo = details
        tell(args[0], f"after_return {status}")


@degradable(fallback.static([1, 2]))
def degraded() -> list[int]:
    """Fail, so that the fallback answers."""
    text = "no service"
    raise ConnectionError(text)


@degradable(fallback.static(0))
def undegraded(number: int) -> int:
    """Return *number*, as an outcome of level 0."""
    return number


@degradable(fallback.call(lambda: Outcome(value=3, level=Level.REDUCED), level=Level.REDUCED))
def reduced() -> int:
    """Fail, so that a function answers that knows how good its answer is."""
    text = "no service"
    raise ConnectionError(text)


@degradable(fallback.cached("never stored"))
def exhausted() -> None:
    """Fail, and so do all fallbacks; say when to come back."""
    dependency = "alpha"
    raise Refused(dependency, 12.5)


@degradable(fallback.static("hidden"))
def buggy() -> None:
    """Have a bug, which no fallback hides."""
    text = "a bug"
    raise NameError(text)


@degradable(fallback.static("any"))
def echo_degraded(key: str) -> str:
    """Return *key* as an answer that is not the first choice."""
    return Outcome(value=key, level=Level.STATIC)  # type: ignore[return-value] # on purpose


def make_app(
    *,
    adopted: bool,
    settings: Settings | None = None,
    **options: Any,  # noqa: ANN401 - as Celery's
) -> Celery[Any]:
    """Return an app with the tasks of this module; *options* are those of `Celery`."""
    made: Celery[Any] = Celery("canvas", task_cls=ResilientTask, **options)
    declared = list(DECLARED)
    if adopted:
        Resilience(made, dependencies=[Dependency("alpha")], settings=settings)
        declared = [(function, {"dependency": "alpha", **own}) for function, own in DECLARED]
        declared += DEGRADABLE
    for function, wanted in declared:
        made.task(name=function.__name__, shared=False, **wanted)(function)  # type: ignore[no-untyped-call] # so the stubs
    made.register_task(Counted())
    return made
