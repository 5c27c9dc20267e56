"""What an adopted app sets for its broker suits that broker, whenever the app names it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu import Connection, Queue

from benchmarks.diary import Diary
from resilience.broker import SafeConnection
from resilience.dependency import Dependency
from resilience.tasks import Resilience
from resilience.testing.process import import_path, inherited_env
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.compatibility.apps import people

SILENT_SECONDS = 5

SECONDS = 120.0
LONG_SECONDS = 60.0
SOON_SECONDS = 20.0
"""Five seconds of silence, and what a busy machine adds. Celery's own time is an hour."""
CLIENTS, CALLS = 4, 5
REDIS, RABBITMQ = "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1"
BOTH = [people.QUEUE, people.PLAIN_QUEUE]
PLAIN = pytest.param(False, id="plain", marks=pytest.mark.long)
"""What Celery itself does: it changes with Celery alone."""
EITHER = pytest.mark.parametrize("adopted", [PLAIN, pytest.param(True, id="adopted")])
WAYS = pytest.mark.parametrize("how", people.CONFIGURE)


@pytest.fixture(params=["valkey", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the address of an empty broker, of each kind in turn."""
    server: ValkeyProcess | RabbitProcess = request.getfixturevalue(request.param)
    if isinstance(server, RabbitProcess):
        return server.new_url()
    server.flush()
    return server.url


@contextmanager
def working(
    url: str,
    *,
    how: str = "at once",
    adopted: bool = True,
    diary: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[WorkerProcess]:
    """Run a worker of the app."""
    env = {
        "ADOPTED": str(int(adopted)),
        "BROKER": url,
        "DIARY": str(diary),
        "HOW": how,
        "SETTINGS": json.dumps(settings or {}),
    }
    with run_worker(people.__name__, queues=BOTH, env=env, concurrency=1) as worker:
        yield worker
        worker.kill()


def adopted_app(broker_url: str, **settings: Any) -> Celery[Any]:  # noqa: ANN401 - of Celery
    """Return an app with a dependency that is adopted before its broker is known."""
    app: Celery[Any] = Celery("people", set_as_current=False)
    Resilience(app, dependencies=[Dependency(people.QUEUE)])
    assert app.conf.task_time_limit is None
    app.conf.update(broker_url=broker_url, **settings)
    return app


@WAYS
def test_options_follow_the_broker(how: str) -> None:
    """However and whenever the app names its broker, connections get what is safe for that one."""
    for broker_url, safe in ((REDIS, "visibility_timeout"), (RABBITMQ, "confirm_publish")):
        app = people.make_app(how, broker_url)
        found = app.connection_for_read().transport_options

        assert safe in found
        assert ("visibility_timeout" in found) != ("confirm_publish" in found)
        assert app.conf.broker_transport_options == found
        assert app.conf.get("broker_transport_options") == found


@WAYS
def test_queues_follow_the_broker(how: str) -> None:
    """The queue of a dependency is a quorum queue on RabbitMQ, for workers and publishers."""
    app = people.make_app(how, RABBITMQ)

    app.amqp.router  # noqa: B018 - made for the first job that is published

    assert app.amqp.queues[people.QUEUE].queue_arguments["x-queue-type"] == "quorum"
    assert not app.amqp.queues[people.PLAIN_QUEUE].queue_arguments


def test_own_options_stay_whatever_the_broker() -> None:
    """Options that the app sets, or changes in place, are mixed with the safe ones."""
    app = adopted_app(REDIS, broker_transport_options={"visibility_timeout": 9})
    app.conf.broker_transport_options["priority_steps"] = [0, 5]
    options = app.connection().transport_options

    assert (options["visibility_timeout"], options["priority_steps"]) == (9, [0, 5])
    assert options["socket_timeout"] == 1.0
    app.conf.result_backend_transport_options = {"global_keyprefix": "mine"}
    assert {"global_keyprefix", "retry_policy"} == {*app.conf.result_backend_transport_options}


def test_broker_of_another_transport_is_left_alone() -> None:
    """A transport without our heartbeat keeps Celery's visibility timeout: long jobs run once."""
    app: Celery[Any] = Celery("people", broker=REDIS, set_as_current=False)
    amqp: Any = app.amqp
    amqp.Connection = type("Own", (Connection,), {})
    Resilience(app, dependencies=[Dependency(people.QUEUE)])

    assert not isinstance(app.connection(), SafeConnection)
    assert app.connection().transport_options == {}


@pytest.mark.parametrize(
    "own", [{"control_queue_exclusive": True}, {"control_queue_durable": False}], ids=repr
)
def test_own_control_queue_is_celerys(own: dict[str, bool]) -> None:
    """Who sets one option of the control queues has Celery's default for the other."""
    app = adopted_app(RABBITMQ, **own)

    exclusive = own.get("control_queue_exclusive", DEFAULTS["control_queue_exclusive"])
    assert app.control.mailbox.queue_exclusive is exclusive
    assert app.control.mailbox.queue_durable is False


@pytest.mark.redis_broker("RabbitMQ gives back at once what a lost connection held")
def test_job_of_a_killed_worker_runs_again_soon(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """The job runs again within seconds, though the broker was named after adoption."""
    valkey.flush()
    how, path = "twice", tmp_path / "diary"
    diary = Diary(path)

    def begun() -> int:
        return sum(line["what"] == "begun" for line in diary.read())

    with working(valkey.url, how=how, diary=path) as first:
        people.make_app(how, valkey.url).tasks["charge"].delay(1, LONG_SECONDS)
        wait_until(lambda: begun() == 1, SECONDS, "the job has begun")
        first.kill()
        with working(valkey.url, how=how, diary=path):
            soon = SILENT_SECONDS + SOON_SECONDS
            assert wait_until(lambda: begun() == 2, soon, "it runs in the other worker")


@EITHER
def test_remote_control_loses_no_answer(
    url: str,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Every question of four clients at a time is answered, as with plain Celery."""
    command = [sys.executable, "-m", people.__name__, url, str(CALLS)]
    env = inherited_env({"ADOPTED": str(int(adopted)), "PYTHONPATH": import_path()})
    with working(url, adopted=adopted), ExitStack() as stack:
        clients = [
            stack.enter_context(subprocess.Popen(command, env=env, stdout=subprocess.PIPE))  # noqa: S603 - our own module
            for _ in range(CLIENTS)
        ]

        assert [int(one.communicate()[0]) for one in clients] == [CALLS] * CLIENTS


@EITHER
def test_priorities_of_all_queues_stop_nobody(
    url: str,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With `task_queue_max_priority` workers and publishers start; a warning says what is left."""
    monkeypatch.setenv("ADOPTED", str(int(adopted)))
    settings, path = {"task_queue_max_priority": 10}, tmp_path / "diary"
    app = people.make_app("at once", url, settings)
    with working(url, adopted=adopted, settings=settings, diary=path) as worker:
        for name in ("charge", "plain"):
            app.tasks[name].apply_async((1, 0.0), priority=5)

        done = [("done", 1)] * 2
        wait_until(lambda: _said(path, "done") == done, SECONDS, "both jobs are done")
        warned = adopted and url.startswith("amqp")
        assert worker.log.count("task_queue_max_priority=10 is left off") == int(warned)
    assert caplog.text.count("task_queue_max_priority=10 is left off") == int(warned)
    assert app.amqp.queues[people.PLAIN_QUEUE].queue_arguments == {"x-max-priority": 10}
    app.close()


def _said(path: Path, what: str) -> list[tuple[str, int]]:
    return [(what, line["job"]) for line in Diary(path).read() if line["what"] == what]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"task_default_queue_type": "quorum", "task_create_missing_queues": False},
            id="quorum by default, none missing",
        ),
        pytest.param(
            {
                "task_default_queue_type": "quorum",
                "task_queue_max_priority": 10,
                "task_default_delivery_mode": "transient",
            },
            id="quorum by default with priorities, transient",
        ),
        pytest.param(
            {
                "task_create_missing_queue_type": "quorum",
                "task_create_missing_queue_exchange_type": "topic",
            },
            id="quorum and topic if missing",
        ),
        pytest.param(
            {
                "task_default_exchange": "jobs",
                "task_default_exchange_type": "topic",
                "worker_direct": True,
            },
            id="exchange, direct",
        ),
    ],
)
def test_settings_of_all_queues_hold_on_rabbitmq(
    settings: dict[str, Any], rabbitmq: RabbitProcess, tmp_path: Path
) -> None:
    """A worker starts with Celery's settings for all queues, in pairs, and jobs reach it."""
    url, path = rabbitmq.new_url(), tmp_path / "diary"
    app = people.make_app("at once", url, settings)
    with working(url, settings=settings, diary=path):
        for name in ("charge", "plain"):
            app.tasks[name].delay(1, 0.0)

        done = [("done", 1)] * 2
        assert wait_until(lambda: _said(path, "done") == done, SECONDS, "both jobs are done")
    app.close()


def test_argument_that_a_queue_cannot_have_is_named(rabbitmq: RabbitProcess) -> None:
    """What the app's own `task_queues` ask in vain of RabbitMQ is said with what to change."""
    app = adopted_app(rabbitmq.new_url())
    arguments = {"x-queue-type": "quorum", "x-max-priority": 10}
    app.conf.task_queues = [Queue(people.QUEUE, queue_arguments=arguments)]
    with app.connection() as connection:
        queue = app.amqp.queues[people.QUEUE](connection.default_channel)
        with pytest.raises(Exception, match=r"'payments'.*x-max-priority.*task_queues") as error:
            queue.declare()
    assert "delete it" not in str(error.value)
