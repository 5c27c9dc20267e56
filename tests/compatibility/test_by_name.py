"""Publishing by name, from a process that has not imported the task, does what the task would do.

The front is this process: it knows the dependencies and no task. The worker has the tasks.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery, chain, chord, group, xmap
from celery.beat import ScheduleEntry, Scheduler, SchedulingError
from celery.exceptions import TaskRevokedError
from kombu import Connection
from sqlalchemy import create_engine, select

from resilience import BulkheadFullError
from resilience.clock import SystemClock
from resilience.events import Event, JobKept
from resilience.ledger.redaction import redacted
from resilience.ledger.tables import JOBS
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, put, running_broker
from tests.compatibility.apps.split import QUEUES, add_tasks, make_app

APP_PATH = "tests.compatibility.apps.split"
SECONDS = 120
CHARGE, URGENT, MAIL, REPORT = "app.pay.charge", "app.pay.urgent", "app.mail.send", "app.report"


class Halves:
    """A worker with tasks, and what makes fronts without."""

    def __init__(self, urls: dict[str, str], broker: Broker, desk: redis.Redis) -> None:
        self.urls, self.broker, self.desk = urls, broker, desk
        self.events: list[Event] = []
        self._made: list[Celery[Any]] = []

    def front(self, **options: Any) -> Celery[Any]:  # noqa: ANN401
        """Return the app of one more process that only publishes."""
        made = make_app(self.urls, listener=self.events.append, **options)
        self._made.append(made)
        return made

    def close(self) -> None:
        """Close what the fronts have opened."""
        for app in self._made:
            adopted: Any = app.resilience  # type: ignore[attr-defined]
            adopted.store.client.close()
            adopted.ledger.close()
            app.close()
        self._made.clear()
        self.events.clear()

    def noted(self, key: str) -> list[tuple[str, str]]:
        """Return the queue and the id of each job that was run with *key*."""
        found: Any = self.desk.lrange(key, 0, -1)
        return [tuple(json.loads(text)) for text in found]

    def await_noted(self, key: str, calls: int = 1) -> list[tuple[str, str]]:
        """Wait for so many *calls*."""
        wait_until(lambda: len(self.noted(key)) >= calls, SECONDS, f"{calls} calls of {key}")
        return self.noted(key)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Halves]:
    """Run servers and a worker."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        server = stack.enter_context(running_valkey(tmp_path_factory))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        urls = {"BROKER": broker.url, "DESK": server.url, "LEDGER": f"sqlite:///{path}"}
        made = Halves(urls, broker, server.client())
        stack.callback(made.close)
        made.front().resilience.ledger.upgrade()  # type: ignore[attr-defined]
        env = {f"SPLIT_{name}": url for name, url in urls.items()}
        worker = run_worker(APP_PATH, queues=QUEUES, pool="prefork", env=env)
        stack.callback(stack.enter_context(worker).kill)
        yield made


@pytest.fixture
def halves(stage: Halves) -> Iterator[Halves]:
    """Return the servers, up and the bulkhead nobody serves empty."""
    yield stage
    stage.close()


def beat(app: Celery[Any], name: str, **options: Any) -> Any:  # noqa: ANN401
    """Publish as the scheduler does."""
    scheduler = Scheduler(app, lazy=True)
    return scheduler.apply_async(ScheduleEntry(name, name, schedule=1, options=options, app=app))


FORMS: dict[str, Callable[[Celery[Any], str], Any]] = {
    "send_task": lambda app, name: app.send_task(name),
    "positional": lambda app, name: app.send_task(name, (), {}, None, None, str(uuid4())),
    "signature": lambda app, name: app.signature(name).delay(),
    "with-options": lambda app, name: app.signature(name).set(priority=2).apply_async(),
    "group": lambda app, name: group([app.signature(name)] * 2, app=app).delay(),
    "chain": lambda app, name: chain(
        app.signature(REPORT, immutable=True), app.signature(name, immutable=True), app=app
    ).delay(),
    "chord": lambda app, name: chord(
        [app.signature(REPORT)], app.signature(name, immutable=True), app=app
    ).delay(),
    "chord-header": lambda app, name: chord(
        [app.signature(name)] * 2, app.signature(name, immutable=True), app=app
    ).delay(),
    "map": lambda app, name: xmap(app.signature(name), [1, 2], app=app).apply_async(),
    "beat": beat,
    "result-class": lambda app, name: app.send_task(name, result_cls=app.AsyncResult),
}


