"""A worker of apps/publishing.py with its servers, and the same app in the tests' process."""

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import pytest

from resilience.clock import SystemClock
from resilience.ledger import Ledger
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker

SECONDS = 120.0
APP_PATH = "tests.compatibility.apps.publishing"
NEVER_SECONDS = 3600.0
ANSWER = 7


class Bench:
    """The servers, the app and what the tests ask of them."""

    def __init__(self, module: ModuleType, env: dict[str, str], worker: WorkerProcess) -> None:
        self.env = env
        self.worker = worker
        self.module = module
        self.app = module.app
        self.connection = module.app.connection_for_write()
        self.producer = module.app.amqp.Producer(self.connection, auto_declare=False)
        self.ledger: Ledger = module.app.resilience.ledger

    def publish(self, task: str, key: str, options: dict[str, Any], *, kept: bool = False) -> Any:  # noqa: ANN401
        """Publish *task*, or have it kept in the outbox."""
        found = self.app.tasks[task]
        if not kept:
            return found.apply_async((key, ANSWER), **options)
        type(found)._avoid_until[id(self.app)] = SystemClock.monotonic() + NEVER_SECONDS  # noqa: SLF001
        try:
            return found.apply_async((key, ANSWER), **options)
        finally:
            type(found)._avoid_until.clear()  # noqa: SLF001

    def facts(self, key: str, run: int = 0) -> dict[str, Any]:
        """Wait until the body has noted what it came with, in its first *run* or a later one."""
        with self.module.desk() as desk:
            wait_until(lambda: desk.llen(key) > run, SECONDS, f"the job {key} ran")
            found: dict[str, Any] = json.loads(desk.lindex(key, run))
        return found

    def types(self, job: str) -> set[str]:
        """Return the content types of all messages of *job* that workers received."""
        with self.module.desk() as desk:
            return set(desk.lrange(f"received:{job}", 0, -1))

    def known(self) -> int:
        """Return how many jobs the ledger knows."""
        return sum(one.jobs for one in self.ledger.counts())


@contextmanager
def running_bench(
    paths: pytest.TempPathFactory, conf: Mapping[str, Any] | None = None
) -> Iterator[Bench]:
    """Run servers and a worker; the app has the settings *conf*."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(paths))
        desk = stack.enter_context(running_valkey(paths))
        env = {
            "APP_CONF": json.dumps(conf or {}),
            "BROKER_URL": broker.url,
            "DESK_URL": desk.url,
            "C_FORCE_ROOT": "1",  # else no worker of root accepts pickle
            "LEDGER_URL": f"sqlite:///{paths.mktemp('ledger') / 'ledger.sqlite3'}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop(APP_PATH, None)  # that of another module has other servers
        module = importlib.import_module(APP_PATH)
        module.app.resilience.ledger.upgrade()
        worker = stack.enter_context(run_worker(APP_PATH, queues=module.QUEUES, env=env))
        bench = Bench(module, env, worker)
        yield bench
        bench.connection.release()
        bench.ledger.close()
        module.app.resilience.store.client.close()
        module.app.close()
