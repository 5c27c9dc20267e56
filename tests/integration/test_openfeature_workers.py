"""A worker follows a flag service, and its children ask for flags through OpenFeature."""

from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from openfeature import api

from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew
from tests.timing import ends_before

APP_PATH = "tests.integration.apps.following"
SECONDS = 120.0
PAUSES = 4
"""Seconds that a flip may take: one to be noticed, one each until others know, and one to spare."""


def test_flip_in_the_flag_service_reaches_forked_children_and_other_processes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It is off, and on again, a second for the leader and one for each of two pulses later.

    Jobs that follow each other once a second, four of them, take longer. Only the main process of
    the leading worker sets up the provider.
    """
    with (
        running_broker(tmp_path_factory) as broker,
        running_valkey(tmp_path_factory) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        env = {"BROKER_URL": broker.url, "DESK_URL": server.url}
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        flags, desk = module.resilience.flags, module.desk()

        def answers() -> set[tuple[bool, str]]:
            asked = [module.ask.delay() for _ in range(8)]
            found = [one.get(timeout=SECONDS) for one in asked]
            pids.update(pid for pid, _, _ in found)
            return {(on, why) for _, on, why in found}

        def control() -> None:
            with module.desk() as client:
                for _ in range(PAUSES):
                    Event().wait(1.0)
                    module.tell.delay(key := uuid4().hex)
                    assert client.blpop([key], timeout=SECONDS)

        def children_answer(expected: tuple[bool, str]) -> bool:
            return answers() == {expected}

        pids: set[int] = set()
        queues = ("celery",)
        with (
            run_worker(APP_PATH, queues=queues, concurrency=2, env=env) as first,
            run_worker(APP_PATH, queues=queues, concurrency=2, env=env) as second,
        ):
            wait_until(lambda: desk.llen("initialised"), SECONDS, "a worker leads")
            assert answers() == {(True, "STATIC")}
            for off, expected in ((True, (False, "ORDER")), (False, (True, "STATIC"))):
                with ends_before(control):
                    desk.set("ranking", "off") if off else desk.delete("ranking")
                    wait_until(lambda off=off: flags.enabled("ranking") != off, SECONDS, "it knows")
                    wait_until(partial(children_answer, expected), SECONDS, "all children know")
            [leader] = {int(pid) for pid in desk.lrange("initialised", 0, -1)}
            assert leader in {first.pid, second.pid}
            assert not pids & {first.pid, second.pid}
            for worker in (first, second):
                worker.kill()
        api.shutdown()
        desk.close()
        module.resilience.store.client.close()
        module.app.close()
