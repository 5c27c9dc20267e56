"""What `resilience check` asks real brokers and workers, and what it makes of silence."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

import resilience
from resilience import Dependency, Resilience, ResilientTask, Settings
from resilience.monitor.checking import broker
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from tests.timing import no_later_than
from tests.unit.black_hole import black_hole

WORKER_APP = "tests.integration.apps.circuits"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server whose settings the tests change."""
    made = ValkeyProcess(tmp_path_factory.mktemp("valkey"))
    made.start()
    yield made
    made.stop()


def nothing() -> None:
    """Do nothing."""


def found(url: str, **conf: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - settings of Celery
    """Return rules and severities of what is found in an app that has no mistake of its own."""
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(conf)
    Resilience(app, dependencies=[Dependency("bank")], settings=Settings())
    app.task(base=ResilientTask, dependency="bank", name="ask", shared=False)(nothing)
    app.task(name="rich", shared=False)(nothing)
    try:
        return [(one.rule, one.severity) for one in resilience.check(app)]
    finally:
        app.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, [], id="as-it-should-be"),
        pytest.param(
            {"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"},
            [("broker-evicts", "error")],
            id="evicts",
        ),
        pytest.param(
            {"maxmemory-policy": "allkeys-lfu"}, [("broker-evicts", "warning")], id="no-limit-yet"
        ),
        pytest.param({"maxmemory-policy": "volatile-lru", "maxmemory": "100mb"}, [], id="no-queue"),
        pytest.param({"appendonly": "no"}, [("broker-not-persistent", "error")], id="forgets"),
        pytest.param({"appendonly": "no", "save": "60 1"}, [], id="snapshots"),
    ],
)
def test_redis_that_loses_jobs_is_found(
    server: ValkeyProcess, settings: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    """By eviction or a restart; a server that does neither is no mistake."""
    client = server.client()
    before = {name: client.config_get(name)[name] for name in settings}
    try:
        for name, value in settings.items():
            client.config_set(name, value)
        assert found(server.url) == expected
    finally:
        for name, value in before.items():
            client.config_set(name, value)


@pytest.mark.parametrize("refused", ["-config", "-info"])
def test_redis_that_tells_nothing_is_neither_clean_nor_wrong(
    server: ValkeyProcess, refused: str
) -> None:
    """As hosted ones refuse CONFIG; with an append-only file INFO alone says enough."""
    client = server.client()
    rules = ("reset", "on", ">pw", "~*", "&*", "+@all", refused)
    client.execute_command("ACL", "SETUSER", "app", *rules)
    url = server.url.replace("redis://", "redis://app:pw@")
    assert found(url) == ([] if refused == "-config" else [("cannot-tell", "note")])
    client.config_set("appendonly", "no")
    try:
        assert found(url) == [("cannot-tell", "note")]
    finally:
        client.config_set("appendonly", "yes")


def test_broker_that_does_not_answer_is_waited_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by an app that sets no limit of its own, as one that was never adopted."""
    monkeypatch.setattr(broker, "PROBE_SECONDS", 0.3)
    app = Celery("plain", set_as_current=False)
    app.task(name="ask", shared=False)(nothing)
    with black_hole() as url:
        app.conf.broker_url = url
        with no_later_than(10.0):
            (one,) = resilience.check(app)
    assert (one.rule, one.severity) == ("cannot-tell", "note")


def test_rabbitmq_with_the_queues_of_the_library_is_no_mistake(rabbitmq: RabbitProcess) -> None:
    """They are durable, and so are the messages."""
    if not rabbitmq.running:
        rabbitmq.start()
    assert found(rabbitmq.new_url()) == []


def test_queue_of_a_worker_that_runs_is_no_mistake(server: ValkeyProcess) -> None:
    """`up` does not start it, but somebody did."""
    routes = {"rich": {"queue": "vip"}}
    env = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
    with run_worker(WORKER_APP, queues=("vip",), pool="solo", env=env) as worker:
        assert found(server.url, task_routes=routes) == []
        worker.kill()
