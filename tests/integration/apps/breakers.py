"""An app whose task answers, fails, hangs or dies as it is told, with a circuit per test."""

import os
import signal
import threading
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject

from resilience import BreakerPolicy, Dependency, Resilience, ResilientTask, fallback
from resilience.events import Event, log_event

POLICY = BreakerPolicy(minimum_calls=4, open_seconds=30.0, open_seconds_max=60.0, window_seconds=60)
PROBED = BreakerPolicy(
    minimum_calls=4,
    open_seconds=0.5,
    open_seconds_max=0.5,
    half_open_probes=1,
    probe_seconds=5.0,
    window_seconds=60,
)
LETHAL = BreakerPolicy(minimum_calls=2, open_seconds=30.0, open_seconds_max=60.0, window_seconds=60)
HANG_SECONDS = 60

app = Celery("breakers")
app.conf.task_reject_on_worker_lost = False


def shout(event: Event) -> None:
    """Log every event at once, whatever the worker's level."""
    log_event(event)


Resilience(
    app,
    listeners=[shout],
    dependencies=[
        Dependency("pools", breaker=POLICY),
        Dependency("neutral", breaker=POLICY),
        Dependency("lost", breaker=LETHAL),
        Dependency("limited", breaker=POLICY, timeout=30.0),
        Dependency("hasty", timeout=0.3),
        Dependency("probed", breaker=PROBED, timeout=1.0),
        *(Dependency(f"d{number}") for number in range(50)),
    ],
)


def _behave(task: Any, how: str) -> str:  # noqa: ANN401 - a bound task
    if how == "fail":
        msg = "gone"
        raise ConnectionError(msg)
    if how == "retry" and task.request.retries < task.max_retries:
        raise task.retry(countdown=0)
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject(requeue=False)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang" or (how == "hang once" and not task.request.retries):
        threading.Event().wait(HANG_SECONDS)
    return how


class Behaving(ResilientTask):
    """A task that does what it is told."""

    abstract = True
    max_retries = 3

    def run(self, how: str) -> str:
        """Behave."""
        return _behave(self, how)


for _name in ("pools", "neutral", "lost", "limited", "probed"):
    app.register_task(type(_name, (Behaving,), {"name": _name, "dependency": _name})())


for _name, _chain in (("hasty", ()), ("hasty_degraded", (fallback.static("static"),))):
    app.task(
        _behave,
        name=_name,
        base=ResilientTask,
        shared=False,  # not with every other app that the tests make
        bind=True,
        dependency="hasty",
        fallbacks=_chain,
        autoretry_for=(Exception,),
        retry_kwargs={"max_retries": 1, "countdown": 0},
    )


@app.task(shared=False)
def call_all(times: int) -> int:
    """Call each of fifty dependencies so often, and return how many pulses that took."""
    breakers = [Resilience.of(app).breaker(f"d{number}") for number in range(50)]
    before: int = breakers[0]._pulse.sent  # type: ignore[union-attr]  # noqa: SLF001 - to compare
    for _ in range(times):
        for breaker in breakers:
            breaker.call(str)
    return breakers[0]._pulse.sent - before  # type: ignore[union-attr]  # noqa: SLF001 - as above
