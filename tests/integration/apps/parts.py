"""An adopted app whose tasks are made to be parts of fan-outs; workers import `app`.

Tests in another process make one of their own with `make_app`, at servers of their choice.
"""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, Task, chain, chord, current_app, group
from celery.exceptions import Ignore, Reject

from resilience import fallback
from resilience.dependency import Dependency
from resilience.events import Event
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.settings import Settings
from resilience.tasks import FanOut, Resilience, ResilientTask
from tests.unit.odd_errors import SilentError

QUEUES = ("celery", "alpha", "beta", "gamma")
EVENTS = "events"
HOLD_SECONDS = 30
HARD_LIMIT_SECONDS = 1

Declared = tuple[Callable[..., Any], dict[str, Any]]
DECLARED: list[Declared] = []


def declare(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Let every app that `make_app` makes have the decorated function as a task."""

    def remember(function: Callable[..., Any]) -> Callable[..., Any]:
        DECLARED.append((function, options))
        return function

    return remember


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet: the result backend's."""
    return redis.Redis.from_url(
        current_app.conf.result_backend, decode_responses=True, socket_timeout=2 * HOLD_SECONDS
    )


class Witness:
    """A listener that tells the tests what was announced, in whichever process."""

    def __init__(self, app: Celery[Any]) -> None:
        self._app = app

    def __call__(self, event: Event) -> None:
        """Write *event* down at the desk."""
        said = {"name": type(event).__name__, **event.details()}
        with redis.Redis.from_url(self._app.conf.result_backend) as client:
            client.rpush(EVENTS, json.dumps(said, default=dataclasses.asdict))


def make_app(settings: Settings | None = None, **options: Any) -> Celery[Any]:  # noqa: ANN401
    """Return an app with the tasks of this module; *options* are those of `Celery`."""
    made: Celery[Any] = Celery("parts", task_cls=ResilientTask, **options)
    Resilience(
        made,
        dependencies=[
            Dependency("alpha", breaker=None),  # its tasks fail in many tests
            Dependency("beta", timeout=20),
            Dependency("gamma", breaker=None),
        ],
        settings=settings,
        listeners=[Witness(made)],
    )
    for function, wanted in DECLARED:
        made.task(name=function.__name__, shared=False, **wanted)(function)
    made.task(name="plain", shared=False, base=Task)(echo)
    return made


@declare(dependency="alpha")
def echo(value: object) -> object:
    """Return *value*."""
    return value


@declare(dependency="alpha")
def count(key: str, value: object) -> object:
    """Note that it ran, and return *value*."""
    with desk() as client:
        client.rpush(key, "ran")
    return value


@declare(dependency="alpha")
def fail(text: str) -> None:
    """Raise what an unreachable service raises."""
    raise ConnectionError(text)


@declare(dependency="alpha")
def fail_silently() -> None:
    """Raise what cannot say anything."""
    raise SilentError


@declare(dependency="alpha")
def switch(key: str) -> int:
    """Return 1, or fail once it is told to."""
    with desk() as client:
        if client.get(key) is not None:
            raise ConnectionError(key)
    return 1


@declare(dependency="gamma", fallbacks=[fallback.stale(max_age=600)])
def remember(key: str) -> int:
    """Return 1, or what it returned before once it is told to fail."""
    return switch(key)


@declare(dependency="beta", bind=True)
def remember_inside(self: ResilientTask, key: str) -> PartialResponse:
    """Ask the task above inside this one."""
    return FanOut(inner=self.app.tasks["remember"].s(key)).apply_async(budget=HOLD_SECONDS).get()


@declare(dependency="beta")
def hold(key: str, value: object) -> object:
    """Say that it has begun, and return *value* when told to go on."""
    with desk() as client:
        client.rpush(f"{key}:started", os.getpid())
        if client.blpop([f"{key}:go"], timeout=HOLD_SECONDS) is None:
            raise TimeoutError(key)
    return value


@declare(dependency="alpha", fallbacks=[fallback.static("static")])
def degrade() -> str:
    """Fail, so that the fallback answers."""
    text = "no service"
    raise ConnectionError(text)


@declare(dependency="alpha", autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0})
def retry_by_itself(key: str, failures: int) -> int:
    """Fail as often as told, and return the number of attempts."""
    with desk() as client:
        attempts: int = client.rpush(key, "attempt")
    if attempts <= failures:
        raise ConnectionError(attempts)
    return attempts


