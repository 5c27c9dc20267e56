"""A worker without jobs asks for little, and wakes up when there is something to do."""

from collections.abc import Iterator
from typing import cast
from uuid import uuid4

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from resilience.tasks import FanOut
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.apps.idle import make_app

SECONDS = 120.0
BEATS = 6
BEAT = "zrangebyscore"
"""Once a second a worker asks for what dead ones held, and nothing else asks in that way."""
COMMANDS_PER_BEAT = 9
"""Those within scripts among them. This app's worker does not look for fan-outs: one more."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Broker, result backend and store of one worker, and of nobody else."""
    with running_valkey(tmp_path_factory) as running:
        env = {"CELERY_BROKER_URL": running.url}
        queues = ["users.critical", "users", "users.sheddable", "users.retry"]
        with run_worker("tests.integration.apps.idle", queues=queues, concurrency=1, env=env) as it:
            yield running
            it.kill()


@pytest.fixture
def app(server: ValkeyProcess) -> Celery:
    """The app of a caller."""
    return make_app(server.url)


def commands(client: redis.Redis) -> dict[str, int]:
    """Return how often each command was run, but for the one that asks this."""
    stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    found = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    return {
        name: calls for name, calls in found.items() if name not in {"info", "config|resetstat"}
    }


def test_idle_worker_sends_few_commands(server: ValkeyProcess) -> None:
    """A fleet of a hundred workers that have nothing to do costs the broker next to nothing."""
    client = server.client()
    wait_until(lambda: commands(client).get(BEAT, 0) > 1, SECONDS, "the worker has settled")
    client.config_resetstat()

    wait_until(lambda: commands(client).get(BEAT, 0) >= BEATS, SECONDS, "some beats have passed")

    counted = commands(client)
    assert sum(counted.values()) <= COMMANDS_PER_BEAT * counted[BEAT], counted


def test_fan_out_of_an_idle_worker_ends_at_its_deadline(app: Celery) -> None:
    """Who takes a part looks at once, or a short fan-out would end a second late."""
    echo = app.tasks["echo"]
    fan_out = FanOut(here=echo.s(1), gone=echo.s(2).set(queue=uuid4().hex))

    pending = fan_out.apply_async(budget=2.0, on_complete=echo.s())

    response = AsyncResult(f"{pending.id}-complete", app=app).get(timeout=SECONDS)
    assert response.missing == ["gone"]
