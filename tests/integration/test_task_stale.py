"""Which calls of a task are the same call to `fallback.stale`."""

from typing import Any
from uuid import uuid4

from celery import Celery

from resilience import Dependency, Level, Resilience, ResilientTask, fallback
from resilience.settings import Settings
from resilience.testing.valkey import ValkeyProcess


def test_arguments_are_known_by_position_and_by_name(valkey: ValkeyProcess) -> None:
    """However the arguments are written, the last full answer to them is found."""
    app: Celery[Any] = Celery("stale", set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, store_timeout_seconds=10)
    Resilience(app, dependencies=[Dependency("users")], settings=settings)
    down = False

    @app.task(
        base=ResilientTask,
        shared=False,
        dependency="users",
        fallbacks=[fallback.stale(max_age=60), fallback.static(None)],
    )
    def ask(user: int, *, detail: int = 0) -> list[int]:
        if down:
            raise ConnectionError
        return [user, detail]

    ask(7)
    ask(8, detail=1)
    down = True

    assert (ask(user=7).value, ask(user=7).level) == ([7, 0], Level.STALE)
    assert ask(detail=1, user=8).value == [8, 1]
    assert ask(8).value is None
