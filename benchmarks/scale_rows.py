"""How the cost of the ledger's statements grows with its rows, on SQLite and PostgreSQL.

The jobs are of a dependency whose circuit is open, so that a relay has to skip them. At the largest
size the database explains the statements: none of them may read the whole table of jobs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

from celery import Celery
from sqlalchemy import Connection, Engine, create_engine, event, text

from benchmarks.figure import Figure, exponent
from benchmarks.parked_app import copies
from resilience import Dependency, FireAndForgetTask, Resilience, Settings
from resilience.ledger import Ledger, Which
from resilience.worker.relay import BATCH, LOOK_SECONDS, Relay

DOWN, UP = "parked", "up"
LOOK_RATIO = 2.0
"""Time at the largest size, over that at the smallest."""
COUNTS_MS = 50.0
"""Time to count at the largest size."""
EXPONENT = 0.2
"""0: a million rows take as long as a thousand; 1: the time is in proportion."""
AT_ONCE = 1000
TIMES = 7
RARE = "rare"

Statement = tuple[str, Any]


def run(urls: Mapping[str, tuple[str, str]], broker_url: str, *, quick: bool) -> Iterator[Figure]:
    """Measure ledgers in two empty databases of each kind; *urls* has them by name of the kind."""
    sizes = (1000, 30_000) if quick else (1000, 10_000, 100_000, 1_000_000)
    dead = (1000, 10_000) if quick else (1000, 100_000)
    for name, (url, other) in urls.items():
        with _app(broker_url, url) as app:
            yield from _rows(f"scale_{name}", app, url, sizes)
        with _app(broker_url, other) as app:
            yield from _letters(f"scale_{name}", app, other, dead)


@contextmanager
def _app(broker_url: str, url: str) -> Iterator[Resilience]:
    app = Celery("scale", broker=broker_url, set_as_current=False)
    resilience = Resilience(
        app,
        dependencies=[Dependency(DOWN), Dependency(UP)],
        settings=Settings(ledger_url=url, store_url=broker_url),
        listeners=[],
    )
    app.task(name="fail", base=FireAndForgetTask, dependency=DOWN, shared=False)(_nothing)
    resilience.ledger.upgrade()
    try:
        yield resilience
    finally:
        resilience.ledger.close()
        app.close()


def _nothing(number: int) -> None:
    """Do nothing."""


def _rows(name: str, app: Resilience, url: str, sizes: Sequence[int]) -> Iterator[Figure]:
    breaker: Any = app.breaker(DOWN)
    breaker.force_open(seconds=3600.0, actor="benchmark", reason="to be held")
    relay, queue = Relay(app), app.dependencies[DOWN].retry_queue
    ledger: Ledger = app.ledger

    def look() -> None:
        if relay.look() != LOOK_SECONDS:
            msg = "the relay could not look"
            raise RuntimeError(msg)

    def full() -> None:
        found = ledger.take(BATCH, owner="benchmark", lease_seconds=60.0, full=[queue])
        if found:
            msg = "a full queue was taken from"
            raise RuntimeError(msg)

    steps: dict[str, Callable[[], object]] = {
        "relay_look": look,
        "full_queue": full,
        "counts": ledger.counts,
    }
    took: dict[str, dict[int, float]] = {step: {} for step in steps}
    have = 0
    for size in sizes:
        _add(app, size - have)
        have = size
        _settle(url)
        for step, run_ in steps.items():
            took[step][size] = _median_ms(run_)
    with _recorded() as statements:
        for run_ in steps.values():
            run_()
    for step, points in took.items():
        yield from _growth(f"{name}_{step}", points, COUNTS_MS if step == "counts" else None)
    yield _scans(f"{name}_sequential_scans", url, statements)


def _add(app: Resilience, jobs: int) -> None:
    for start in range(0, jobs, AT_ONCE):
        app.ledger.add(copies(app.app, min(AT_ONCE, jobs - start)), delay_seconds=0.0)


def _growth(name: str, points: Mapping[int, float], most_ms: float | None) -> Iterator[Figure]:
    """Judge the last of *points* by *most_ms*. If that is None, judge the growth from the first."""
    rounded = {size: round(ms, 3) for size, ms in points.items()}
    first, *_, last = points.values()
    if most_ms is not None:
        yield Figure(name=name, value=last, unit="ms", bound=most_ms, sides={"ms": rounded})
        return
    yield Figure(
        name=name, value=last / first, unit="ratio", bound=LOOK_RATIO, sides={"ms": rounded}
    )
    yield Figure(name=f"{name}_exponent", value=exponent(points), unit="power", bound=EXPONENT)


def _letters(name: str, app: Resilience, url: str, sizes: Sequence[int]) -> Iterator[Figure]:
    """Find the letter of a rare task among very many others."""
    ledger: Ledger = app.ledger

    def find() -> None:
        if [one.task for one in ledger.letters.find(Which(task=RARE), limit=20)] != [RARE]:
            msg = "the rare letter was not found"
            raise RuntimeError(msg)

    points, have = {}, 0
    rare = [dataclasses.replace(one, task=RARE) for one in copies(app.app, 1)]
    ledger.add(rare, delay_seconds=0.0)
    for size in sizes:
        _add(app, size - have)
        have = size
        with _connection(url) as connection:
            dead = "UPDATE resilience_jobs SET state = 'dead', due = NULL, died = 1"
            connection.execute(text(f"{dead}, fingerprint = id WHERE died IS NULL"))
        _settle(url)
        points[size] = _median_ms(find)
    with _recorded() as statements:
        find()
    yield from _growth(f"{name}_rare_letters", points, None)
    yield _scans(f"{name}_letters_sequential_scans", url, statements)


def _median_ms(run_: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TIMES):
        began = perf_counter()
        run_()
        seconds.append(perf_counter() - began)
    return median(seconds) * 1000


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield connection
    engine.dispose()


def _settle(url: str) -> None:
    """Make PostgreSQL vacuum and analyse now, which it does by itself only some time later."""
    if url.startswith("postgresql"):
        with _connection(url) as connection:
            connection.execute(text("VACUUM ANALYZE resilience_jobs"))


@contextmanager
def _recorded() -> Iterator[list[Statement]]:
    """Yield the statements that are run in the block."""
    seen: list[Statement] = []

    def note(_on: object, _cursor: object, statement: str, given: Any, *_: object) -> None:  # noqa: ANN401 - by driver
        seen.append((statement, given))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _scans(name: str, url: str, statements: Sequence[Statement]) -> Figure:
    """Count the statements that read the whole table of jobs, as the database explains them."""
    on_jobs = [one for one in statements if "resilience_jobs" in one[0]]
    if not on_jobs:
        msg = "no statement was seen"
        raise RuntimeError(msg)
    scans = _scans_in_sqlite if url.startswith("sqlite") else _scans_in_postgresql
    with _connection(url) as connection:
        scanning = [one for one, given in on_jobs if scans(connection, one, given)]
    shown = [" ".join(statement.split())[:200] for statement in scanning]
    sides = {"explained": len(on_jobs), "scanning": shown}
    return Figure(name=name, value=len(scanning), unit="statements", bound=0, sides=sides)


def _scans_in_sqlite(connection: Connection, statement: str, given: Any) -> bool:  # noqa: ANN401 - by driver
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
    # A scan of an index may read all of it, too, but such statements stop at what they look for.
    return any(
        row[3].startswith("SCAN resilience_jobs") and " INDEX " not in row[3] for row in plan
    )


def _scans_in_postgresql(connection: Connection, statement: str, given: Any) -> bool:  # noqa: ANN401 - by driver
    plan = connection.exec_driver_sql(f"EXPLAIN {statement}", given)
    return any("Seq Scan on resilience_jobs" in row[0] for row in plan)
