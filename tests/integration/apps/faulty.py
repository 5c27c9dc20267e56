"""An app without features, whose dependencies are to have faults."""

from celery import Celery

from resilience import BreakerPolicy, Dependency, FireAndForgetTask, Resilience, ResilientTask
from resilience.events import log_event
from resilience.fallback import static
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener

app = Celery("faulty")
app.conf.update(task_default_queue="others")
Resilience(
    app,
    dependencies=[
        Dependency("ranking", breaker=BreakerPolicy(minimum_calls=3)),
        Dependency("mail"),
    ],
    listeners=[log_event, PrometheusListener(objectives=[Objective(full=0.9)])],
)


@app.task(shared=False, base=ResilientTask, dependency="ranking", fallbacks=[static([])])
def rank() -> list[int]:
    """Answer with an empty list when ranking is down."""
    return [1]


@app.task(shared=False, base=FireAndForgetTask, dependency="mail")
def send() -> None:
    """Wait when mail is down."""
