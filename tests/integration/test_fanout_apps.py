"""Which processes belong together: those of one app, whatever it is called in each."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from resilience.dependency import Dependency
from resilience.events import Event, PartUnreported
from resilience.settings import Settings
from resilience.store import Slot
from resilience.tasks import FanOut, PendingResponse, Resilience, ResilientTask
from resilience.tasks.identity import identity_of
from resilience.tasks.reporting import report_value
from resilience.testing.process import import_path, inherited_env
from resilience.testing.waiting import wait_until
from tests.integration.apps.fresh import echo
from tests.integration.apps.stage import SECONDS, Stage, close_app, running_servers

SHORT = 0.2
SHARED_FIRST = "tests.integration.apps.shared_first"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers without a worker."""
    with running_servers(tmp_path_factory) as running:
        yield running


@pytest.fixture
def events() -> list[Event]:
    """What the apps of this test announce."""
    return []


@pytest.fixture
def make(servers: Stage, events: list[Event]) -> Iterator[Any]:
    """Return how to make one more app at the same servers."""
    made: list[Celery] = []

    def make_one(main: str, *, namespace: str | None = None, **conf: object) -> Celery:
        app = Celery(
            main,
            broker=servers.broker.url,
            backend=servers.desk.url,
            task_cls=ResilientTask,
            set_as_current=False,
        )
        app.conf.update(conf)
        app.task(name="get_user", shared=False, dependency="users")(echo)
        settings = Settings(
            store_url=servers.store.url, store_timeout_seconds=SECONDS, namespace=namespace
        )
        Resilience(
            app, dependencies=[Dependency("users")], settings=settings, listeners=[events.append]
        )
        made.append(app)
        return app

    yield make_one
    for app in made:
        close_app(app)


def ask(app: Celery, **options: Any) -> PendingResponse:  # noqa: ANN401 - of apply_async
    """Begin a fan-out of one part."""
    return FanOut(user=app.tasks["get_user"].s(1)).apply_async(**options)


def answer(app: Celery, pending: PendingResponse) -> None:
    """Report what a worker of *app* would."""
    report_value(Resilience.of(app), Slot(fan=pending.id, part="user"), 1)


def due(app: Celery) -> list[str]:
    """Return what a worker of *app* would finish now."""
    taken, _ = Resilience.of(app).fan_in.take_due()
    return taken


def test_caller_and_worker_need_not_share_a_name(make: Any) -> None:  # noqa: ANN401
    """A web process that names its Celery app as it likes gets the answers all the same."""
    web, worker = make("web"), make("jobs.app")

    pending = ask(web, budget=SECONDS)
    answer(worker, pending)

    assert pending.get().data == {"user": 1}


def test_part_without_a_record_is_said(make: Any, events: list[Event]) -> None:  # noqa: ANN401
    """A worker that looks into another namespace than the caller does not drop answers silently."""
    caller, worker = make("shop", namespace="one"), make("shop", namespace="two")

    pending = ask(caller, budget=SHORT)
    answer(worker, pending)

    (event,) = [event for event in events if isinstance(event, PartUnreported)]
    assert (event.id, event.part) == (pending.id, "user")
    assert "RESILIENCE_NAMESPACE" in event.error


@pytest.mark.parametrize("elsewhere", ["queue", "broker"])
def test_callback_is_left_to_its_own_app(servers: Stage, make: Any, elsewhere: str) -> None:  # noqa: ANN401
    """A worker of an unrelated app on the same store, which cannot run it, never takes it."""
    conf = {
        "queue": {"task_default_queue": "theirs"},
        "broker": {"broker_url": servers.broker.url[:-1] + "1"},
    }
    other, ours, caller = make("shop", **conf[elsewhere]), make("worker"), make("web")

    pending = ask(caller, budget=SHORT, on_complete=caller.tasks["get_user"].s())
    wait_until(lambda: due(ours) == [pending.id], SECONDS, "it is due")
    Resilience.of(other).fan_in.finish(pending.id, "deadline", lease_seconds=0)

    assert due(other) == []
    wait_until(lambda: due(ours) == [pending.id], SECONDS, "it is still due")


def test_declaration_may_be_imported_before_the_app() -> None:
    """A constant of shared tasks, made before the app, asks the app's, in any thread."""
    said = subprocess.run(  # noqa: S603 - of this directory
        [sys.executable, "-m", SHARED_FIRST],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.stdout.splitlines() == ["{'user': 'StoreUnavailableError'}"] * 2, said.stderr


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://:secret@cache:6379/0", "redis://cache:6379/0"),
        ("amqp://web:a@rabbit/shop", "pyamqp://jobs:b@Rabbit/shop"),
        ("redis://cache/0", "redis://cache/0?health_check_interval=5"),
        ("amqp://a:x@one//;amqp://b:y@two//", "amqp://one//;amqp://two//"),
    ],
)
def test_who_logs_in_makes_no_other_app(one: str, other: str) -> None:
    """Users, passwords and options may differ between the processes of an app."""
    first, second = (Celery(broker=url, set_as_current=False) for url in (one, other))

    assert identity_of(first) == identity_of(second)
