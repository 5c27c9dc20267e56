"""An adopted app whose jobs nobody waits for; workers and tests import `app`.

Where the servers are is in variables of the environment.
"""

import json
import os
import signal
import threading
from typing import Any

import redis
from celery import Celery

from resilience.dependency import Dependency
from resilience.errors import RejectedError
from resilience.events import Event
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "mail", "mail.retry", "bank", "bank.retry")
EVENTS = "events"
HOLD_SECONDS = 30
HARD_LIMIT_SECONDS = 1
POLICY = RetryPolicy(max_attempts=4, base_seconds=0.05, dead_on=(PermissionError,))


class BrokenPolicy(RetryPolicy):
    """Decides nothing: it has a mistake of its own."""

    def decide(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - never returns
        """Fail."""
        raise LookupError("the policy is broken")  # noqa: EM101, TRY003 - one line


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(
        ENV["DESK_URL"], decode_responses=True, socket_timeout=2 * HOLD_SECONDS
    )


def witness(event: Event) -> None:
    """Tell the tests of *event*."""
    with desk() as client:
        client.rpush(EVENTS, json.dumps({"name": type(event).__name__, **event.details()}))


app: Celery[Any] = Celery(
    "mail", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
Resilience(
    app,
    dependencies=[
        Dependency("mail", retry=POLICY, retry_share=None, timeout=20),
        Dependency("bank", retry=POLICY, retry_share=None, timeout=3),
    ],
    settings=Settings(
        store_url=ENV["STORE_URL"],
        store_timeout_seconds=0.5,
        ledger_url=ENV["LEDGER_URL"],
        ledger_lease_seconds=60,
    ),
    listeners=[witness],
)


def ran(key: str) -> int:
    """Note that the job with this *key* runs; return how often it has."""
    with desk() as client:
        return int(client.rpush(f"{key}:ran", os.getpid()))  # type: ignore[arg-type]


@app.task(base=FireAndForgetTask, dependency="mail", name="send", bind=True, shared=False)
def send(self: Any, key: str, fails: int = 0, secret: str = "") -> None:  # noqa: ANN401, ARG001
    """Fail the first *fails* times."""
    times = ran(key)
    if times <= fails:
        text = f"failure {times}"
        raise ConnectionError(text)
    request = self.request
    said = {"headers": request.headers, "expires": request.expires, "stamps": request.stamps}
    with desk() as client:
        client.rpush(key, json.dumps(said))


@app.task(base=FireAndForgetTask, dependency="mail", name="misuse", shared=False)
def misuse(key: str, kind: str) -> None:
    """Fail in a way that no other call makes better, or without having tried."""
    times = ran(key)
    if kind == "bug":
        raise NameError(kind)
    if kind == "forbidden":
        raise PermissionError(kind)
    if times < 8:
        raise RejectedError(kind, 0.05)
    with desk() as client:
        client.rpush(key, json.dumps("done"))


@app.task(base=FireAndForgetTask, dependency="mail", name="perish", shared=False)
def perish(key: str, times: int) -> None:
    """Take the process along, the first *times*."""
    if ran(key) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    with desk() as client:
        client.rpush(key, json.dumps("done"))


@app.task(
    base=FireAndForgetTask,
    dependency="mail",
    name="overrun",
    time_limit=HARD_LIMIT_SECONDS,
    shared=False,
)
def overrun(key: str) -> None:
    """Run into the hard limit, the first time."""
    if ran(key) == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        threading.Event().wait()
    with desk() as client:
        client.rpush(key, json.dumps("done"))


@app.task(base=FireAndForgetTask, dependency="bank", name="book", shared=False)
def book(key: str) -> None:
    """Call the bank."""
    ran(key)
    with desk() as client:
        client.rpush(key, json.dumps("done"))


@app.task(
    base=ResilientTask,
    dependency="bank",
    name="charge",
    idempotency_key="order:{order}",
    shared=False,
)
def charge(order: str, key: str, *, fails: bool = False) -> str:
    """Charge an order once: hold until told to go on, say how often it ran."""
    times = ran(key)
    with desk() as client:
        client.rpush(f"{key}:started", os.getpid())
        if client.blpop([f"{key}:go"], timeout=HOLD_SECONDS) is None:
            raise TimeoutError(key)
    if fails and times == 1:
        raise ConnectionError(key)
    return f"{order} charged, run {times}"


@app.task(
    base=FireAndForgetTask,
    dependency="mail",
    name="confirm",
    idempotency_key="order:{order}",
    shared=False,
)
def confirm(order: str, key: str) -> None:
    """Confirm an order once; the first time the process is killed before it is done."""
    with desk() as client:
        client.rpush(key, json.dumps(order))
    if ran(key) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(
    base=FireAndForgetTask,
    dependency="mail",
    name="broken",
    retry_policy=BrokenPolicy(),
    shared=False,
)
def broken(key: str) -> None:
    """Fail, with a policy that fails as well."""
    ran(key)
    raise ConnectionError(key)
