"""An adopted app whose jobs write down what they did, in a file that outlives every process."""

import threading
from collections.abc import Callable
from random import SystemRandom
from typing import Any

from celery import Celery

from benchmarks.diary import Diary
from resilience.broker.addresses import is_redis
from resilience.dependency import Dependency
from resilience.events import Event, JobKept, JobUnkept
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.envelope import ledger_header
from resilience.tasks.fire import FireAndForgetTask

QUEUE = "mailer"
FAILURES = 0.3
VISIBILITY_SECONDS = 5
HOPELESS_EVERY = 100
"""One job in so many fails for good, whenever it runs."""

_random = SystemRandom()


class HopelessError(Exception):
    """No other call would help."""


RETRY = RetryPolicy(max_attempts=6, base_seconds=0.2, max_seconds=2.0, dead_on=(HopelessError,))


def make_app(
    broker_url: str, settings: Settings, diary: Diary, *, pause_seconds_max: float = 0.0
) -> Celery:
    """Return an app with the tasks `plain` and `once`, which note what they do in *diary*.

    They take twice *pause_seconds_max* at most: before they do it, and after.
    """
    app = Celery("killed", broker=broker_url, set_as_current=False)
    if is_redis(broker_url):
        app.conf.broker_transport_options = {
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 1,  # kombu looks for such jobs every ten seconds otherwise
        }
    app.conf.worker_hijack_root_logger = False

    def listen(event: Event) -> None:
        if isinstance(event, JobKept | JobUnkept):
            diary.note(type(event).__name__, event.id)

    mailer = Dependency(QUEUE, retry=RETRY, retry_share=None)
    Resilience(app, dependencies=[mailer], settings=settings, listeners=[listen])
    options: dict[str, Any] = {"base": FireAndForgetTask, "bind": True, "dependency": QUEUE}
    for name, more in {"plain": {}, "once": {"idempotency_key": "{number}"}}.items():
        app.task(name=name, shared=False, **options, **more)(_body(diary, pause_seconds_max))
    return app


def _body(diary: Diary, pause_seconds_max: float) -> Callable[[FireAndForgetTask, int], None]:
    def send(task: FireAndForgetTask, number: int) -> None:
        attempt = int(ledger_header(task.request.headers).get("attempts", 0)) + 1

        def note(what: str) -> None:
            diary.note(what, str(task.request.id), attempt=attempt)

        def take_time() -> None:
            threading.Event().wait(_random.uniform(0.0, pause_seconds_max))

        note("begun")
        take_time()
        if number % HOPELESS_EVERY == 0:
            note("failed")
            raise HopelessError
        if _random.random() < FAILURES:
            note("failed")
            msg = "the mail server hung up"
            raise ConnectionError(msg)
        note("done")
        take_time()

    return send
