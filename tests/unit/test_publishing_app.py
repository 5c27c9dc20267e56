"""Two apps in one process: whichever publishes says what its message carries."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery._state import get_current_app

from resilience import Dependency, FireAndForgetTask, Resilience, TimeoutBudget
from resilience.tasks.envelope import BUDGET_HEADER

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
