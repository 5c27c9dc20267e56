"""Two apps in one process: whichever publishes says what its message carries."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, signals
from celery._state import get_current_app
from opentelemetry.sdk.trace import TracerProvider

from resilience import Dependency, FireAndForgetTask, Resilience, TimeoutBudget
from resilience.monitor.opentelemetry import OpenTelemetry
from resilience.monitor.prometheus import PrometheusListener
from resilience.tasks.envelope import BUDGET_HEADER, SENT_HEADER

LATER = datetime(2040, 1, 1, tzinfo=UTC)
PLACES = (
    *(None, LATER, "job", None, None, None, None, LATER, None, None, None, True),
    *("group", 3, 2, None, "reply", 50, 40, "root", "parent", None, "shadow"),
)
"""Options of `send_task` by their place, from `countdown` on."""
QUEUE = "elsewhere"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def current() -> Iterator[Celery[Any]]:
    """An adopted app that is Celery's current one, and not configured yet."""
    before = get_current_app()
    app = Celery("current")
    Resilience(app, dependencies=[Dependency("users")])
    yield app
    before.set_current()


@pytest.mark.parametrize("adopted", [True, False])
def test_publish_asks_no_other_app_than_its_own(current: Celery[Any], *, adopted: bool) -> None:
    """The current app is another one: what it shares is not made, and least of all without a store.

    It was once: from then on its process shared circuits with nobody.
    """
    app = Celery("publisher", broker="memory://", backend="cache+memory://", set_as_current=False)
    if adopted:
        Resilience(app, dependencies=[Dependency("mail")])
    with TimeoutBudget(60):
        app.send_task("task", queue=QUEUE, ignore_result=True)
    current.conf.update(broker_url=NOWHERE)

    with app.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as queue:
        headers = queue.get(block=False).headers
    assert (BUDGET_HEADER in headers) is adopted
    assert Resilience.of(current).why_no_store is None


@pytest.fixture
def listened() -> Iterator[Celery[Any]]:
    """An app whose listeners add to what it publishes."""
    app: Celery[Any] = Celery("listened", broker="memory://", set_as_current=False)
    tracer = OpenTelemetry(app, tracer_provider=TracerProvider())
    counts = PrometheusListener()
    Resilience(app, dependencies=[Dependency("mail")], listeners=[tracer, counts])
    yield app
    signals.before_task_publish.disconnect(tracer._on_publish)  # noqa: SLF001 - no end of its own
    signals.task_prerun.disconnect(tracer._on_begin)  # noqa: SLF001 - as above
    signals.task_postrun.disconnect(tracer._on_end)  # noqa: SLF001 - as above


@pytest.mark.parametrize("in_job", [True, False])
@pytest.mark.parametrize("adopted", [True, False])
def test_listeners_leave_what_other_apps_publish_alone(
    listened: Celery[Any], *, adopted: bool, in_job: bool
) -> None:
    """Neither time nor trace is in their messages, also where a job of the app publishes them."""
    other: Celery[Any] = Celery("other", broker="memory://", set_as_current=False)
    if adopted:
        Resilience(other, dependencies=[Dependency("mail")])

    def found(app: Celery[Any]) -> set[str]:
        queue = uuid4().hex

        @listened.task(name=queue, shared=False)
        def job() -> None:
            app.send_task("task", queue=queue, ignore_result=True)

        with TracerProvider().get_tracer("web").start_as_current_span("request"):
            if in_job:
                job.apply(throw=True)
            else:
                app.send_task("task", queue=queue, ignore_result=True)
        with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
            return {SENT_HEADER, "traceparent"} & waiting.get(block=False).headers.keys()

    assert found(listened) == {SENT_HEADER, "traceparent"}
    assert found(other) == set()


def sent(app: Celery[Any], name: str) -> dict[str, Any]:
    """Return what the message of a job says that is published with options by their place."""
    queue = uuid4().hex
    result = app.send_task(name, (1,), {"b": 2}, *PLACES, queue=queue)
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        message = waiting.get(block=False)
    app.close()
    said = {**message.headers, "result": result.id, "reply": message.properties["reply_to"]}
    return {key: said[key] for key in said if said[key] and not key.startswith("resilience")}


@pytest.mark.parametrize("name", ["app.mail.send", "other.task"], ids=["ours", "nobodys"])
def test_options_by_their_place_mean_what_they_mean_to_celery(name: str) -> None:
    """In an adopted app, too, whether a dependency owns the name or none."""
    servers = {"broker": "memory://", "backend": "cache+memory://", "set_as_current": False}
    plain, adopted = (Celery("publisher", **servers) for _ in range(2))
    Resilience(adopted, dependencies=[Dependency("mail", tasks=["app.mail.*"])])

    expected = sent(plain, name)

    assert expected["timelimit"] == [50, 40]
    assert sent(adopted, name) == expected


@pytest.mark.parametrize(
    ("places", "options"),
    [((*PLACES, *[None] * 20), {}), ((None, LATER), {"eta": LATER})],
    ids=["too many", "twice"],
)
def test_options_that_celery_refuses_are_refused(
    places: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """More than there are, or one by its place and by its name, is a mistake of the caller's."""
    app = Celery("publisher", broker="memory://", set_as_current=False)

    @app.task(base=FireAndForgetTask, dependency="mail", name="mail.fire", shared=False)
    def fire() -> None:
        pass

    Resilience(app, dependencies=[Dependency("mail")])

    with pytest.raises(TypeError, match=r"by their place|by place and by name"):
        app.send_task("other.task", (), {}, *places, **options)
    with pytest.raises(TypeError, match=r"by their place|by place and by name"):
        fire.apply_async((), {}, *places, **{**options, **({"producer": None} if options else {})})