def in_turn(forms: Iterable[str]) -> pytest.MarkDecorator:
    """Give a test each of *forms* by name or imported, in turn; the other half is for chaos."""
    return pytest.mark.parametrize(
        ("form", "known"),
        [
            pytest.param(
                form,
                known,
                id=f"{form}-{'imported' if known else 'by-name'}",
                marks=[pytest.mark.long] * ((number + known) % 2),
            )
            for number, form in enumerate(forms)
            for known in (False, True)
        ],
    )


@in_turn(FORMS)
def test_job_published_by_name_runs_in_its_bulkhead(
    halves: Halves,
    form: str,
    known: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """In its lane, whether the process knows the task or a pattern of its name only."""
    app = halves.front()
    if known:
        add_tasks(app, halves.desk)

    for name, queue in ((CHARGE, "pay"), (URGENT, "pay.critical")):
        found = FORMS[form](app, name).get(timeout=SECONDS)
        assert set(found if isinstance(found, list) else [found]) == {queue}


def test_options_of_the_publisher_win_over_the_name(halves: Halves) -> None:
    """A queue, a lane, a budget and an id that are given are obeyed."""
    app = halves.front()

    assert app.send_task(CHARGE, queue="celery").get(timeout=SECONDS) == "celery"
    assert app.send_task(CHARGE, lane="sheddable").get(timeout=SECONDS) == "pay.sheddable"
    assert app.signature(CHARGE).set(lane="critical").delay().get(timeout=SECONDS) == "pay.critical"
    result = app.send_task(CHARGE, task_id=(task_id := str(uuid4())), budget=10.0)
    assert result.id == task_id
    assert result.get(timeout=SECONDS) == "pay"
    late = app.send_task("app.pay.wait", (str(uuid4()),), budget=0.5)
    with pytest.raises(Exception, match="was cut after"):
        late.get(timeout=SECONDS)


@pytest.mark.parametrize("form", ["send_task", "signature", "beat", "map"])
def test_job_published_by_name_is_refused_when_its_bulkhead_is_full(
    halves: Halves, form: str
) -> None:
    """Admission asks who owns the name; a fire-and-forget job goes to the outbox instead."""
    app = halves.front()
    put(halves.broker, app, "narrow", 2)

    def refused() -> bool:
        """Publish; while a slow broker has told no depth yet, everybody is admitted."""
        try:
            FORMS[form](app, "app.narrow.charge")
        except (BulkheadFullError, SchedulingError) as error:  # beat wraps what a publish raises
            return "the bulkhead of narrow is full" in str(error)
        return False

    def kept() -> bool:
        return any(isinstance(one, JobKept) for one in halves.events)

    def keep() -> bool:
        app.send_task("app.narrow.mail", ("k",))
        return kept()

    wait_until(refused, SECONDS, "a job is refused")
    assert not kept()
    wait_until(keep, SECONDS, "a job is kept")


@in_turn(["send_task", "signature", "group", "beat"])
def test_fire_and_forget_by_name_is_kept_while_the_broker_is_down(
    halves: Halves,
    form: str,
    known: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The front's outbox has it within a second or so, and it is done when the broker is back."""
    app, key = halves.front(), str(uuid4())
    if known:
        add_tasks(app, halves.desk)
    publish: dict[str, Callable[[], Any]] = {
        "send_task": lambda: app.send_task(MAIL, (key,)),
        "signature": lambda: app.signature(MAIL, (key,)).delay(),
        "group": lambda: group([app.signature(MAIL, (key,))], app=app).apply_async(),
        "beat": lambda: Scheduler(app, lazy=True).apply_async(
            ScheduleEntry(MAIL, MAIL, schedule=1, args=(key,), app=app)
        ),
    }
    halves.broker.stop()
    try:
        began = SystemClock.monotonic()
        publish[form]()
        assert SystemClock.monotonic() - began < 3
        assert any(isinstance(one, JobKept) and one.task == MAIL for one in halves.events)
    finally:
        halves.broker.start()

    assert [queue for queue, _ in halves.await_noted(key)] == ["mail"]


def test_fire_and_forget_by_name_waits_for_its_time_in_the_ledger(halves: Halves) -> None:
    """A countdown is kept by the front, not in a worker's memory; failures run again."""
    app, key = halves.front(), str(uuid4())

    result = app.send_task(MAIL, (key,), {"failures": 1}, countdown=0.5)

    found = halves.await_noted(key, 2)
    assert [queue for queue, _ in found] == ["mail", "mail.retry"]
    assert {job for _, job in found} == {result.id}


def test_arguments_whose_names_nobody_knows_are_hidden_from_views(halves: Halves) -> None:
    """A front cannot tell which argument is a secret, so views of its outbox show none."""
    result = halves.front().send_task(MAIL, ("ann", "hunter2"), countdown=300)

    with create_engine(halves.urls["LEDGER"]).connect() as connection:
        text = connection.scalar(select(JOBS.c.message).where(JOBS.c.id == result.id))
    message = json.loads(text)
    assert message["args"] == ["ann", "hunter2"]
    assert "hunter2" not in json.dumps(redacted(message, [], {"password"})[0])


def test_unknown_name_is_published_as_ever_with_one_warning(
    halves: Halves, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per name, it says what to declare; the job runs where plain Celery runs it."""
    app = halves.front(named=False)

    with caplog.at_level(logging.WARNING, "resilience"):
        for _ in range(3):
            assert app.send_task(CHARGE).get(timeout=SECONDS) == "celery"
            assert xmap(app.signature(CHARGE), [1], app=app).apply_async().get(timeout=SECONDS) == [
                "celery"
            ]
            app.signature(URGENT).apply_async(priority=1)

    said = [record.getMessage() for record in caplog.records if "default queue" in record.message]
    assert len(said) == 2
    assert all(
        f"Dependency(…, tasks=['{name}'])" in text and f"task_routes={{'{name}': 'celery'}}" in text
        for name, text in zip((CHARGE, URGENT), said, strict=True)
    )


@pytest.mark.parametrize(
    ("conf", "options"),
    [
        pytest.param({}, {"queue": "theirs"}, id="queue"),
        pytest.param({}, {"exchange": "theirs", "routing_key": "x"}, id="exchange"),
        pytest.param({"task_routes": {"other.*": "theirs"}}, {}, id="route"),
        pytest.param({"task_routes": {"other.*": {"queue": "celery"}}}, {}, id="default-by-route"),
        pytest.param({"task_routes": lambda *_, **__: "theirs"}, {}, id="function"),
    ],
)
def test_name_with_a_place_to_go_is_no_reason_to_warn(
    halves: Halves,
    caplog: pytest.LogCaptureFixture,
    conf: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Plain tasks of other apps are published by name to where they live."""
    app = halves.front(**conf)

    with caplog.at_level(logging.WARNING, "resilience"):
        app.send_task("other.task", expires=1, **options)

    assert not caplog.records


def test_tasks_that_are_known_are_no_reason_to_warn(
    halves: Halves, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither is a plain task of this process nor one of Celery's own."""
    app = halves.front()
    add_tasks(app, halves.desk)

    with caplog.at_level(logging.WARNING, "resilience"):
        app.send_task(REPORT).get(timeout=SECONDS)
        app.tasks[REPORT].map([]).apply_async().get(timeout=SECONDS)
        app.send_task("celery.backend_cleanup", expires=1)

    assert not caplog.records


def publish_alone(halves: Halves, queue: str, task: str, *args: object, **headers: object) -> str:
    """Publish a message as a program without Celery does, and return the job's id."""
    job = str(uuid4())
    with Connection(halves.urls["BROKER"]) as connection, connection.Producer() as producer:
        producer.publish(
            json.dumps([args, {}, {}]),
            exchange="",
            routing_key=queue,
            headers={"task": task, "id": job, **headers},
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=job,
            delivery_mode=2,
        )
    return job


def test_publisher_without_the_library_needs_a_queue_and_two_headers(halves: Halves) -> None:
    """The worker does the rest: the pipeline, retries from the ledger, and deadlines."""
    app, key, now = halves.front(), str(uuid4()), SystemClock.now()
    past = {"deadline": now - 1, "total": 2.0, "sent": now - 3, "hops": []}

    charge = publish_alone(halves, "pay.critical", CHARGE)
    mail = publish_alone(halves, "mail", MAIL, key, 2, **{"resilience-job": {"born": now}})
    late = publish_alone(halves, "pay", CHARGE, **{"resilience-budget": past})

    assert app.AsyncResult(charge).get(timeout=SECONDS) == "pay.critical"
    assert halves.await_noted(key, 3) == [("mail", mail), *[("mail.retry", mail)] * 2]
    with pytest.raises(TaskRevokedError, match="was not begun: the budget of 2 s was spent"):
        app.AsyncResult(late).get(timeout=SECONDS)
