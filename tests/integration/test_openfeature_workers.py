"""A flag service that a real worker follows, and children that ask through OpenFeature."""

import importlib
import sys

import pytest
from openfeature import api

from resilience.clock import SystemClock
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker

APP_PATH = "tests.integration.apps.following"
SECONDS = 120.0


def test_flip_in_the_flag_service_reaches_forked_children_and_other_processes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Off and on again, within the leader's second and the pulse's.

    Only the main process of the worker that leads sets the provider up.
    """
    with (
        running_broker(tmp_path_factory) as broker,
        running_valkey(tmp_path_factory) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        env = {"BROKER_URL": broker.url, "DESK_URL": server.url}
        for name, value in env.items():
            patch.setenv(name, value)
        patch.delitem(sys.modules, APP_PATH, raising=False)
        module = importlib.import_module(APP_PATH)
        flags, desk = module.resilience.flags, module.desk()

        def answers() -> set[tuple[bool, str]]:
            asked = [module.ask.delay() for _ in range(8)]
            found = [one.get(timeout=SECONDS) for one in asked]
            pids.update(pid for pid, _, _ in found)
            return {(on, why) for _, on, why in found}

        pids: set[int] = set()
        queues = ("celery",)
        with (
            run_worker(APP_PATH, queues=queues, concurrency=2, env=env) as first,
            run_worker(APP_PATH, queues=queues, concurrency=2, env=env) as second,
        ):
            wait_until(lambda: desk.llen("initialised"), SECONDS, "a worker leads")
            assert answers() == {(True, "STATIC")}
            for off, expected in ((True, (False, "ORDER")), (False, (True, "STATIC"))):
                desk.set("ranking", "off") if off else desk.delete("ranking")
                began = SystemClock.monotonic()
                wait_until(lambda off=off: flags.enabled("ranking") != off, SECONDS, "it is heard")
                assert SystemClock.monotonic() - began < 4
                wait_until(lambda one=expected: answers() == {one}, 2, "all children know")
            [leader] = {int(pid) for pid in desk.lrange("initialised", 0, -1)}
            assert leader in {first.pid, second.pid}
            assert not pids & {first.pid, second.pid}
            for worker in (first, second):
                worker.kill()
        api.shutdown()
        desk.close()
        module.resilience.store.client.close()
        module.app.close()
