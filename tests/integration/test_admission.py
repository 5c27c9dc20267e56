"""Full bulkheads with a real broker: who is refused, in which form, and who never is."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group

from resilience import (
    BulkheadFullError,
    ConfigurationError,
    FanOut,
    Level,
    Outcome,
    ResilientTask,
    part,
)
from resilience.bulkhead import LANES
from resilience.events import JobRefused
from resilience.ledger import Ledger, State
from resilience.tasks.admission import Admission
from resilience.testing.plugin import running_valkey
from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker.relay import Relay
from tests.brokers import Broker, put, running_broker

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")
SECONDS = 30.0
APP_PATH = "tests.integration.apps.admission"
PUBLISHERS = 6
GREENLETS = "tests/integration/apps/admission_gevent.py"


class Shop:
    """The servers, the app, and what the tests ask of them."""

    def __init__(self, made: ModuleType, broker: Broker, store: ValkeyProcess) -> None:
        self.made = made
        self.app = made.app
        self.broker = broker
        self.store = store.client()
        self.ledger: Ledger = made.app.resilience.ledger

    def begin(self) -> None:
        """Empty all, and let nobody know any depth."""
        self.broker.empty()
        self.made.EVENTS.clear()
        resilience = self.app.resilience
        resilience.admission = Admission(self.app, resilience.dependencies, resilience.announce)

    def fill(self, jobs: int, lane: str = "normal") -> None:
        """Let so many jobs wait; each that is delivered is dropped as unknown."""
        put(self.broker, self.app, self.made.SHOP.queue_of(lane), jobs)

    def depth(self) -> int:
        """Return how many jobs wait in the lanes."""
        return sum(self.broker.kept(name) for name in self.made.SHOP.lane_queues)

    def waiting(self, name: str) -> list[str]:
        """Return the tasks that wait in a queue, first in front."""
        return [one["task"] for one in self.broker.headers(name) if "task" in one]

    def said(self, key: str, words: int) -> list[str]:
        """Wait until jobs have said so many words, and return them."""
        wait_until(lambda: int(self.store.llen(key)) >= words, SECONDS, key)  # type: ignore[arg-type]
        return [json.loads(one)[0] for one in self.store.lrange(key, 0, -1)]  # type: ignore[union-attr]

    def working(self) -> Any:  # noqa: ANN401 - a context manager
        """Run a worker of all queues."""
        queues = (*self.made.SHOP.queues, "free")
        return run_worker(APP_PATH, queues=queues, pool="solo", concurrency=1, env=self.env)

    env: dict[str, str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers and the app in this process."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        store = stack.enter_context(running_valkey(tmp_path_factory))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "BROKER_URL": broker.url,
            "STORE_URL": store.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        made = importlib.import_module(APP_PATH)
        made.app.resilience.ledger.upgrade()
        shop = Shop(made, broker, store)
        shop.env = env
        yield shop
        shop.ledger.close()
        made.app.resilience.store.client.close()
        made.app.close()


@pytest.fixture
def shop(running: Shop) -> Shop:
    """The same, empty."""
    running.begin()
    return running


def asked(shop: Shop) -> int:
    """Return how often the broker was asked whether a list is there, before its length."""
    stats: Any = shop.broker.client().info("commandstats")
    return int(stats.get("cmdstat_exists", {"calls": 0})["calls"])


def test_full_bulkhead_refuses_and_says_when_to_come_back(shop: Shop) -> None:
    """Nothing is published, the error names the dependency, and the refusal is announced."""
    shop.fill(9)

    with pytest.raises(BulkheadFullError) as caught:
        shop.made.plain.delay(1)

    assert caught.value.dependency == "shop"
    assert caught.value.retry_after is not None
    assert 1.0 <= caught.value.retry_after <= 3.0
    assert shop.depth() == 9
    assert [
        JobRefused(task="plain", dependency="shop", depth=9, max_queue=10, lane="normal")
    ] == shop.made.EVENTS


def test_sheddable_is_refused_first_and_critical_last(shop: Shop) -> None:
    """Each lane fills its share, whatever lanes the waiting jobs are in."""
    admitted = dict.fromkeys(reversed(LANES), 0)
    for lane in admitted:
        with suppress(BulkheadFullError):
            for _ in range(shop.made.MOST + 1):
                shop.made.plain.apply_async((1,), lane=lane)
                admitted[lane] += 1

    assert admitted == {"sheddable": 5, "normal": 4, "critical": 1}
    lengths = [shop.broker.kept(name) for name in shop.made.SHOP.queues]
    assert lengths == [1, 4, 5, 0]


@pytest.mark.redis_broker("it counts the commands of Redis")
def test_depth_is_asked_for_once_a_second_at_most(shop: Shop) -> None:
    """Two thousand publishes cost as many readings as seconds went by, and no more."""
    queue = shop.broker.client()
    queue.config_resetstat()
    shop.begin()
    began = queue.time()
    for number in range(2000):
        if number % 5 == 0:
            queue.delete("shop")
        try:
            shop.made.plain.delay(number)
        except BulkheadFullError:
            continue
    ended = queue.time()

    seconds = ended[0] - began[0] + (ended[1] - began[1]) / 1e6  # type: ignore[index]
    lists = 3 * 4  # three lanes, four priorities
    assert lists <= asked(shop) <= lists * (1 + int(seconds))


def test_task_with_fallbacks_is_answered_where_it_is_published(shop: Shop) -> None:
    """The result is ready and holds the outcome; who has its id reads the same from the backend."""
    shop.fill(9)

    result = shop.made.designed.delay()

    expected = Outcome(
        value="instead",
        level=Level.STATIC,
        reason="BulkheadFullError",
        source="static",
        dependency="shop",
    )
    assert result.ready()
    assert result.get() == expected
    assert shop.app.AsyncResult(result.id).get(timeout=SECONDS) == expected
    assert shop.depth() == 9


def test_link_and_chain_go_on_with_the_answer_of_the_publisher(shop: Shop) -> None:
    """Callbacks and the next step are published with the outcome."""
    shop.fill(9)
    key = uuid4().hex

    shop.made.designed.apply_async(link=shop.made.collect.signature(kwargs={}, args=(key,)))
    last = chain(shop.made.designed.s(), shop.made.visit.si(key, "second")).apply_async()

    assert shop.waiting("free") == ["collect"]
    assert shop.waiting("shop") == ["visit"]  # a chain that has begun is not refused
    assert last.parent is not None


def test_chain_is_refused_by_its_first_step(shop: Shop) -> None:
    """Without a fallback nothing of it is published."""
    shop.fill(9)

    with pytest.raises(BulkheadFullError):
        chain(shop.made.plain.s(1), shop.made.plain.s()).apply_async()

    assert shop.depth() == 9


def test_refused_member_of_a_group_fails_in_its_place(shop: Shop) -> None:
    """The others are published; who waits for the group hears why one is missing."""
    shop.fill(7)

    result = group(shop.made.plain.s(n) for n in range(3)).apply_async()

    assert shop.depth() == 9
    with pytest.raises(BulkheadFullError):
        result.results[2].get(timeout=SECONDS)


def test_refused_member_of_a_group_whose_result_nobody_keeps_is_raised(shop: Shop) -> None:
    """Nobody would hear of it otherwise."""
    shop.fill(9)

    with pytest.raises(BulkheadFullError):
        group(shop.made.plain.s(n).set(ignore_result=True) for n in range(2)).apply_async()


def test_chord_with_a_refused_member_fails_and_one_with_fallbacks_is_done(shop: Shop) -> None:
    """Neither is left hanging: the body fails, or gets the outcome."""
    shop.fill(9)
    key = uuid4().hex

    lost = chord([shop.made.plain.s(1), shop.made.plain.s(2)], shop.made.collect.si(key, 0))()
    done = chord([shop.made.designed.s(), shop.made.designed.s()], shop.made.collect.s(key))

    with pytest.raises(BulkheadFullError):  # that of the member which the body waited for
        lost.get(timeout=SECONDS)
    done()
    assert shop.waiting("free") == ["collect"]


def test_part_of_a_fan_out_gets_its_answer_or_says_why_it_is_missing(shop: Shop) -> None:
    """The response is there at once: nothing is waited for."""
    shop.fill(9)
    dashboard = FanOut(good=part(shop.made.designed.s()), bad=part(shop.made.plain.s(1)))

    response = dashboard.apply_async(budget=SECONDS).get()

    assert response.missing == ["bad"]
    assert response.reasons["bad"] == "BulkheadFullError"
    assert response.degraded == ["good"]
    assert response.to_json()["data"]["good"] == "instead"
    assert shop.depth() == 9


def test_fire_and_forget_job_waits_in_the_outbox_until_there_is_room(shop: Shop) -> None:
    """The relay holds to the limit as well: what it releases never makes the lanes too full."""
    shop.fill(9)
    key = uuid4().hex

    for number in range(25):
        shop.made.post.fire(key, f"job {number}")
    shop.made.post.apply_async((key, "urgent"), lane="critical")

    assert [(one.state, one.jobs) for one in shop.ledger.counts()] == [(State.OUTBOX, 25)]
    assert shop.waiting("shop.critical") == ["post"]
    with shop.working():
        assert set(shop.said(key, 26)) == {"urgent", *(f"job {number}" for number in range(25))}
        wait_until(lambda: not shop.ledger.counts(), SECONDS, "the outbox is empty")


def test_relay_publishes_no_more_than_there_is_room_for(shop: Shop) -> None:
    """One look at a full outbox fills the lanes to their share; the next one nothing more."""
    key = uuid4().hex
    shop.fill(9)
    for number in range(25):
        shop.made.post.fire(key, f"job {number}")
    shop.broker.empty()
    shop.begin()
    relay = Relay(shop.app.resilience)

    relay.look()
    relay.look()

    assert shop.depth() == 9
    with shop.working():
        shop.said(key, 25)
        wait_until(lambda: not shop.ledger.counts(), SECONDS, "the outbox is empty")


def test_work_that_has_begun_is_never_refused(shop: Shop) -> None:
    """A chain's next step, a retry and what replaces a job run although the bulkhead is full."""
    key = uuid4().hex
    shop.made.again.delay(key)
    chain(shop.made.visit.s(key, "first"), shop.made.visit.si(key, "second")).apply_async()
    shop.fill(50, "sheddable")

    with shop.working():
        assert set(shop.said(key, 5)) == {"run 0", "run 1", "instead", "first", "second"}


