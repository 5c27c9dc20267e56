"""An app whose tasks read answers of an upstream service, adopted or not; workers import `app`."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, Task, current_app
from pydantic import BaseModel

from resilience import Dependency, FireAndForgetTask, Resilience, ResilientTask, fallback
from resilience.errors import BUGS
from resilience.events import Event
from resilience.retry import RetryPolicy
from resilience.settings import Settings

ENV = os.environ  # noqa: TID251 - an entry point
BARE_QUEUES = ("bare",)
QUEUES = ("celery", "upstream", "upstream.retry", "strict")
EVENTS = "events"


class Item(BaseModel):
    """What the service should answer."""

    name: str


READERS: dict[str, Callable[[Any], Any]] = {
    "LookupError": lambda answer: answer["items"],
    "IndexError": lambda answer: answer.get("items", [])[0],
    "AttributeError": lambda answer: answer.items_of("shop"),
    "ZeroDivisionError": lambda answer: 100 / answer.get("count", 0),
    "TypeError": lambda answer: int(answer.get("count")),
    "UnicodeDecodeError": lambda answer: bytes([0xFF, len(answer)]).decode(),
    "ValidationError": Item.model_validate,
    "JSONDecodeError": lambda answer: json.loads(f"<html>{answer}</html>"),
    "ValueError": lambda answer: float(answer["error"]),
}
"""What reads an answer, by the error that `{"error": "maintenance"}` makes of it."""


def mistake(answer: object) -> object:
    """Use a name that is none."""
    return answer_of(answer)  # type: ignore[name-defined] # noqa: F821 - that is the mistake


def wrong_import(answer: object) -> object:
    """Import what is not there."""
    from resilience import no_such_name  # type: ignore[attr-defined] # noqa: PLC0415 - as above

    return no_such_name(answer)


def assertion(answer: object) -> None:
    """Assert what is not so."""
    assert answer is None


BUGGY: dict[str, Callable[[Any], Any]] = {
    "NameError": mistake,
    "ImportError": wrong_import,
    "AssertionError": assertion,
    "SyntaxError": lambda _: compile("1 +", "template", "eval"),
}
"""What goes wrong whatever the answer is."""


def read(how: str, answer: dict[str, Any]) -> Any:  # noqa: ANN401 - as the reader
    """Read *answer*."""
    return (READERS | BUGGY)[how](answer)


def price(item: str) -> int:
    """Ask the service what *item* costs."""
    if item == "down":
        raise ConnectionError(item)
    return 5


def judge(value: object) -> object:
    """Return *value*, from a service that is well."""
    return value


def echo(value: object) -> object:
    """Return *value* as well."""
    return value


def add(one: int, two: int) -> int:
    """Return the sum."""
    return one + two


def total(many: list[int]) -> int:
    """Return the sum."""
    return sum(many)


def swap(self: Task[Any, Any], value: int, name: str) -> Any:  # noqa: ANN401 - a replacement
    """Let the task called *name* answer in the place of this one."""
    raise self.replace(self.app.signature(name, (value,)))


def retry_once(self: Task[Any, Any], value: object, key: str) -> object:
    """Return *value* at the second attempt."""
    with redis.Redis.from_url(self.app.conf.result_backend) as client:
        if client.incr(key) == 1:
            raise self.retry(countdown=0)
    return value


def explode(value: object) -> None:
    """Fail as code does."""
    raise RuntimeError(value)


def note(value: object, key: str) -> object:
    """Write *value* down where a test can read it."""
    with redis.Redis.from_url(current_app.conf.result_backend) as client:
        client.rpush(key, json.dumps(value))
    return value


def note_error(request: Any, error: Exception, _: object, key: str) -> None:  # noqa: ANN401
    """Write down which task failed, of what."""
    note([request.task, str(error)], key)


def header(self: Task[Any, Any], value: object) -> list[Any]:
    """Return *value* and what the message says of it."""
    return [value, (self.request.headers or {}).get("resilience-level")]


PLAIN: dict[str, dict[str, Any]] = {
    "add": {"function": add},
    "total": {"function": total},
    "explode": {"function": explode},
    "note": {"function": note},
    "note_error": {"function": note_error},
    "header": {"function": header, "bind": True},
    "swap_plainly": {"function": swap, "bind": True},
}


class Witness:
    """A listener that writes events down where a test can read them."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, event: Event) -> None:
        """Write *event* down."""
        said = {"name": type(event).__name__, "severity": event.severity, **event.details()}
        with redis.Redis.from_url(self._url) as client:
            client.rpush(EVENTS, json.dumps(said, default=dataclasses.asdict))


def adopt(app: Celery[Any], backend: str, settings: Settings) -> None:
    """Adopt *app*; its tasks are those of `read` with a chain, and their like."""
    Resilience(
        app,
        dependencies=[
            Dependency("upstream", breaker=None, retry=RetryPolicy(base_seconds=0.01)),
            Dependency("strict", breaker=None, bugs=(LookupError, *BUGS)),
        ],
        settings=settings,
        listeners=[Witness(backend)],
    )
    static = [fallback.static("static")]
    for name, dependency, bugs in (
        ("read", "upstream", None),
        ("read_strictly", "upstream", (LookupError,)),
        ("read_leniently", "upstream", ()),
        ("read_strict_dependency", "strict", None),
    ):
        options = {"name": name, "dependency": dependency, "bugs": bugs, "fallbacks": static}
        app.task(base=ResilientTask, shared=False, **options)(read)
    for name, function in (("price", price), ("judge", judge), ("echo", echo), ("swap", swap)):
        steps = [fallback.static(-1)] if name == "price" else ()
        options = {"dependency": "upstream", "fallbacks": steps, "bind": name == "swap"}
        app.task(name=name, base=ResilientTask, shared=False, **options)(function)
    app.task(name="retry_once", base=ResilientTask, bind=True, shared=False)(retry_once)
    kept = {"base": FireAndForgetTask, "dependency": "upstream", "bind": True}

    @app.task(name="keep", shared=False, **kept)
    def keep(self: Task[Any, Any], key: str, how: str) -> None:
        """Fail the first time as the answer is odd."""
        with redis.Redis.from_url(backend) as client:
            if client.incr(key) == 1:
                read(how, {"error": "maintenance"})
            client.rpush(f"{key}:done", str(self.request.id))


def make_app(*, broker: str, backend: str, settings: Settings, adopted: bool = True) -> Celery[Any]:
    """Return the app, with `plain_read`, a task of Celery's own, in any case."""
    app: Celery[Any] = Celery("answers", broker=broker, backend=backend, set_as_current=False)
    if adopted:
        adopt(app, backend, settings)
    else:
        app.conf.task_default_queue = "bare"
        for function in (price, judge, echo):
            app.task(name=function.__name__, shared=False)(function)
        app.task(name="only_there", shared=False)(add)
    app.task(name="plain_read", shared=False)(read)
    for name, how in PLAIN.items():
        options = {key: value for key, value in how.items() if key != "function"}
        app.task(name=name, shared=False, **options)(how["function"])
    return app


if "ANSWERS_BROKER" in ENV:
    app = make_app(
        broker=ENV["ANSWERS_BROKER"],
        backend=ENV["ANSWERS_BACKEND"],
        settings=Settings.from_environment(),
        adopted=ENV.get("ANSWERS_ADOPTED") != "no",
    )
