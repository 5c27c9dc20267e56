"""A primary, a replica whose link can be stalled, and a worker of the app in positions.py."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience.consistency import Token
from resilience.consistency.shared import Sample
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests import replicated
from tests.brokers import Broker, running_broker
from tests.integration.apps.positions import NOTES, QUEUES, make_app

APP_PATH = "tests.integration.apps.positions_worker"
SECONDS = 120.0


class Stage:
    """Servers, a worker, and the app of a client.

    Attributes:
        primary: Takes writes.
        replica: Streams from it through `link`.
        link: Between the two.
        primary_url: Address of the stage's own database, as SQLAlchemy takes it.
        replica_url: The same on the replica.
        broker: Takes messages.
        store: The library's store.
        desk: Keeps results, and what tests and tasks leave for each other.
        app: The client's app.
        worker: Runs the tasks of the app.
        seen: What tests have written before.
    """

    def __init__(
        self,
        servers: replicated.Stage,
        broker: Broker,
        store: ValkeyProcess,
        desk: ValkeyProcess,
        backend: str | None = None,
    ) -> None:
        self.primary, self.replica = servers.primary, servers.replicas[0]
        self.link = servers.links[0]
        url = self.primary.new_database().replace("postgresql://", "postgresql+psycopg://")
        self.primary_url = url
        self.replica_url = url.replace(str(self.primary.port), str(self.replica.port))
        self.broker, self.store, self.desk = broker, store, desk
        self.backend = backend or desk.url
        self.app = self.another_app()
        self.worker: WorkerProcess | None = None
        self.seen = Token()

    @property
    def env(self) -> dict[str, str]:
        """What points a worker at the servers."""
        return {
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.backend,
            "RESILIENCE_STORE_URL": self.store.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "0.5",
            "RESILIENCE_LEDGER_URL": self.primary_url,
            "DESK_URL": self.desk.url,
            "PRIMARY_URL": self.primary_url,
            "REPLICA_URL": self.replica_url,
        }

    def another_app(self) -> Celery[Any]:
        """Return the app of another client."""
        settings = Settings(
            store_url=self.store.url,
            store_timeout_seconds=0.5,
            ledger_url=self.primary_url,
        )
        return make_app(
            self.primary_url,
            self.replica_url,
            settings=settings,
            broker=self.broker.url,
            backend=self.backend,
            set_as_current=False,
        )

    @property
    def adopted(self) -> Resilience:
        """What the client's app declared."""
        return Resilience.of(self.app)

    def s(self, task: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - a signature
        """Return the signature of the task named *task*."""
        return self.app.tasks[task].s(*args, **kwargs)

    def si(self, task: str, *args: object) -> Any:  # noqa: ANN401 - as above
        """Return one that takes no value from the task before it."""
        return self.app.tasks[task].si(*args)

    def answers(self) -> bool:
        """Tell whether the worker has found the store again, and shares the session of a job."""
        known: Any = self.s("plain.share").apply_async().get(timeout=SECONDS)
        return bool(known)

    def write(self, key: str) -> str:
        """Write the row *key* in this process, and return *key*."""
        with self.adopted.sources["default"].Session.begin() as session:
            session.execute(NOTES.insert().values(id=key))
        return key

    def fall_behind(self) -> None:
        """Let the replica lag from now on, while the worker's processes go on reading from it."""
        self.link.resume()
        position = self.adopted.sources["default"].measure_primary()
        assert position is not None

        def is_known() -> bool:
            # A little earlier: fleet time is known with some doubt.
            sample = Sample(self.adopted.fleet_time() - 0.1, position)
            seen = self.adopted.positions.exchange("default", sample=sample)
            return any(one.position.covers(position) for one in seen.samples)

        # The lag of a replica is computed from where the primary was, so that must be known.
        wait_until(is_known, SECONDS, "it is known where the primary was")
        before, key = new_keys(2)
        self.write(before)
        self.catch_up()
        self.link.stall()
        self.write(key)

        def all_miss() -> bool:
            results = [self.s("plain.seen", key).apply_async() for _ in range(6)]
            return not any(one.get(timeout=SECONDS) for one in results)

        wait_until(all_miss, SECONDS, "the worker reads from the replica")

    def stall_again(self) -> None:
        """Let the replica catch up, and lag again from there."""
        self.catch_up()
        self.link.stall()

    def let_go(self, key: str) -> None:
        """Let the task with this *key* go on."""
        self.desk.client().rpush(f"{key}:go", "go")

    def catch_up(self) -> None:
        """Let the replica replay all that was committed."""
        self.link.resume()
        lsn = self.primary.flushed_lsn()
        wait_until(lambda: self.replica.has_replayed(lsn), SECONDS, "the replica has caught up")

    def noted(self, target: str, number: int = 1) -> list[str]:
        """Return what was pushed to the list *target*, once it has *number* entries."""
        client = self.desk.client()

        def read() -> list[str]:
            return [text.decode() for text in client.lrange(target, 0, -1)]

        wait_until(lambda: len(read()) >= number, SECONDS, f"{number} entries are in {target}")
        return read()


def close_app(app: Celery[Any]) -> None:
    """Close the connections of an app of `make_app`."""
    adopted = Resilience.of(app)
    adopted.sources["default"].close()
    adopted.ledger.close()
    app.close()


def new_keys(number: int) -> list[str]:
    """Return new keys, sorted."""
    return sorted(uuid4().hex for _ in range(number))


def token_in(document: Any) -> Token:  # noqa: ANN401 - JSON
    """Return the token that *document* is."""
    return Token.from_json(document)


@contextmanager
def running_stage(
    paths: pytest.TempPathFactory,
    servers: replicated.Stage | None = None,
    *,
    pool: str = "prefork",
    concurrency: int = 4,
    backend: str | None = None,
    loglevel: str = "INFO",
    broker: Broker | None = None,
) -> Iterator[Stage]:
    """Run servers and a worker for the tests of a module; the worker is killed at the end.

    The stage has a database of its own on *servers*, which are left level; None: on others.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 - for this alone

    with ExitStack() as stack:
        servers = servers or stack.enter_context(replicated.running_stage())
        broker = broker or stack.enter_context(running_broker(paths))
        store, desk = (stack.enter_context(running_valkey(paths)) for _ in range(2))
        stage = Stage(servers, broker, store, desk, backend)
        stack.callback(stage.catch_up)
        engine = create_engine(stage.primary_url)
        NOTES.create(engine)
        engine.dispose()
        stage.adopted.ledger.upgrade()
        stage.catch_up()
        stack.callback(close_app, stage.app)
        with run_worker(
            APP_PATH,
            queues=QUEUES,
            concurrency=concurrency,
            pool=pool,
            env=stage.env,
            loglevel=loglevel,
        ) as stage.worker:
            try:
                yield stage
            finally:
                stage.worker.kill()