@pytest.mark.parametrize("pool", ["solo", "gevent"])
def test_new_work_of_a_running_job_is_refused(shop: Shop, pool: str) -> None:
    """What a body publishes is asked about as anything else; the job fails with the refusal."""
    shop.fill(500, "sheddable")

    def is_refused() -> bool:
        try:
            shop.made.nested.delay("new").get(timeout=SECONDS)
        except BulkheadFullError:
            return True
        return False

    with run_worker(APP_PATH, queues=["free"], pool=pool, concurrency=1, env=shop.env):
        # A worker that connects for the first time may not know the depth in time, and admits.
        wait_until(is_refused, SECONDS, "the job is refused")


@pytest.mark.redis_broker("RabbitMQ serves the queues of a consumer by turns")
def test_worker_serves_lanes_in_order(shop: Shop) -> None:
    """Critical first, then normal, sheddable, and what runs again."""
    key = uuid4().hex
    for lane in ("sheddable", "normal", "critical"):
        shop.made.visit.apply_async((key, lane), lane=lane)
        shop.made.visit.apply_async((key, lane), lane=lane)
    shop.made.visit.apply_async((key, "retry"), queue="shop.retry")

    with shop.working():
        words = shop.said(key, 7)

    assert words == ["critical"] * 2 + ["normal"] * 2 + ["sheddable"] * 2 + ["retry"]


