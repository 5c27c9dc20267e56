"""An app whose tasks write to a primary and read from a replica that lags."""

import functools
import os
import threading
from typing import Any

import redis
from celery import Celery, current_app
from sqlalchemy import (
    Column,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session

from resilience import (
    Dependency,
    FanOut,
    FireAndForgetTask,
    Resilience,
    ResilientTask,
    RetryPolicy,
    Settings,
    fallback,
)
from resilience.consistency import current_session
from resilience.databases import Databases
from resilience.errors import StoreUnavailableError

QUEUES = ("celery", "db", "db.retry", "cut")
NOTES = Table("notes", MetaData(), Column("id", String(200), primary_key=True))
KEPT = {"retry": RetryPolicy(max_attempts=1, base_seconds=0.05, max_seconds=0.1)}


def bases() -> Databases:
    """Return the databases of the app whose task runs."""
    app: Any = current_app._get_current_object()  # noqa: SLF001 - the app itself
    found: Databases = app.resilience.sources["default"]
    return found


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(os.environ["DESK_URL"], socket_timeout=60)  # noqa: TID251 - the worker's


def write(key: str) -> str:
    """Write the row *key*."""
    with bases().Session.begin() as session:
        session.execute(insert(NOTES).values(id=key))
    return key


def seen(keys: Any) -> list[str]:  # noqa: ANN401 - keys, or lists of them
    """Return those of *keys* whose rows can be read here."""
    wanted = _flat(keys)
    with bases().Session() as session:
        rows = session.scalars(select(NOTES.c.id).where(NOTES.c.id.in_(wanted)))
        return sorted(rows)


def _flat(keys: Any) -> list[str]:  # noqa: ANN401 - as above
    if isinstance(keys, str):
        return [keys]
    data = getattr(keys, "data", keys)  # of a fan-out
    return [
        key for one in (data.values() if isinstance(data, dict) else data) for key in _flat(one)
    ]


def write_and_wait(key: str) -> str:
    """Write the row *key*, and return it when somebody says so."""
    write(key)
    around()  # finds out where that was, before anybody writes more
    wait(key)
    return key


def wait_and_write(key: str) -> str:
    """Write the row *key* when somebody says so, and return it."""
    wait(key)
    return write(key)


def wait(key: str) -> None:
    """Wait until somebody says that the task with this *key* goes on."""
    with desk() as client:
        client.rpush(f"{key}:started", "started")
        client.blpop([f"{key}:go"], timeout=20)


def keep(values: list[str], target: str) -> None:
    """Push *values* to the list *target*."""
    with desk() as client:
        client.rpush(target, *values)


def write_and_fail(key: str) -> None:
    """Write the row *key*, and fail."""
    write(key)
    raise ConnectionError(key)


def around() -> dict[str, Any] | None:
    """Return what the session is, if there is one."""
    session = current_session()
    return None if session is None else {**session.token().to_json(), "using": session.using}


def share() -> bool:
    """Tell whether the store answers this process."""
    app: Any = current_app
    try:
        app.resilience.positions.load("nothing")
    except StoreUnavailableError:
        return False
    return True


def pin(how: str) -> None:
    """Let all that follows read from the primary, if nobody ends it; then end as told."""
    session = current_session()
    assert session is not None
    session.using = "primary"
    session.note_unknown("default", 1.0)
    if how == "fail":
        raise ConnectionError
    if how == "hang":
        threading.Event().wait(5.0)


def echo(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return *value*."""
    return value


def write_and_retry(self: Any, key: str) -> list[str]:  # noqa: ANN401 - a task
    """Write the row *key* and ask for a retry; then return it if it can be read."""
    if self.request.retries == 0:
        write(key)
        raise self.retry(countdown=0)
    return seen(key)


def fan(self: Any, keys: list[str]) -> list[str]:  # noqa: ANN401 - as above
    """Let the parts of a fan-out write *keys*; return those that can be read here then."""
    write_part = self.app.tasks["resilient.write"]
    parts = {f"part{number}": write_part.s(key) for number, key in enumerate(keys)}
    response = FanOut(**parts).apply_async(budget=20.0).get()
    assert response.level == 0, response.to_json()
    return seen(keys)


def note(key: str, target: str, retries_left: int = 0) -> None:
    """Push to the list *target* whether the row *key* can be read here."""
    with desk() as client:
        client.rpush(target, "seen" if seen(key) else "missing")
        failures = client.decr(f"{target}:failures") if retries_left else -1
    if failures >= 0:
        raise ConnectionError(key)


def look(key: str) -> list[str]:
    """Return whether the row *key* can be read here, and who answered."""
    with bases().Session() as session:
        return _look(session, key)


def tally(key: str, target: str) -> None:
    """Count in the hash *target* whether the row *key* can be read here, and who answered."""
    with bases().Session() as session:
        _tally(session, key, target)


def tally_without(key: str, target: str) -> None:
    """Do the same as a task does that knows nothing of positions: the replica answers."""
    with Session(_replica()) as session:
        _tally(session, key, target)


@functools.cache
def _replica() -> Engine:
    return create_engine(os.environ["REPLICA_URL"])  # noqa: TID251 - the worker's


def _tally(session: Session, key: str, target: str) -> None:
    with desk() as client:
        for what in _look(session, key):
            client.hincrby(target, what)
        client.rpush(f"{target}:done", "done")


def _look(session: Session, key: str) -> list[str]:
    found = session.scalar(select(NOTES.c.id).where(NOTES.c.id == key))
    replica = session.scalar(select(func.pg_is_in_recovery()))
    return ["missing" if found is None else "seen", "replica" if replica else "primary"]


def make_app(
    primary: str,
    replica: str,
    *,
    settings: Settings | None = None,
    **options: Any,  # noqa: ANN401
) -> Celery[Any]:
    """Return an adopted app; *options* are those of `Celery`."""
    app: Celery[Any] = Celery("positions", **options)
    app.conf.update(task_default_queue="celery", result_chord_retry_interval=0.1)
    dependencies = [Dependency("db", **KEPT), Dependency("cut", timeout=0.3)]
    adopted = Resilience(app, dependencies=dependencies, settings=settings)
    adopted.databases(
        primary=primary, replicas=[replica], wait_seconds=0.0, primary_fallback_share=1.0
    )
    make: Any = app.task
    plain = (write, seen, write_and_fail, around, share, pin, note, keep, echo)
    for function in (*plain, write_and_wait, wait_and_write):
        for prefix, base in {"plain": None, "resilient": ResilientTask}.items():
            kind = {} if base is None else {"base": base, "dependency": "db"}
            make(function, name=f"{prefix}.{function.__name__}", shared=False, **kind)
    for prefix, base in {"plain": None, "resilient": ResilientTask}.items():
        kind = {} if base is None else {"base": base, "dependency": "db"}
        make(write_and_retry, name=f"{prefix}.write_and_retry", bind=True, shared=False, **kind)
    make(pin, name="cut.pin", base=ResilientTask, dependency="cut", shared=False)
    make(fan, name="fan", base=ResilientTask, bind=True, shared=False)
    of_db: dict[str, Any] = {"dependency": "db", "shared": False}
    make(note, name="fire.note", base=FireAndForgetTask, **of_db)
    for function in (seen, echo):
        steps = [fallback.static([])]
        name = f"fallback.{function.__name__}"
        make(function, name=name, base=ResilientTask, fallbacks=steps, **of_db)
    for mode in ("always", "sticky", "delayed"):
        of_mode = {**of_db, "data_consistency": mode}
        make(seen, name=f"{mode}.seen", base=ResilientTask, **of_mode)
        make(look, name=f"{mode}.look", base=ResilientTask, **of_mode)
        make(note, name=f"{mode}.note", base=FireAndForgetTask, **of_mode)
        make(tally, name=f"{mode}.kept", base=FireAndForgetTask, **of_mode)
        make(tally, name=f"{mode}.tally", base=ResilientTask, ignore_result=True, **of_mode)
    make(tally_without, name="plain.tally", ignore_result=True, shared=False)
    return app


def from_environment() -> Celery[Any]:
    """Return the app of a worker."""
    return make_app(os.environ["PRIMARY_URL"], os.environ["REPLICA_URL"])  # noqa: TID251
