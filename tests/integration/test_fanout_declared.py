"""Bad input: what cannot work is refused where it is written, and the error names the value."""

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, group
from pydantic import BaseModel

from resilience import fallback
from resilience.dependency import Dependency
from resilience.errors import ConfigurationError
from resilience.events import Event
from resilience.levels import Level
from resilience.settings import Settings
from resilience.tasks import FanOut, Resilience, ResilientTask, part
from tests.integration.apps.fresh import URL, adopt, echo, new_app

NO_SECONDS = [0, -1, -0.5, math.nan, math.inf, -math.inf, "2", None]


class Order(BaseModel):
    """An argument that is no JSON."""

    number: int


@pytest.fixture(scope="module")
def app() -> Celery:
    """An adopted app at whose addresses nothing listens."""
    made = new_app()
    made.task(name="pair", shared=False, dependency="users")(pair)
    made.task(name="plain", shared=False, base=Task)(echo)
    adopt(made)
    return made


def pair(one: int, two: int) -> list[int]:
    """Return both arguments."""
    return [one, two]


def sig(app: Celery, task: str = "get_user", *args: object, **kwargs: object) -> Any:  # noqa: ANN401
    """Return the signature of a task of *app*."""
    return app.tasks[task].s(*args, **kwargs)


def assert_refused(call: Callable[[], object], *named: str) -> None:
    """Check that *call* is a configuration error that names every word of *named*."""
    with pytest.raises(ConfigurationError) as error:
        call()
    for word in named:
        assert word in str(error.value)


@pytest.mark.parametrize("budget", NO_SECONDS)
def test_budget_must_be_seconds(app: Celery, budget: Any) -> None:  # noqa: ANN401 - that is the point
    """A budget that is no positive number is refused before anything is published."""
    fan_out = FanOut(one=sig(app))

    assert_refused(lambda: fan_out.apply_async(budget=budget), "budget", repr(budget))


@pytest.mark.parametrize("stale", [value for value in NO_SECONDS if value is not None])
def test_stale_must_be_seconds(app: Celery, stale: Any) -> None:  # noqa: ANN401 - that is the point
    """The age of a stale answer is a positive number."""
    assert_refused(lambda: part(sig(app), stale=stale), "get_user", "stale", repr(stale))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda one: chain(one, one), id="chain"),
        pytest.param(lambda one: group(one, one), id="group"),
        pytest.param(lambda one: chord([one], one), id="chord"),
        pytest.param(lambda one: one | one, id="pipe"),
    ],
)
def test_part_is_a_single_task(app: Celery, make: Callable[[Any], Any]) -> None:
    """A canvas has no one task that could report: it is refused, with what to do instead."""
    canvas = make(sig(app))

    assert_refused(lambda: part(canvas), "single task", repr(canvas))
    assert_refused(lambda: FanOut(one=canvas), "single task")


@pytest.mark.parametrize("nonsense", [None, 1, "get_user", {"task": "get_user"}, echo])
def test_part_is_a_signature(app: Celery, nonsense: Any) -> None:  # noqa: ANN401 - that is the point
    """Anything that is no signature is named."""
    assert_refused(lambda: part(nonsense), "signature", repr(nonsense))
    assert_refused(lambda: FanOut(fine=sig(app), bad=nonsense), repr(nonsense))


def test_part_is_no_bare_task(app: Celery) -> None:
    """A task without `.s()` is no signature."""
    task: Any = app.tasks["get_user"]

    assert_refused(lambda: FanOut(one=task), "signature")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        pytest.param({1, 2}, id="set"),
        pytest.param(echo, id="function"),
        pytest.param({(1, 2): 3}, id="key"),
        pytest.param({"deep": [{"deeper": object()}]}, id="nested"),
        pytest.param(Order(number=1), id="model"),
    ],
)
def test_arguments_of_a_part_must_be_sendable(app: Celery, value: object) -> None:
    """What JSON cannot carry is refused when the part is declared, not when it is published."""
    assert_refused(
        lambda: part(sig(app, "get_user", value)), "part get_user", "cannot be sent as JSON"
    )
    assert_refused(lambda: part(sig(app, "get_user", value=value)), "part get_user", "arguments")