def test_publishers_together_stay_below_the_limit_and_what_each_knows_not_of(shop: Shop) -> None:
    """Each adds its own publishes to what it read: all at once exceed it by less than that."""
    program = (
        f"import {APP_PATH} as made\n"
        "from resilience import BulkheadFullError\n"
        "from resilience.tasks import admission\n"
        "admission.WAIT_SECONDS = 60.0\n"
        "n = 0\n"
        "for _ in range(300):\n"
        "    try:\n"
        "        made.plain.apply_async((1,), lane='critical'); n += 1\n"
        "    except BulkheadFullError: pass\n"
        "print(n)"
    )
    env = inherited_env({"PYTHONPATH": import_path(), **shop.env})

    def publish(_: int) -> int:
        command = [sys.executable, "-c", program]
        return int(subprocess.check_output(command, env=env, text=True, timeout=120))  # noqa: S603 - our own program

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        published = list(pool.map(publish, range(PUBLISHERS)))

    assert sum(published) == shop.depth()
    assert shop.made.MOST <= shop.depth() <= PUBLISHERS * shop.made.MOST
    assert all(one <= shop.made.MOST for one in published)


def test_crowd_of_greenlets_keeps_the_limit_of_which_it_knows_nothing_yet(shop: Shop) -> None:
    """All wait for the reading that the first one takes; none is let in for coming meanwhile."""
    done = subprocess.run(  # noqa: S603 - of this directory
        [sys.executable, "-m", "gevent.monkey", GREENLETS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=inherited_env({"PYTHONPATH": import_path(), **shop.env}),
    )
    assert done.returncode == 0, done.stderr

    most = shop.made.MOST
    assert json.loads(done.stdout) == {"published": most, "refused": 100 - most}
    assert shop.depth() == most


def test_lane_that_is_none_is_refused_where_it_is_written(shop: Shop) -> None:
    """By a class and by a publish, with the value."""
    with pytest.raises(ConfigurationError, match="'urgent'"):
        shop.made.plain.apply_async((1,), lane="urgent")
    with pytest.raises(ConfigurationError, match="'urgent'"):
        type("Urgent", (ResilientTask,), {"lane": "urgent"})


def test_unknown_depth_admits(shop: Shop, tmp_path: Path) -> None:  # noqa: ARG001
    """A queue given by hand is nobody's business, however full the bulkhead is."""
    shop.fill(50)

    shop.made.plain.apply_async((1,), queue="elsewhere")

    assert shop.waiting("elsewhere") == ["plain"]
