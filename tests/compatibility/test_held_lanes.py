"""A hold of one queue holds that queue: a lane of a dependency is one, whoever defined it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
from celery.bin.base import CLIContext
from celery.result import AsyncResult
from click.testing import CliRunner, Result

from resilience.bulkhead import Holds
from resilience.cli import resilience
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, running_broker
from tests.fresh import imported_anew

APP_PATH = "tests.compatibility.apps.lanes"
SECONDS = 120
WHO: dict[str, Any] = {"actor": "ann", "reason": "test"}


class Stage:
    """Servers, and the app of a publisher and operator."""

    def __init__(self, module: ModuleType, broker: Broker, env: dict[str, str]) -> None:
        self.module, self.broker, self.env = module, broker, env
        self.holds: Holds = module.app.resilience.holds

    def order(self, *words: str) -> Result:
        """Give an order of `celery … resilience`."""
        context = CLIContext(app=self.module.app, no_color=True, workdir=None)
        return CliRunner().invoke(resilience, words, obj=context)

    def put(self, lane: str) -> AsyncResult[Any]:
        """Publish a job into *lane* of payments."""
        result: AsyncResult[Any] = self.module.pay.apply_async(lane=lane)
        return result


def await_held(worker: WorkerProcess, name: str, *, held: bool = True) -> None:
    """Wait until *worker* says that it holds *name*, or does so no longer."""
    held_at, released_at = (
        f"Queue{word} queue={name} worker={worker.hostname}" for word in ("Held", "Released")
    )

    def found() -> bool:
        log = worker.log
        return held == (log.rfind(held_at) > log.rfind(released_at))

    wait_until(found, SECONDS, f"{name} is {'held' if held else 'consumed'}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run the servers."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        desk = stack.enter_context(running_valkey(tmp_path_factory))
        env = {"LANES_BROKER": broker.url, "LANES_DESK": desk.url}
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        yield Stage(module, broker, env)
        module.app.resilience.store.client.close()
        module.app.close()


@pytest.fixture(scope="module")
def worker(servers: Stage) -> Iterator[WorkerProcess]:
    """Run a worker of all queues."""
    with run_worker(APP_PATH, queues=servers.module.QUEUES, env=servers.env) as worker:
        yield worker
        worker.kill()


@pytest.fixture
def stage(servers: Stage, worker: WorkerProcess) -> Iterator[Stage]:
    """Return the servers with their worker, and nothing held."""
    assert worker.running
    yield servers
    for name in servers.holds.all():
        servers.holds.release(name, **WHO)
    # Also of what a test released: the worker may not know yet.
    for name in set(re.findall(rf"QueueHeld queue=(\S+) worker={worker.hostname}", worker.log)):
        await_held(worker, name, held=False)


@pytest.mark.parametrize(
    ("queue", "lane", "others"),
    [
        pytest.param("money.critical", "critical", ["normal", "sheddable"], id="defined"),
        pytest.param("money.sheddable", "sheddable", ["normal", "critical"], id="of-the-library"),
        pytest.param("money", "normal", ["critical", "sheddable"], id="normal"),
    ],
)
def test_lane_is_held_by_the_command_line_and_no_other(
    stage: Stage, worker: WorkerProcess, queue: str, lane: str, others: Sequence[str]
) -> None:
    """Its jobs wait, those of the other lanes run, and released it goes on."""
    held = stage.order("hold", queue, "--seconds", "300", "--reason", "test")
    assert held.exit_code == 0, held.stderr
    await_held(worker, queue)

    waiting = stage.put(lane)
    for other in others:
        assert stage.put(other).get(timeout=SECONDS)
    assert stage.broker.kept(queue) == 1
    assert not waiting.ready()

    assert stage.order("release", queue).exit_code == 0
    assert waiting.get(timeout=SECONDS) == queue


def test_orders_for_a_lane_and_for_its_dependency_do_not_undo_each_other(
    stage: Stage, worker: WorkerProcess
) -> None:
    """A lane is consumed when neither it nor its dependency is held."""
    stage.holds.hold("money.critical", seconds=300, **WHO)
    await_held(worker, "money.critical")
    stage.holds.hold("payments", seconds=300, **WHO)
    await_held(worker, "payments")
    stage.holds.release("payments", **WHO)
    await_held(worker, "payments", held=False)
    critical, normal = stage.put("critical"), stage.put("normal")
    assert normal.get(timeout=SECONDS) == "money"
    assert not critical.ready()

    stage.holds.hold("payments", seconds=300, **WHO)
    await_held(worker, "payments")
    stage.holds.release("money.critical", **WHO)
    await_held(worker, "money.critical", held=False)
    normal = stage.put("normal")
    assert not critical.ready()
    stage.holds.release("payments", **WHO)
    assert normal.get(timeout=SECONDS) == "money"
    assert critical.get(timeout=SECONDS) == "money.critical"


def test_lane_stays_held_when_its_connection_is_lost(stage: Stage, worker: WorkerProcess) -> None:
    """A new connection consumes from the others only."""
    stage.holds.hold("money.critical", seconds=300, **WHO)
    await_held(worker, "money.critical")
    before = worker.log.count("Connected to")
    stage.broker.kill()
    stage.broker.start()
    wait_until(lambda: worker.log.count("Connected to") > before, 30, "it is back")
    critical = stage.put("critical")

    assert stage.put("normal").get(timeout=SECONDS) == "money"
    assert not critical.ready()
    stage.holds.release("money.critical", **WHO)
    assert critical.get(timeout=SECONDS) == "money.critical"


@pytest.mark.parametrize(
    ("pool", "queues"),
    [
        ("prefork", ["money.critical"]),
        ("threads", ["money.critical", "users"]),
        ("solo", ["money.critical", "users"]),
    ],
)
def test_worker_that_starts_while_a_lane_is_held_takes_nothing_from_it(
    stage: Stage, worker: WorkerProcess, pool: str, queues: list[str]
) -> None:
    """A worker of one lane alone holds, too, on every pool."""
    stage.holds.hold("money.critical", seconds=300, **WHO)
    await_held(worker, "money.critical")
    critical = stage.put("critical")
    with run_worker(APP_PATH, queues=queues, pool=pool, env=stage.env) as late:
        await_held(late, "money.critical")
        if "users" in queues:
            assert stage.module.user.delay().get(timeout=SECONDS) == "users"
        assert not critical.ready()
        stage.holds.release("money.critical", **WHO)
        assert critical.get(timeout=SECONDS) == "money.critical"
        await_held(late, "money.critical", held=False)
        late.kill()


def test_order_names_what_can_be_held_when_it_is_none(servers: Stage) -> None:
    """What the command offers is what it holds."""
    done = servers.order("hold", "money.critcal", "--reason", "test")

    assert done.exit_code == 2
    assert "Did you mean 'money.critical'?" in done.stderr
    known = done.stderr.partition("Known are: ")[2].replace(".\n", "").split(", ")
    assert known == [
        "payments",
        "users",
        *servers.module.QUEUES[1:5],
        *(f"users{suffix}" for suffix in (".critical", ".sheddable", ".retry")),
        "celery",
    ]
