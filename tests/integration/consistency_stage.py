"""A primary and two replicas behind links that can fail, for loads of many processes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from resilience.testing.mariadb import (
    MariaDbProcess,
    MariaDbReplica,
    running_mariadb,
    running_replica_of,
)
from resilience.testing.postgres import (
    PostgresProcess,
    PostgresReplica,
    running_postgres,
    running_replica,
)
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until
from tests.history import story
from tests.integration.consistency_load import Run, Verdict, nemesis
from tests.integration.consistency_routers import Base, Item, Urls
from tests.integration.consistency_worker import Load

ROUTERS = "tests.integration.consistency_routers"
SECONDS = 120.0
KEYS = 8
FEW = 4
MANY = 8
"""Processes of a load: in CI, and of those that go on for long."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A primary and its replicas, each behind a link that can fail."""

    primary: PostgresProcess | MariaDbProcess
    front: TcpProxy
    """Where clients reach the primary, if the stage was made so."""
    links: tuple[TcpProxy, ...]
    replicas: tuple[PostgresReplica, ...] | tuple[MariaDbReplica, ...]
    urls: Urls
    position: Callable[[], str]
    """Returns how far the primary is."""

    def load(
        self,
        router: str,
        directory: Path,
        operations: int,
        *,
        seed: int = 0,
        processes: int = FEW,
    ) -> Load:
        """Make keys for a load, and wait until the replicas have them."""
        keys = tuple(f"{uuid4().hex[:8]}-{number}" for number in range(KEYS))
        engine = create_engine(self.urls.primary)
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all(Item(key=key, trail="") for key in keys)
        engine.dispose()
        position = self.position()
        for replica in self.replicas:
            wait_until(partial(replica.has_replayed, position), SECONDS, "it has the keys")
        return Load(
            router=f"{ROUTERS}:{router}",
            urls=self.urls,
            directory=directory,
            operations=operations,
            processes=processes,
            keys=keys,
            seed=seed,
        )

    def run(self, load: Load) -> Verdict:
        """Run a load to its end while the links fail."""
        run = Run(load)
        with nemesis(self.links, load.seed, run), run.running():
            pass
        return self.judge(load, run)

    def judge(self, load: Load, run: Run) -> Verdict:
        """Check what a load has recorded, and say what that is.

        Writes that are not there at its end, though they were answered, were lost by a failover.
        """
        history = run.history()
        engine = create_engine(self.urls.primary)
        with Session(engine) as session:
            trails = session.scalars(select(Item.trail).where(Item.key.in_(load.keys)))
            there = {write for trail in trails for write in trail.split(",")}
        engine.dispose()
        written = {one.write for one in history if one.op == "write" and one.outcome == "ok"}
        replicas = {str(replica.port) for replica in self.replicas}
        verdict = Verdict.of(history, replicas, lost=written - there)
        print(load.router, verdict.summary())  # noqa: T201 - for who runs it with -s
        for violation in verdict.violations:
            print(story(violation, history))  # noqa: T201 - pytest shows it when the test fails
        return verdict


@contextmanager
def running_postgres_stage(store: str, *, behind_front: bool = False) -> Iterator[Stage]:
    """Run a stage of PostgreSQL, whose clients reach the primary *behind* a proxy or directly."""
    with ExitStack() as stack:
        primary = stack.enter_context(running_postgres())
        front, *links = (stack.enter_context(closing(TcpProxy(primary.port))) for _ in range(3))
        replicas = tuple(
            stack.enter_context(running_replica(primary, through=link.port)) for link in links
        )
        url = _url(primary)
        urls = Urls(
            primary=url.replace(str(primary.port), str(front.port)) if behind_front else url,
            replicas=tuple(map(_url, replicas)),
            store=store,
        )
        yield Stage(primary, front, tuple(links), replicas, urls, primary.flushed_lsn)


@contextmanager
def running_mariadb_stage(store: str, *, replicas: int = 2) -> Iterator[Stage]:
    """Run a stage of MariaDB, perhaps with fewer *replicas*."""
    with ExitStack() as stack:
        primary = stack.enter_context(running_mariadb())
        primary.emptied()
        front, *links = (
            stack.enter_context(closing(TcpProxy(primary.port))) for _ in range(1 + replicas)
        )
        followers = tuple(
            stack.enter_context(running_replica_of(primary, through=link.port)) for link in links
        )
        urls = Urls(primary=_url(primary), replicas=tuple(map(_url, followers)), store=store)
        yield Stage(primary, front, tuple(links), followers, urls, primary.written_gtids)


def _url(server: PostgresProcess | MariaDbProcess) -> str:
    """Return a server's address with the driver, as SQLAlchemy takes it."""
    return server.url.replace("postgresql:", "postgresql+psycopg:").replace(
        "mariadb:", "mariadb+pymysql:"
    )
