"""A bulkhead's jobs run in the bulkhead, in whatever form they are routed or published.

Each job runs on a real worker and says which queue it came from; the same app as plain Celery,
with a `task_routes` that says what adopting says, is the measure.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signature, xstarmap

from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.compatibility.apps.routed import OTHER, bulkhead, make_app, queues

APP_PATH = "tests.compatibility.apps.routed"
KINDS = [pytest.param("plain", marks=pytest.mark.long), "adopted"]
"""What plain Celery does changes with Celery alone."""
CHARGE = "app.payments.charge"
SECONDS = 120


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a broker and a result backend."""
    with (
        running_broker(tmp_path_factory) as broker,
        running_valkey(tmp_path_factory) as backend,
    ):
        yield {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": backend.url}


@contextmanager
def working(kind: str, urls: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a worker of the app of *kind*."""
    env = {**urls, "ROUTED_KIND": kind}
    with run_worker(APP_PATH, queues=queues(kind), pool="solo", env=env) as worker:
        yield urls
        worker.kill()


@pytest.fixture(scope="module")
def env(urls: dict[str, str]) -> Iterator[dict[str, str]]:
    """Where broker and backend of the adopted app's worker are."""
    with working("adopted", urls) as env:
        yield env


@pytest.fixture(scope="module")
def plain_env(urls: dict[str, str]) -> Iterator[dict[str, str]]:
    """Where those of the plain app's worker are."""
    with working("plain", urls) as env:
        yield env


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of an app whose worker runs."""
    name: str = request.param
    request.getfixturevalue("env" if name == "adopted" else "plain_env")
    return name


@pytest.fixture
def app(kind: str, urls: dict[str, str]) -> Iterator[Celery[Any]]:
    """A publisher's app of either kind."""
    with closing(new_app(kind, urls)) as made:
        yield made


class closing:  # noqa: N801 - as the one of contextlib
    """Close an app and the connections of what adopted it."""

    def __init__(self, app: Celery[Any]) -> None:
        self.app = app

    def __enter__(self) -> Celery[Any]:
        return self.app

    def __exit__(self, *_: object) -> None:
        adopted: Any = getattr(self.app, "resilience", None)
        if adopted is not None:
            adopted.store.client.close()
        self.app.close()


def new_app(kind: str, env: dict[str, str], **conf: Any) -> Celery[Any]:  # noqa: ANN401
    """Return a publisher's app."""
    return make_app(
        kind, broker=env["CELERY_BROKER_URL"], backend=env["CELERY_RESULT_BACKEND"], **conf
    )


def ran(result: Any) -> tuple[set[str], set[int | None]]:  # noqa: ANN401 - of Celery
    """Wait for *result*; return the queues that its jobs came from, and their priorities."""
    found: list[Any] = [result.get(timeout=SECONDS)]
    while not isinstance(found[0][0], str):
        found = [one for group in found for one in group]
    return {queue for queue, _ in found}, {priority for _, priority in found}


OURS_ALONE = {
    "chunks",
    "map-by-name",
    "map-with-options",
    "map-as-dict",
    "map-in-a-group",
    "map-behind-another",
    "map-in-a-linked-chain",
}
"""Here plain Celery does not look at the task within: it runs in the default queue."""

PUBLISHED = {
    "map": lambda task: task.map([1, 2]).apply_async(),
    "starmap": lambda task: task.starmap([(1, 2)]).apply_async(),
    "chunks": lambda task: task.chunks([(1,), (2,), (3,)], 2).apply_async(),
    "map-by-name": lambda task: task.app.send_task(
        "celery.map", kwargs={"task": task.s(), "it": [1, 2]}
    ),
    "starmap-of-a-signature": lambda task: xstarmap(
        task.s().set(priority=2), [(1,)], app=task.app
    ).apply_async(),
    "map-with-options": lambda task: task.map([1]).set(priority=2).clone().apply_async(),
    "map-as-dict": lambda task: signature(dict(task.map([1])), app=task.app).apply_async(),
    "map-in-a-group": lambda task: group([task.map([1]), task.map([2])], app=task.app).delay(),
    "map-behind-another": lambda task: chain(task.si(), task.map([1]), app=task.app).delay(),
    "map-in-a-chord": lambda task: chord(
        [task.s(), task.map([1])], task.si(), app=task.app
    ).delay(),
    "map-in-a-linked-chain": lambda task: (task.si() | group([task.map([1])])).delay(),
    "clone": lambda task: task.s().clone().set(shadow="other").apply_async(),
    "replaced": lambda task: task.app.tasks["app.swap"].delay("task"),
    "replaced-by-a-map": lambda task: task.app.tasks["app.swap"].delay("map"),
    "by-name": lambda task: task.app.send_task(task.name),
    "for-another": lambda task: task.app.tasks["app.free"].apply_async(route_name=task.name),
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_task_runs_in_its_bulkhead_when_it_is_published_in_another_form(
    app: Celery[Any], form: str
) -> None:
    """What a canvas helper, a replacement or a clone publishes runs where the task itself does."""
    if app.main == "plain" and form in OURS_ALONE:
        pytest.skip("plain Celery looks at the name of the helper only")
    found, _ = ran(PUBLISHED[form](app.tasks[CHARGE]))

    assert found == {bulkhead(app.main)}


@pytest.mark.parametrize("form", ["map", "starmap", "chunks"])
def test_map_goes_to_the_lane_of_its_task(env: dict[str, str], form: str) -> None:
    """Items of a critical task are critical."""
    with closing(new_app("adopted", env)) as app:
        found, _ = ran(PUBLISHED[form](app.tasks["app.payments.urgent"]))
        given, _ = ran(app.tasks[CHARGE].map([1]).apply_async(lane="sheddable"))

    assert found == {f"{bulkhead('adopted')}.critical"}
    assert given == {f"{bulkhead('adopted')}.sheddable"}


def some_options(name: str, *_: object, **__: object) -> dict[str, Any] | None:
    """Give options and no queue, as a router of an app may."""
    return {"priority": 3} if name == CHARGE else None


class OldRouter:
    """A router in the form of Celery 3."""

    def route_for_task(self, name: str, *_: object, **__: object) -> dict[str, Any] | None:
        """Give options and no queue."""
        return some_options(name)


THREE = {"priority": 3}
NO_QUEUE = {
    "glob": {"app.*": THREE},
    "exact": {CHARGE: THREE},
    "regex": {re.compile(r"app\..*"): THREE},
    "pairs": ([("app.*", THREE)],),
    "several": ({"other": "x"}, {"app.*": THREE}, {"app.payments.*": {"priority": 9}}),
    "function": (some_options,),
    "only-a-function": some_options,
    "old-router": (OldRouter(),),
    "path": ("tests.compatibility.test_routes.some_options",),
    "path-of-a-class": ("tests.compatibility.test_routes.OldRouter",),
    "queue-is-none": {"app.*": {"queue": None, **THREE}},
    "queue-is-empty": {"app.*": {"queue": "", **THREE}},
    "all-are-none": {"app.*": {"queue": None, "exchange": None, "routing_key": "", **THREE}},
    "with-other-options": {"app.*": {"serializer": "json", "compression": "zlib", **THREE}},
}


@pytest.mark.parametrize(
    ("form", "later"),
    [
        pytest.param(form, bool(number % 2), id=f"{form}-{'later' if number % 2 else 'before'}")
        for number, form in enumerate(NO_QUEUE)
    ],
)
def test_route_without_a_queue_adds_its_options_and_leaves_the_bulkhead(
    env: dict[str, str],
    form: str,
    later: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The route decides what it speaks of; of the queue it says nothing."""
    conf: dict[str, Any] = {"task_routes": NO_QUEUE[form]}
    with closing(new_app("adopted", env, **({} if later else conf))) as app:
        if later:
            assert app.amqp.router is not None
            app.conf.update(conf)
        found = ran(app.tasks[CHARGE].delay())
        mapped = ran(app.tasks[CHARGE].map([1]).apply_async())
        free, _ = ran(app.tasks["app.free"].delay())

    assert found == ({bulkhead("adopted")}, {3})
    assert mapped == ({bulkhead("adopted")}, {3})
    assert free == {"adopted"}


@pytest.mark.parametrize(
    "routes", [{"app.*": {}}, (lambda *_, **__: {},)], ids=["dict", "function"]
)
def test_route_that_says_nothing_leaves_the_bulkhead(env: dict[str, str], routes: object) -> None:
    """An empty route is no queue."""
    with closing(new_app("adopted", env, task_routes=routes)) as app:
        assert ran(app.tasks[CHARGE].delay())[0] == {bulkhead("adopted")}


def test_options_of_the_call_and_of_the_task_leave_the_bulkhead(env: dict[str, str]) -> None:
    """`priority` of a call or a task is no queue, and the call's wins."""
    with closing(new_app("adopted", env)) as app:
        charge = app.tasks[CHARGE]
        type(charge).priority = 4
        assert ran(charge.delay()) == ({bulkhead("adopted")}, {4})
        assert ran(charge.apply_async(priority=3)) == ({bulkhead("adopted")}, {3})
        app.conf.task_routes = {"app.*": {"priority": 5}}
        assert ran(charge.apply_async(priority=6)) == ({bulkhead("adopted")}, {6})


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param({CHARGE: "{}"}, id="string"),
        pytest.param({CHARGE: {"queue": "{}"}}, id="mapping"),
        pytest.param([("app.*", "{}")], id="pairs"),
        pytest.param({"app.*": {"exchange": "{}", "routing_key": "{}"}}, id="exchange"),
        pytest.param(lambda *_, **__: "{}", id="function"),
    ],
)
def test_destination_that_the_app_gives_wins(
    urls: dict[str, str],
    kind: str,
    routes: Any,  # noqa: ANN401
) -> None:
    """A queue, exchange or routing key of a route is obeyed, as by plain Celery."""
    queue = f"{kind}.{OTHER}"

    def filled(value: Any) -> Any:  # noqa: ANN401
        if callable(value):
            return lambda *_, **__: queue
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return queue if value == "{}" else value

    given = ([(routes[0][0], queue)],) if isinstance(routes, list) else filled(routes)
    with closing(new_app(kind, urls, task_routes=given)) as app:
        assert ran(app.tasks[CHARGE].delay())[0] == {queue}
        assert ran(app.tasks[CHARGE].map([1]).apply_async())[0] == {queue}


@pytest.mark.parametrize("form", ["queue", "exchange", "task"])
def test_destination_of_a_call_wins(app: Celery[Any], form: str) -> None:
    """What the publisher says, or the task's own attribute, is obeyed as by plain Celery."""
    queue = f"{app.main}.{OTHER}"
    charge = app.tasks[CHARGE]
    given: dict[str, Any] = {"queue": queue}
    if form == "exchange":
        given = {"exchange": queue, "routing_key": queue}
    elif form == "task":
        type(charge).queue, given = queue, {}

    assert ran(charge.apply_async(**given))[0] == {queue}