def test_arguments_that_celery_can_send_are_fine(app: Celery) -> None:
    """Dates and the like cross as Celery always sent them."""
    day = datetime(2026, 1, 1)  # noqa: DTZ001 - one without a zone

    assert part(sig(app, "get_user", day)).signature.args == (day,)


@pytest.mark.parametrize("args", [(), (1,), (1, 2, 3)])
def test_arguments_must_fit_the_task(app: Celery, args: tuple[int, ...]) -> None:
    """A call that can only fail is refused before the fan-out begins."""
    fan_out = FanOut(fine=sig(app), bad=sig(app, "pair", *args))

    assert_refused(lambda: fan_out.apply_async(budget=1), "part 'bad'", "pair()")


def test_fan_out_needs_parts() -> None:
    """Nothing asked, nothing to answer."""
    assert_refused(FanOut, "at least one part")


@pytest.mark.parametrize("name", ["a.b", "", "1st", "with space", "line\n", "ünï"])
def test_name_of_a_part_is_plain(app: Celery, name: str) -> None:
    """Dots mean nesting, and names become keys."""
    assert_refused(lambda: FanOut(**{name: sig(app)}), repr(name))
    assert_refused(lambda: FanOut(outer=FanOut(inner=sig(app)), **{name: sig(app)}), repr(name))


def test_any_plain_name_will_do(app: Celery) -> None:
    """Also those that Python uses itself."""
    assert list(FanOut(self=sig(app), parts=sig(app), budget=sig(app)).parts) == [
        "self",
        "parts",
        "budget",
    ]


def test_task_of_another_class_is_no_part(app: Celery) -> None:
    """It would never report, so everybody would wait for it in vain."""
    fan_out = FanOut(one=sig(app, "plain"))

    assert_refused(lambda: fan_out.apply_async(budget=1), "part 'one'", "plain", "ResilientTask")


def test_unknown_task_is_no_part(app: Celery) -> None:
    """A name that nobody registered is named."""
    fan_out = FanOut(one=app.signature("get_uzer"))

    assert_refused(lambda: fan_out.apply_async(budget=1), "part 'one'", "'get_uzer'")


def test_parts_are_of_one_app(app: Celery) -> None:
    """Two apps have two stores, so a response could never be complete."""
    other = new_app()
    adopt(other)

    assert_refused(lambda: FanOut(a=sig(app), b=sig(other)).apply_async(budget=1), "several apps")


def test_app_must_be_adopted() -> None:
    """Without a declaration there is no store to collect in."""
    fan_out = FanOut(one=sig(new_app(), "free"))

    assert_refused(lambda: fan_out.apply_async(budget=1), "declares no dependencies")


@pytest.mark.parametrize("nonsense", [echo, "get_user", 1, {"task": "get_user"}])
def test_callback_is_a_signature(app: Celery, nonsense: Any) -> None:  # noqa: ANN401 - that is the point
    """Anything else is named before the fan-out begins."""
    fan_out = FanOut(one=sig(app))

    assert_refused(
        lambda: fan_out.apply_async(budget=1, on_complete=nonsense), "on_complete", repr(nonsense)
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: one,
        lambda one: chain(one, one),
        lambda one: group([one]),
        lambda one: chord([one], one),
    ],
    ids=["task", "chain", "group", "chord"],
)
def test_callback_takes_the_response(app: Celery, wrap: Callable[[Any], Any]) -> None:
    """One that cannot would fail when nobody is there any more to hear of it."""
    callback = wrap(sig(app, "get_user", 1))
    no_response = wrap(app.tasks["get_user"].si(1))

    assert_refused(
        lambda: FanOut(one=sig(app)).apply_async(budget=1, on_complete=callback),
        "on_complete",
        "get_user",
        "takes",
    )
    assert FanOut(one=sig(app)).apply_async(budget=1, on_complete=no_response).get().missing