@declare(dependency="alpha", bind=True, max_retries=3)
def retry(self: ResilientTask, key: str, failures: int) -> int:
    """Call `self.retry` as often as told, and return the number of attempts."""
    with desk() as client:
        attempts: int = client.rpush(key, "attempt")
    if attempts <= failures:
        raise self.retry(countdown=0, exc=ConnectionError(attempts))
    return attempts


@declare(bind=True)
def replace(self: ResilientTask, kind: str) -> None:
    """Let something else answer in this task's place."""
    do: Any = self.app.tasks
    raise self.replace(
        {  # type: ignore[no-untyped-call] # the lambda
            "task": lambda: do["echo"].s(kind),
            "failing task": lambda: do["fail"].s(kind),
            "chain": lambda: chain(do["echo"].s("first"), do["join"].s(kind)),
            "failing chain": lambda: chain(do["fail"].s("first"), do["join"].s(kind)),
            "chord": lambda: chord([do["echo"].s("a"), do["echo"].s("b")], do["join"].s(kind)),
            "failing chord": lambda: chord([do["fail"].s("a")], do["join"].s(kind)),
            "group": lambda: group(do["echo"].s("a"), do["echo"].s("b")),
            "chain with a group": lambda: chain(
                do["echo"].s("first"), group(do["echo"].s(), do["echo"].s())
            ),
            "replaced task": lambda: do["replace"].s("task"),
            "plain task": lambda: do["plain"].s(kind),
        }[kind]()
    )


@declare(dependency="alpha")
def join(before: object, *more: object) -> list[object]:
    """Return all arguments."""
    return [before, *more]


@declare(dependency="alpha")
def reject() -> None:
    """Give the message back for good."""
    text = "never"
    raise Reject(text, requeue=False)


@declare(dependency="alpha")
def reject_once(key: str) -> int:
    """Give the message back once; return the number of attempts."""
    with desk() as client:
        attempts: int = client.rpush(key, "attempt")
    if attempts == 1:
        text = "again"
        raise Reject(text, requeue=True)
    return attempts


@declare(dependency="alpha")
def ignore() -> None:
    """End without a result."""
    raise Ignore


@declare(dependency="alpha")
def unsendable() -> object:
    """Return what JSON cannot."""
    return object()


@declare(dependency="alpha")
def die() -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@declare(dependency="beta", time_limit=HARD_LIMIT_SECONDS)
def overrun(key: str) -> object:
    """Take longer than the hard limit allows."""
    return hold(key, None)


@declare(dependency="beta", soft_time_limit=HARD_LIMIT_SECONDS)
def overrun_softly(key: str) -> object:
    """Take longer than the soft limit allows."""
    return hold(key, None)


@declare(dependency="alpha", reject_on_worker_lost=True)
def die_once(key: str) -> int:
    """Kill the process that runs it, the first time; return the number of attempts."""
    with desk() as client:
        attempts: int = client.rpush(key, "attempt")
    if attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempts


@declare(dependency="alpha", fallbacks=[fallback.cached("never stored")])
def exhaust() -> None:
    """Fail without any fallback that has an answer."""
    text = "no service"
    raise ConnectionError(text)


@declare(dependency="alpha", bind=True)
def start_others(self: ResilientTask, key: str) -> str:
    """Start and call others, which end before it does."""
    do = self.app.tasks
    do["echo"]("called as a function")
    do["count"].s(key, "started").apply_async()
    with desk() as client:
        client.blpop([key], timeout=HOLD_SECONDS)
    return "own"


@declare(dependency="alpha")
def partial(value: object) -> PartialResponse:
    """Answer in part only, as a fan-out of somebody else may have."""
    return PartialResponse(data={"value": value}, missing=["rest"], reasons={"rest": "lost"})


@declare(dependency="alpha")
def stale_answer() -> Outcome[str]:
    """Answer with something old."""
    return Outcome(value="old", level=Level.STALE, reason="CircuitOpenError", age=7.0)


@declare(dependency="beta", bind=True)
def ask_inside(self: ResilientTask, budget: float) -> PartialResponse:
    """Ask others, and wait for them, inside a task."""
    do = self.app.tasks
    fan_out = FanOut(good=do["echo"].s(1), bad=do["fail"].s("inside"))
    return fan_out.apply_async(budget=budget).get()


@declare()
def note(response: PartialResponse, key: str) -> None:
    """Write down the response that a finished fan-out hands over."""
    with desk() as client:
        client.rpush(key, json.dumps(response.to_json()))


@declare()
def note_any(value: object, key: str) -> None:
    """Write down anything."""
    with desk() as client:
        client.rpush(key, json.dumps(value, default=lambda response: response.to_json()))


app = make_app()
