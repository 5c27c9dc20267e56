"""Adopting an app: every bulkhead has its queue, behind the app's own routes."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from resilience.dependency import Dependency
from resilience.errors import ConfigurationError
from resilience.tasks import Resilience
from resilience.testing.process import ProcessStartError, import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from tests.brokers import Broker
from tests.integration.apps.fresh import adopt, echo, new_app, nothing, queue_of, read

Configure = Callable[[Celery], object]


@pytest.mark.parametrize("before_that", [nothing, read])
@pytest.mark.parametrize("configured_first", [False, True])
@pytest.mark.parametrize(
    "routes",
    [
        pytest.param({"get_user": {"queue": "vip"}}, id="mapping"),
        pytest.param(([("get_u*", "vip")],), id="pattern"),
        pytest.param(
            (lambda name, *_, **__: "vip" if name == "get_user" else None,), id="function"
        ),
    ],
)
def test_own_routes_win(
    routes: object,
    configured_first: bool,  # noqa: FBT001 - a parameter of the test
    before_that: Configure,
) -> None:
    """The app's `task_routes` come first; a task that they do not know goes to its bulkhead."""
    app = new_app()
    app.task(name="charge", shared=False, dependency="payments")(echo)
    before_that(app)
    if configured_first:
        app.conf.update(task_routes=routes)
    adopt(app)
    before_that(app)
    if not configured_first:
        app.conf.update(task_routes=routes)

    assert queue_of(app, "get_user") == "vip"
    assert queue_of(app, "charge") == "money"
    assert queue_of(app, "free") == "celery"
    assert queue_of(app, "get_user", queue="explicit") == "explicit"


@pytest.mark.parametrize(
    "before_that", [pytest.param(nothing, id="later"), pytest.param(read, id="configured")]
)
@pytest.mark.parametrize(
    ("options", "queue", "named"),
    [
        pytest.param({}, "celery", "the app's default queue", id="default"),
        pytest.param({"task_default_queue": "main"}, "main", "default queue", id="own-default"),
    ],
)
def test_clash_of_queues_is_an_error(
    options: dict[str, Any],
    queue: str,
    named: str,
    before_that: Configure,
) -> None:
    """A bulkhead never shares the queue of others: at once, or at the first publish, it is said."""
    app = new_app(**options)
    before_that(app)

    def adopt_and_publish() -> None:
        adopt(app, Dependency("users", queue=queue))
        app.send_task("get_user")

    with pytest.raises(ConfigurationError, match=f"'users'.*{queue!r}.*{named}"):
        adopt_and_publish()


@pytest.mark.parametrize("before_that", [nothing, read])
@pytest.mark.parametrize("create_missing", [True, False])
def test_bulkhead_takes_the_queue_that_the_app_defines(
    create_missing: bool,  # noqa: FBT001 - a parameter of the test
    before_that: Configure,
) -> None:
    """A queue of `task_queues` keeps its arguments as a bulkhead's; one not defined there exists.

    That holds also for an app that creates no missing queues, and a worker that is told no queues
    consumes from those in `task_queues` only.
    """
    own = Queue("users", queue_arguments={"x-max-length": 10})
    app = new_app(task_queues=[own], task_create_missing_queues=create_missing)
    before_that(app)
    if before_that is read:
        assert list(app.amqp.queues) == ["users"]
    adopt(app)
    app.task(name="charge", shared=False, dependency="payments")(echo)

    assert app.amqp.router.route({}, "get_user")["queue"].queue_arguments == {"x-max-length": 10}
    assert queue_of(app, "charge") == "money"
    assert list(app.amqp.queues.consume_from) == ["users"]
    app.amqp.queues.select(["money"])
    assert list(app.amqp.queues.consume_from) == ["money"]


def test_clash_is_said_when_the_tasks_are_made() -> None:
    """An app that is configured later is told no later than when Celery makes its tasks."""
    app = new_app()
    adopt(app, Dependency("users", queue="celery"))

    with pytest.raises(ConfigurationError, match="'users' would share the queue 'celery'"):
        app.finalize()


def test_clash_is_said_at_every_publish() -> None:
    """An error that was overlooked once does not turn into jobs in the wrong queue."""
    app = new_app()
    adopted = adopt(app, Dependency("users", queue="celery"))

    for _ in range(3):
        with pytest.raises(ConfigurationError, match="'celery'"):
            app.tasks["get_user"].apply_async()
    with pytest.raises(ConfigurationError, match="'celery'"):
        adopted.check_queues()


def test_apps_share_nothing() -> None:
    """Two apps in one process have their own dependencies, queues, settings and tasks."""
    one, two, bare = new_app(), new_app(), new_app()
    adopt(one)
    adopt(two, Dependency("users", queue="theirs"), Dependency("search"))

    assert queue_of(one, "get_user") == "users"
    assert queue_of(two, "get_user") == "theirs"
    assert queue_of(bare, "get_user") == "celery"
    assert list(Resilience.of(one).dependencies) == ["users", "payments"]
    assert bare.conf.task_acks_late is False
    with pytest.raises(ConfigurationError, match="declares no dependencies"):
        Resilience.of(bare)


def test_apps_of_one_process_may_share_their_tasks() -> None:
    """Celery registers tasks with all apps of the process; each app publishes those of its own.

    What belongs to another app's dependency is refused when it is published.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.apps.two_apps"],
        env=inherited_env({"PYTHONPATH": import_path()}),
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_worker_does_not_start_when_queues_clash(
    broker: Broker, valkey: ValkeyProcess, pool: str
) -> None:
    """It would take other jobs into the bulkhead: it ends, and its log names the clash."""
    env = {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": valkey.url}

    with (
        pytest.raises(ProcessStartError, match="'users' would share the queue 'celery'"),
        run_worker("tests.integration.apps.clashing", queues=["celery"], pool=pool, env=env),
    ):
        pytest.fail("a worker with a clash of queues got ready")


def test_worker_starts_without_a_store_and_says_what_is_missing() -> None:
    """It works as far as it can, and one line of its log names what to set."""
    with run_worker("tests.integration.apps.storeless", queues=["users"], pool="solo") as worker:
        lines = [line for line in worker.log.splitlines() if "RESILIENCE_STORE_URL" in line]

    assert len(lines) == 1
    assert "WARNING" in lines[0]
