"""Full bulkheads with a real broker: who is refused, in which form, and who never is."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain

from resilience import BulkheadFullError, ConfigurationError, ResilientTask
from resilience.bulkhead import LANES
from resilience.events import JobRefused
from resilience.ledger import State
from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from resilience.worker.relay import Relay
from tests.integration.admission_stage import APP_PATH, SECONDS, Shop, running, shop

__all__ = ["running", "shop"]
PUBLISHERS = 3
PUBLISHER = "tests.integration.apps.admission_publisher"
GREENLETS = "tests/integration/apps/admission_gevent.py"


def asked(shop: Shop) -> int:
    """Return how often the broker was asked for the length of a list."""
    stats: Any = shop.broker.client().info("commandstats")
    return int(stats.get("cmdstat_llen", {"calls": 0})["calls"])


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


@pytest.mark.redis_broker("its keys may have a prefix")
def test_limit_holds_where_keys_have_a_prefix(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `global_keyprefix`, under which kombu itself finds no queue, a reading counts them."""
    conf, prefix = shop.app.conf, f"{uuid4().hex}:"
    prefixed = {**conf.broker_transport_options, "global_keyprefix": prefix}
    monkeypatch.setattr(conf, "broker_transport_options", prefixed)
    monkeypatch.setattr(shop.app, "_pool", None)
    monkeypatch.setattr(shop.app.amqp, "_producer_pool", None)
    shop.begin()
    shop.broker.client().lpush(f"{prefix}shop", *["{}"] * 9)
    try:
        with pytest.raises(BulkheadFullError):
            shop.made.plain.delay(1)
    finally:
        shop.app.pool.force_close_all()


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
    declared = lists  # to declare a queue asks for its length, too
    assert lists <= asked(shop) <= declared + lists * (1 + int(seconds))


def test_fire_and_forget_job_waits_in_the_outbox_until_there_is_room(shop: Shop) -> None:
    """Of jobs that are fired at a full bulkhead, only a critical one is published.

    The relay's first look at the outbox fills the lanes to their share, its second adds nothing.
    """
    shop.fill(9)
    key = uuid4().hex

    for number in range(25):
        shop.made.post.fire(key, f"job {number}")
    shop.made.post.apply_async((key, "urgent"), lane="critical")

    assert [(one.state, one.jobs) for one in shop.ledger.counts()] == [(State.OUTBOX, 25)]
    assert shop.waiting("shop.critical") == ["post"]

    shop.begin()
    relay = Relay(shop.app.resilience)
    relay.look()
    relay.look()

    assert shop.depth() == 9
    with shop.working():
        assert set(shop.said(key, 25)) == {f"job {number}" for number in range(25)}
        wait_until(lambda: not shop.ledger.counts(), SECONDS, "the outbox is empty")


def test_work_that_has_begun_is_never_refused(shop: Shop) -> None:
    """A chain's next step, a retry and what replaces a job run although the bulkhead is full."""
    key = uuid4().hex
    shop.made.again.delay(key)
    chain(shop.made.visit.s(key, "first"), shop.made.visit.si(key, "second")).apply_async()
    shop.fill(50, "sheddable")

    with shop.working():
        assert set(shop.said(key, 5)) == {"run 0", "run 1", "instead", "first", "second"}


@pytest.mark.parametrize("pool", ["solo", pytest.param("gevent", marks=pytest.mark.long)])
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
    env = inherited_env({"PYTHONPATH": import_path(), **shop.env})

    def publish(_: int) -> int:
        command = [sys.executable, "-m", PUBLISHER]
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