@pytest.mark.parametrize("required", ["no", 0, 1, None])
def test_required_is_yes_or_no(app: Celery, required: Any) -> None:  # noqa: ANN401 - that is the point
    """A text is not taken for its truth."""
    assert_refused(
        lambda: part(sig(app), required=required), "get_user", "required", repr(required)
    )


def test_arguments_of_the_callback_must_be_sendable(app: Celery) -> None:
    """It is stored as JSON until the end."""
    callback = sig(app, "get_user", object())

    assert_refused(
        lambda: FanOut(one=sig(app)).apply_async(budget=1, on_complete=callback), "on_complete"
    )


def test_nothing_begins_when_the_call_is_refused() -> None:
    """A refused call leaves no event, and asks no server."""
    events: list[Event] = []
    app = new_app()
    Resilience(
        app,
        dependencies=[Dependency("users")],
        settings=Settings(store_url=URL),
        listeners=[events.append],
    )

    assert_refused(lambda: FanOut(one=sig(app)).apply_async(budget=-1), "-1")
    assert_refused(lambda: FanOut(a=sig(app), b=app.signature("x")).apply_async(budget=1), "'x'")

    assert events == []


def test_fallbacks_must_not_get_better(app: Celery) -> None:
    """A chain goes down in level, or a good answer could never be reached; both are named."""

    def declare() -> None:
        app.task(
            name="unordered",
            shared=False,
            dependency="users",
            fallbacks=[fallback.static("x"), fallback.call(echo, level=Level.REDUCED)],
        )(echo)
        app.tasks["unordered"].delay()

    assert_refused(declare, "unordered", "STATIC", "REDUCED")


def make_subclass(attributes: dict[str, Any]) -> object:
    """Subclass `ResilientTask`."""
    made: object = type("Declared", (ResilientTask,), {"name": "declared", **attributes})
    return made


async def coroutine() -> None:
    """Be no task body."""


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        pytest.param({"run": coroutine}, "coroutine", id="coroutine"),
        pytest.param({"fallbacks": [fallback.static(1)]}, "no dependency", id="no-dependency"),
        pytest.param({"dependency": "users", "fallbacks": ["static"]}, "'static'", id="no-step"),
    ],
)
def test_task_class_is_checked_when_it_is_made(attributes: dict[str, Any], named: str) -> None:
    """The class statement itself fails, and names the task."""
    assert_refused(lambda: make_subclass(attributes), "declared", named)


@pytest.mark.parametrize("options", [{}, {"pydantic": True}, {"bind": True}])
def test_coroutine_body_is_refused_when_decorated(options: dict[str, Any]) -> None:
    """However it is wrapped: Celery would return a coroutine that nobody awaits."""
    app = new_app()
    app.task(name="later", shared=False, **options)(coroutine)  # type: ignore[no-untyped-call] # so the stubs

    assert_refused(app.finalize, "coroutine")


@pytest.mark.parametrize(
    ("dependencies", "named"),
    [
        pytest.param([Dependency("users")] * 2, ["'users'", "twice"], id="name"),
        pytest.param(
            [Dependency("users"), Dependency("people", queue="users")],
            ["'users'", "'people'", "queue"],
            id="queue",
        ),
    ],
)
def test_dependencies_are_distinct(dependencies: list[Dependency], named: list[str]) -> None:
    """Two of one name, or of one queue, are named."""
    assert_refused(lambda: adopt(new_app(), *dependencies), *named)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "soon"])
def test_timeout_of_a_dependency_must_be_seconds(seconds: Any) -> None:  # noqa: ANN401 - that is the point
    """An attempt takes a positive number of seconds at most."""
    with pytest.raises(ValueError, match=re.escape("timeout")):
        Dependency("users", timeout=seconds)
